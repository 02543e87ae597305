"""A run's parameters out, under the names of a published layout, for other programs to read."""

from pathlib import Path
from typing import Any

import jax

from fmjax.errors import InputError
from fmjax.factory import Experiment
from fmjax.factory.training import abstract_params
from fmjax.files import check_space
from fmjax.first_process import on_first_process
from fmjax.models import pretrained
from fmjax.run.restore import load_params, open_run
from fmjax.run.weights.adapters import check_new_file
from fmjax.run.weights.export import check_dtype
from fmjax.run.weights.published import is_meant_as, meaning_of
from fmjax.storage.safetensors import DTYPES
from fmjax.training.mesh import MeshSizes, make_mesh


def export_in_layout(
    workdir: Path,
    out: Path,
    layout: str,
    *,
    checkpoint: str = "latest",
    ema: bool = True,
    dtype: str = "float32",
    overwrite: bool = False,
) -> str:
    """Writes a run's parameters under the names of a published layout.

    What a run began with and did not train comes out bit for bit as it was in the file.

    Args:
        workdir: a trained run, or a folder of exported parameters.
        out: the ``.safetensors`` file to write.
        layout: a name of `fmjax.models.pretrained.LAYOUTS`.
        checkpoint: ``"latest"``, ``"best"``, or a step.
        ema: the averaged parameters.
        dtype: a name of `fmjax.storage.safetensors.DTYPES`.
        overwrite: replaces the file if it is there already.

    Returns:
        What was written, in a sentence.

    Raises:
        InputError: something does not fit, in one sentence, before anything is read: there is no
            such layout, or it does not hold such a network, or means something else by it.
    """
    check_dtype(dtype)
    experiment = open_run(workdir)
    _check_layout(workdir, layout, experiment)
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(experiment)))
    size = count * DTYPES[dtype].itemsize
    on_first_process(lambda: _check_out(out, size, overwrite))
    mesh = make_mesh(sizes=MeshSizes(data=1, fsdp=-1))  # each device holds a part of a large model
    step, params = load_params(workdir, experiment, checkpoint, ema, mesh)
    how: dict[str, Any] = {"shape": experiment.spec.shape, "dtype": dtype}
    pretrained.save(out, params, layout, experiment.model, **how)
    return f"{out}: step {step} as {pretrained.LAYOUTS[layout]}, {size / 1e6:.1f} MB"


def _check_layout(workdir: Path, layout: str, experiment: Experiment) -> None:
    """Checks that whoever reads the file finds in it the flow that was trained."""
    network = pretrained.outline_of(layout, experiment.model, experiment.spec.shape)
    if not is_meant_as(network, experiment):
        raise InputError(
            f"{workdir} {meaning_of(experiment)}, and --layout={layout}, "
            f"{pretrained.LAYOUTS[layout]}, stands for {network.prediction} on {network.path}: its "
            "reader would take one for the other; give another --layout."
        )


def _check_out(out: Path, size: int, overwrite: bool) -> None:
    check_new_file(out, overwrite)
    check_space(out.parent, size, "the parameters", "free some space, or give another --out")
