"""What a resumed run may change: how long and how often, never what it computes."""

from pathlib import Path

from flax.traverse_util import flatten_dict

from fmjax.config import ConfigDict
from fmjax.errors import InputError, changed_keys

# More steps do stretch the cosine of the learning rate, which goes on from where that puts it.
_MAY_CHANGE = (
    "train.steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.val_every",
    "train.sample_every",
    "train.keep",
    "train.steps_per_call",
    "mesh",
    "model.attention",
    "model.scan",
    "model.remat",
    "data.dir",
    "data.threads",
    "sample",
    "eval",
)


def check_resumable(stored: ConfigDict, asked: ConfigDict, workdir: Path) -> None:
    """Checks that a run may go on under another configuration.

    Raises:
        InputError: a key that decides what the run computes differs.
    """
    if changed := changed_keys(_decisive(stored), _decisive(asked)):
        raise InputError(
            f"{workdir} holds another run, with {', '.join(changed)}. "
            "Give another --workdir, or --overwrite to delete that run."
        )


def _decisive(config: ConfigDict) -> dict[str, object]:
    """The dotted keys that decide what a run computes, with their values."""
    flat = flatten_dict(config.to_dict(), sep=".")
    return {key: value for key, value in sorted(flat.items()) if not key.startswith(_MAY_CHANGE)}
