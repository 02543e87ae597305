"""The folder of a training: what is in it, and whether a call may start there or go on."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax

from fmjax.errors import InputError
from fmjax.files import check_space, check_writable, write_json
from fmjax.first_process import on_first_process, say
from fmjax.folders import check_no_links, lock_folder
from fmjax.json_files import differences
from fmjax.names import named_leaves
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.settings import Settings
from fmjax.training.state import TrainState

RECORD = "fit.json"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
EVENTS = "tensorboard"
PROFILE = "profile"
_WRITTEN = ("fit[.]json", CHECKPOINTS, "metrics[.]jsonl", EVENTS, PROFILE, "corrupt")


class Folder(NamedTuple):
    """A folder that is this process's own.

    Attributes:
        path: where it is.
        checkpoints: in it.
    """

    path: Path
    checkpoints: Checkpoints


def has_checkpoints(workdir: Path) -> bool:
    """Whether a checkpoint has been written here, readable or not."""
    return any(path.name.isdecimal() for path in (workdir / CHECKPOINTS).glob("*"))


def record_of(settings: Settings, params: Any, frozen: Sequence[str] = ()) -> dict[str, Any]:
    """What decides the numbers of a training, for its folder to remember.

    Args:
        settings: of the training.
        params: arrays, or their shapes.
        frozen: patterns of the parameters that are not trained.
    """
    decisive = ("batch_size", "seed", "ema", "accumulate")
    shapes = {
        f"params/{name}": f"{x.dtype}{list(x.shape)}"
        for name, x in named_leaves(params, "array").items()
    }
    names = {"frozen": sorted(frozen)} if frozen else {}
    return {name: getattr(settings, name) for name in decisive} | names | shapes


@contextlib.contextmanager
def opened(
    workdir: Path | str | Folder | None, record: dict[str, Any], state: TrainState, keep: int
) -> Iterator[Folder | None]:
    """Makes a folder this process's own for as long as the context lasts.

    Args:
        workdir: the folder, made if missing; None for no folder; one that is this process's own
            already is left to whoever made it so.
        record: from `record_of`.
        state: one checkpoint, or the shapes of it.
        keep: how many checkpoints stay.

    Raises:
        InputError: the folder cannot be written, is too full, is in use, or holds another training.
    """
    if workdir is None or isinstance(workdir, Folder):
        yield workdir
        return
    path = Path(workdir)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    # The newest `keep`, the best one, and the one being written before an old one goes.
    lock = on_first_process(lambda: _claim(path, record, size * (keep + 2)))
    try:
        checkpoints = Checkpoints(path / CHECKPOINTS, keep, notify=say)
        try:
            yield Folder(path, checkpoints)
        finally:
            checkpoints.close()
    finally:
        if lock is not None:
            lock.close()


def _claim(path: Path, record: dict[str, Any], needed: int) -> IO | None:
    check_writable(path, "workdir")
    lock = lock_folder(path, "workdir")
    try:
        check_no_links(path, _WRITTEN, "workdir")
        _check_content(path, record)
        check_space(path, needed, "the checkpoints", "free some space, or give another workdir")
        write_json(path / RECORD, record)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    return lock


def _check_content(path: Path, record: dict[str, Any]) -> None:
    """Checks that the folder holds the same training or none."""
    if not has_checkpoints(path):
        return
    if not (path / RECORD).exists():
        raise InputError(
            f"{path} holds checkpoints that fit did not write: {RECORD} is missing. Give another "
            "workdir."
        )
    try:
        changed = differences(path / RECORD, record)
    except ValueError as error:
        raise InputError(
            f"{path / RECORD} cannot be read ({error}); give another workdir."
        ) from error
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"{path} holds another training, with {', '.join(changed[:3])}{more}. Ask for the same "
            "again, or give another workdir."
        )
