"""Checkpoints of a run; the only module that imports orbax.

The newest few are kept, and the best by validation loss; writing is asynchronous. Each carries a
fingerprint of its state, so that a damaged one is noticed, set aside, and the one before it used.
"""

import contextlib
import gc
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from fmjax.errors import InputError
from fmjax.files import first_line
from fmjax.json_files import NUMBER, OBJECT, TEXT, WHOLE, Kind, read_json
from fmjax.storage.fingerprint import fingerprint

log = logging.getLogger(__name__)
_MEANING = "architecture/"
_HANDLERS = Kind("an object {...} or a text", lambda x: OBJECT.accepts(x) or TEXT.accepts(x))
_METADATA = {
    "item_handlers": _HANDLERS.or_null(),
    "metrics": OBJECT.or_null(),
    "performance_metrics": OBJECT.or_null(),
    "init_timestamp_nsecs": WHOLE.or_null(),
    "commit_timestamp_nsecs": WHOLE.or_null(),
    "custom_metadata": OBJECT.or_null(),
}
"""What orbax writes of a checkpoint, and takes nothing else for."""


def _is_metadata(found: Any) -> bool:
    values = {} if found is None else found  # null is as good as none to orbax
    return isinstance(values, dict) and all(
        kind.accepts(values.get(name)) for name, kind in _METADATA.items()
    )


@contextlib.contextmanager
def _dropping_unfinished_reads() -> Iterator[None]:
    """Collects the reads that were under way when one failed.

    Each of them raises an error when it is closed, of which Python would write the traceback
    whenever it comes to collect it, or a warning where it had not begun.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook


def _reason(error: Exception) -> str:
    """The first sentence of what orbax or the file system says."""
    return first_line(error).split(". See")[0][:160]


class Checkpoints:
    """The checkpoints of one run: dicts of pytrees of global arrays, by step.

    Args:
        directory: where they live; made if missing.
        keep: how many of the newest are kept, beside the best one.
        read_only: leaves every file as it is, so that sampling can look on while training writes.
        notify: takes a sentence about each damaged checkpoint that is passed over.
        architecture: what the parameters mean beyond their shapes, as texts by name; goes into each
            checkpoint, and one with another is not read.

    Raises:
        InputError: read-only, and a checkpoint cannot even be listed.
    """

    def __init__(
        self,
        directory: Path | str,
        keep: int = 3,
        read_only: bool = False,
        notify: Callable[[str], None] = log.warning,
        architecture: Mapping[str, str] | None = None,
    ):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._notify = notify
        self._read_only = read_only
        self._architecture = dict(architecture or {})
        self.directory = Path(directory).absolute()
        self._set_aside_unlistable()
        self._manager = ocp.CheckpointManager(
            self.directory, options=self._options(keep), item_names=("state", "check")
        )

    def _options(self, keep: int):
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        def val_loss(metrics: dict) -> float:
            return metrics["val_loss"]

        best = BestN(get_metric_fn=val_loss, reverse=True, n=1)  # sorted downwards: last is lowest
        return self._ocp.CheckpointManagerOptions(
            best_fn=val_loss,
            best_mode="min",
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
            cleanup_tmp_directories=not self._read_only,
            read_only=self._read_only,
            create=not self._read_only,
            # Where orbax makes the folder behind, and fails, its threads wait 300 s for it.
            async_options=self._ocp.AsyncOptions(create_directories_asynchronously=False),
        )

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of lowest validation loss, None where there is no checkpoint."""
        return self._manager.best_step()

    def save(self, step: int, state: dict, val_loss: float) -> None:
        """Writes a state; returns once its buffers may be reused, and writes on behind.

        Raises:
            OSError: this or the checkpoint before it could not be written.
        """
        args = self._ocp.args
        check: dict[str, int | str] = {name: int(fingerprint(part)) for name, part in state.items()}
        check |= {f"{_MEANING}{name}": value for name, value in self._architecture.items()}
        with self._writing():
            self._manager.save(
                step,
                args=args.Composite(state=args.PyTreeSave(state), check=args.JsonSave(check)),
                metrics={"val_loss": float(val_loss)},
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns whatever a failed write raises, here or in a thread, into one OSError."""
        try:
            yield
        except Exception as error:
            raise OSError(
                f"a checkpoint could not be written to {self.directory}: {_reason(error)}. "
                "Those before it are whole."
            ) from error

    def restore(self, step: int, target: dict) -> dict:
        """Reads one checkpoint into the shapes, dtypes and shardings of the target.

        Args:
            step: which one.
            target: `jax.ShapeDtypeStruct` with shardings for the parts wanted; other parts of the
                checkpoint are not read.

        Returns:
            The parts asked for.

        Raises:
            InputError: there is none at this step, or it cannot be read or is damaged.
        """
        if step not in self._manager.all_steps():
            raise InputError(
                f"no checkpoint of step {step} in {self.directory}; there are {self.steps()}."
            )
        args, utils = self._ocp.args, self._ocp.checkpoint_utils
        restore_args = utils.construct_restore_args(target)
        state = args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
        reason = None
        with contextlib.ExitStack() as after:
            try:
                restored = self._manager.restore(
                    step, args=args.Composite(state=state, check=args.JsonRestore())
                )
            except MemoryError:
                raise
            except Exception as error:  # whatever the damaged bytes make a reader raise
                reason = _reason(error)
                after.enter_context(_dropping_unfinished_reads())
        if reason is not None:  # said here, where nothing holds the error and its reads any more
            raise InputError(f"the checkpoint of step {step} cannot be read: {reason}.")
        check = restored["check"]
        if not isinstance(check, dict):
            raise InputError(f"the checkpoint of step {step} is damaged: it has no fingerprints.")
        self._check_architecture(step, check)
        for name, part in restored["state"].items():
            if not all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(part)):
                raise InputError(
                    f"the checkpoint of step {step} is damaged: it lacks arrays of {name}."
                )
            if int(fingerprint(part)) != check.get(name):  # its name may be damaged
                raise InputError(
                    f"the checkpoint of step {step} is damaged: the fingerprint of {name} differs."
                )
        return restored["state"]

    def _check_architecture(self, step: int, check: Mapping[str, Any]) -> None:
        for name, value in self._architecture.items():
            stored = check.get(f"{_MEANING}{name}", value)  # earlier versions wrote none
            if stored != value:
                raise InputError(
                    f"the checkpoint of step {step} in {self.directory} is of another network: "
                    f"{name} is {stored} there, and {value} in the run's record."
                )

    def restore_latest(self, target: dict) -> tuple[int, dict] | None:
        """Reads the newest checkpoint that is whole; damaged ones are moved to ``corrupt/``.

        Returns:
            (step, state), or None where there is no checkpoint at all.

        Raises:
            InputError: there are checkpoints but none can be read.
        """
        steps, damaged = self.steps(), []
        for step in reversed(steps):
            try:
                state = self.restore(step, target)
            except InputError as error:
                self._notify(f"{error} Taking the one before it.")
                damaged.append(step)
                continue
            if damaged:  # only now: were none readable, nothing may be lost
                self._set_aside(damaged)
                self._manager.reload()
            return step, state
        if steps:
            raise InputError(
                f"none of the checkpoints {steps} in {self.directory} can be read. "
                "To start anew give another --workdir."
            )
        return None

    def _set_aside_unlistable(self) -> None:
        """Moves away checkpoints whose metrics are unreadable: orbax cannot list past them."""
        bad = []
        for path in self.directory.glob("*/metrics/metrics"):
            name = path.parent.parent.name
            if not name.isdecimal():  # being written, or cut short by a kill: orbax cleans those
                continue
            try:
                read_json(path, {"val_loss": NUMBER})
            except FileNotFoundError:  # deleted, or moved by another process, since it was listed
                continue
            except InputError:
                bad.append(int(name))
        bad += [step for step in self._of_odd_metadata() if step not in bad]
        if bad and self._read_only:
            raise InputError(
                f"the checkpoints {bad} in {self.directory} are damaged and hide the others; "
                "move these folders away."
            )
        for step in bad:
            self._notify(f"the checkpoint of step {step} is damaged: orbax cannot list it.")
        self._set_aside(bad)

    def _of_odd_metadata(self) -> list[int]:
        """The checkpoints whose metadata orbax fails at: other values, or too many brackets."""
        steps = []
        for path in self.directory.glob("*/_CHECKPOINT_METADATA"):
            try:
                found = json.loads(path.read_bytes())
            except RecursionError:
                steps.append(path.parent.name)
            except (OSError, ValueError):  # orbax passes these over
                continue
            else:
                if not _is_metadata(found):
                    steps.append(path.parent.name)
        return [int(step) for step in steps if step.isdecimal()]

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints out of the way, so that their steps can be written again."""
        if self._read_only:
            return
        for step in steps if jax.process_index() == 0 else ():
            folder = self.directory.parent / "corrupt"
            folder.mkdir(exist_ok=True)
            earlier = len(list(folder.glob(f"{step}.*")))  # the same step may be damaged twice
            aside = folder / f"{step}.{earlier}"
            (self.directory / str(step)).rename(aside)
        multihost_utils.sync_global_devices("damaged checkpoints set aside")

    def wait(self) -> None:
        """Returns when everything saved is on disk.

        Raises:
            OSError: a checkpoint could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Frees the threads; call `wait` first to learn of a failed write.

        Several processes finish a write together. Where an error is on its way up in one, the
        others may never come, so the process is left to end with its write unfinished.
        """
        if sys.exc_info()[0] is not None and jax.process_count() > 1:
            return
        with contextlib.suppress(Exception):
            self._manager.close()
