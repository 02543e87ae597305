"""A run's LoRA adapters out, without the network that they were trained beside."""

from pathlib import Path

from fmjax.errors import InputError
from fmjax.files import check_file
from fmjax.first_process import on_first_process
from fmjax.run import workdir as folder
from fmjax.run.restore import open_run, read_parameters
from fmjax.training import lora
from fmjax.training.mesh import make_mesh


def export_adapters(
    workdir: Path,
    out: Path,
    *,
    checkpoint: str = "latest",
    ema: bool = True,
    overwrite: bool = False,
) -> str:
    """Writes the adapters of a run of LoRA, for `fmjax.training.lora.load` to read.

    Args:
        workdir: the run.
        out: the ``.safetensors`` file to write.
        checkpoint: ``"latest"``, ``"best"``, or a step.
        ema: the averaged ones.
        overwrite: replaces the file if it is there already.

    Returns:
        What was written, in a sentence.

    Raises:
        InputError: the run has none, or something else does not fit, in one sentence.
    """
    adapted = open_run(workdir).adapted
    if adapted is None or not folder.has_checkpoints(workdir):
        raise InputError(
            f"{workdir} holds no adapters: it was not trained with lora.rank above 0, or holds "
            "merged parameters alone; leave --adapters out."
        )
    on_first_process(lambda: check_new_file(out, overwrite))
    step, params = read_parameters(workdir, adapted, checkpoint, ema, make_mesh())
    lora.save(out, params["adapters"])
    return f"{out}: adapters of rank {params['adapters'].rank}, step {step}"


def check_new_file(out: Path, overwrite: bool) -> None:
    """Checks that a file of parameters can be written.

    Raises:
        InputError: its name does not say what it is, it cannot be written, or is there already.
    """
    if out.suffix != ".safetensors":
        raise InputError(
            f"--out is a file that ends in .safetensors here; got {out}: write "
            f"--out={out}.safetensors."
        )
    check_file(out, "--out")
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already; give another --out, or --overwrite.")
