"""Writes a run's parameters: ``python -m fmjax weights --workdir=runs/digits --out=digits_ema``.

The folder has ``run.json`` and ``ema.safetensors``, and serves wherever a run's folder does: as
``--workdir`` of sample.py, the likelihood and the reflow, and as ``--init_from`` of train.py.

Of a run of LoRA the parameters are merged, and ``--adapters --out=adapters.safetensors`` writes the
adapters alone.

With ``--layout=sit --out=sit.safetensors`` it is one file under the names of a published layout,
which other programs read; `fmjax.models.pretrained` has the layouts.
"""

from pathlib import Path
from typing import Any

from absl import flags

from fmjax.errors import InputError
from fmjax.first_process import say
from fmjax.run.distributed import launch
from fmjax.run.restore import Weights, check_weights
from fmjax.run.weights.adapters import export_adapters
from fmjax.run.weights.export import check_dtype, export_weights
from fmjax.run.weights.in_layout import export_in_layout
from fmjax.storage.safetensors import DTYPES

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
OUT = flags.DEFINE_string("out", None, "Folder to write to; with --layout the file.")
LAYOUT = flags.DEFINE_string(
    "layout", None, "Write one file under the names of this published layout, such as sit."
)
ADAPTERS = flags.DEFINE_bool(
    "adapters", False, "Of a run that trained LoRA adapters, write these alone, as a file."
)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "The number of its step, best, or latest.")
EMA = flags.DEFINE_bool("ema", True, "Write the EMA of the parameters.")
DTYPE = flags.DEFINE_string("dtype", "float32", f"Number format: one of {', '.join(DTYPES)}.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what is there already.")

HELP = {
    "What to write": (WORKDIR, CHECKPOINT, EMA, DTYPE, LAYOUT, ADAPTERS),
    "Where to write": (OUT, OVERWRITE),
    **launch.HELP,
}


def main() -> int:
    """Reads the flags and writes."""
    if WORKDIR.value is None or OUT.value is None:
        raise InputError("say whose parameters, and where to: --workdir=runs/digits --out=digits")
    check_weights(Weights(CHECKPOINT.value, EMA.value))
    launch.join_processes()
    check_dtype(DTYPE.value)
    how: dict[str, Any] = {"checkpoint": CHECKPOINT.value, "ema": EMA.value}
    how["overwrite"] = OVERWRITE.value
    workdir, out = Path(WORKDIR.value), Path(OUT.value)
    if ADAPTERS.value:
        if LAYOUT.value is not None or DTYPE.value != "float32":
            raise InputError(
                "adapters have a form of their own, in float32: leave --layout and --dtype out, or "
                "--adapters for the merged parameters."
            )
        say(export_adapters(workdir, out, **how))
        return 0
    how |= {"dtype": DTYPE.value}
    if LAYOUT.value is None:
        say(export_weights(workdir, out, **how))
    else:
        say(export_in_layout(workdir, out, LAYOUT.value, **how))
    return 0
