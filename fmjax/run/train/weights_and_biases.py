"""A run's log at Weights & Biases, beside its own files; the only module that imports wandb."""

import contextlib
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from fmjax.errors import InputError
from fmjax.first_process import say


def check_installed(project: str | None) -> None:
    """Checks that what is asked for can be had, before anything is built.

    Args:
        project: to which the log is to go; None for none.

    Raises:
        InputError: the package is not installed.
    """
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise InputError("--wandb needs the package of that name: pip install wandb.")


class WandbLog:
    """Where scalars and pictures of a run go; without a run of wandb's, nowhere.

    The first error of wandb's is said, and the training goes on without it.

    Args:
        run: what ``wandb.init`` gave, or None.
    """

    def __init__(self, run: Any = None):
        self._run = run

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs scalars under a step."""
        self._send(step, values)

    def picture(self, step: int, path: Path) -> None:
        """Logs a PNG under a step."""
        if self._run is not None:
            import wandb

            self._send(step, {"samples": wandb.Image(str(path))})

    def _send(self, step: int, values: dict[str, Any]) -> None:
        if self._run is None:
            return
        try:
            self._run.log({"step": step, **values})
        except Exception as error:  # whatever wandb raises, it costs no training
            say(f"wandb: {error}; the training goes on without it.")
            self._run = None


@contextlib.contextmanager
def logged(project: str | None, workdir: Path, config: dict, start: int) -> Iterator[WandbLog]:
    """The log of a run, on the first process.

    Args:
        project: the name of the project at wandb; None for a log that keeps nothing.
        workdir: of the run, whose name it gets.
        config: every key.
        start: the step it goes on from, as its log does; 0 for a log in the place of an older one.

    Raises:
        InputError: wandb does not begin, such as without a key to log in by.
    """
    if project is None or jax.process_index() != 0:
        yield WandbLog()
        return
    import wandb

    try:
        run = wandb.init(
            project=project,
            name=workdir.name,
            id=hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16],
            config=config,
            resume="allow" if start else None,
        )
        run.define_metric("*", step_metric="step")
    except Exception as error:  # wandb's own errors, and those of the network below it
        raise InputError(
            f"wandb does not begin: {error} Log in by `wandb login`, keep the log here by "
            "WANDB_MODE=offline, or leave --wandb out."
        ) from error
    with run:
        yield WandbLog(run)
