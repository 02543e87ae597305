"""Where a training reports: a bar or lines, ``metrics.jsonl`` and TensorBoard event files."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax

from fmjax.files import AppendedFile, write_bytes
from fmjax.progress_bar import is_plain, progress_bar
from fmjax.training.events import Events
from fmjax.training.folder import EVENTS, METRICS

Log = Callable[[int, dict[str, float]], object]
"""``log(step, values)``, which takes the scalars of a step by their names."""


def _keep_until(path: Path, step: int) -> None:
    """Drops the lines after a step, which a resumed run writes again, and all after a damaged one.

    Raises:
        OSError: the file cannot be written; it is as it was then.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = []
    for line in lines:
        found = _step_of(line)
        if found is None:
            break
        if found <= step:
            kept.append(line)
    write_bytes(path, b"".join(kept))


def _step_of(line: bytes) -> int | None:
    """The step of a line of metrics, None for one that was cut short or damaged."""
    try:
        found = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if type(found) is int else None


class Progress:
    """Writes metrics to every place that shows them, on the first process; a context.

    Args:
        workdir: the folder of the files; None for the bar alone.
        start: the step the training starts from.
        steps: the step it ends at.
        log: a place of the caller's own, ``log(step, values)``, or None.
    """

    def __init__(self, workdir: Path | None, start: int, steps: int, log: Log | None = None):
        self._active = jax.process_index() == 0
        self._log = log
        self._path = None if workdir is None else workdir / METRICS
        self._steps = steps
        if not self._active:
            return
        if workdir is not None and self._path is not None:
            _keep_until(self._path, start)
            self._file = AppendedFile(self._path)
            self._events = Events(workdir / EVENTS, start)
        self._shown = _Lines(start, steps) if is_plain(sys.stderr) else _Bar(start, steps)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, steps: int) -> None:
        """Moves the bar on."""
        if self._active:
            self._shown.advance(steps)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes scalars under a step.

        Raises:
            OSError: they cannot be written.
        """
        if not self._active:
            return
        if self._path is not None:
            self._to_files(step, values)
        if self._log is not None:
            self._log(step, dict(values))
        if shown := _written(values):
            self._shown.show(step, shown)

    def _to_files(self, step: int, values: dict[str, float]) -> None:
        try:
            self._file.write(json.dumps({"step": step} | values).encode() + b"\n")
            self._events.write(step, values)
        except OSError as error:
            raise OSError(
                f"{error} The same command goes on from the newest checkpoint."
            ) from error

    def estimate(self, step: int, seconds: float, timed: int) -> None:
        """Says how long the steps that are left will take, if they are more than were timed.

        Args:
            step: the last one that is done.
            seconds: that a step took.
            timed: over how many steps.
        """
        left = self._steps - step
        if left > timed:
            self.say(
                f"about {duration(seconds * left)} for the {left} steps that are left, estimated "
                f"from the first {timed}; what is done beside steps comes on top"
            )

    def say(self, text: str) -> None:
        """Prints a sentence without breaking the bar."""
        if self._active:
            self._shown.say(text)

    def close(self) -> None:
        """Flushes and closes everything."""
        if not self._active:
            return
        self._shown.close()
        if self._path is not None:
            self._file.close()
            self._events.close()


def _written(values: dict[str, float]) -> dict[str, str]:
    """The metrics that are shown, by the names under which they are."""
    formats = {
        "loss": ("loss", "{:.4f}"),
        "val_loss": ("held-out loss", "{:.4f}"),
        "examples_per_second": ("ex/s", "{:.0f}"),
        "mfu": ("MFU", "{:.0%}"),
        "data_wait": ("data wait", "{:.0%}"),
    }
    return {
        label: form.format(values[name])
        for name, (label, form) in formats.items()
        if name in values
    }


class _Bar:
    """A progress bar, for a terminal or a notebook."""

    def __init__(self, start: int, steps: int):
        self._bar = progress_bar(steps, "steps", start=start)

    def advance(self, steps: int) -> None:
        self._bar.update(steps)

    def show(self, step: int, shown: dict[str, str]) -> None:
        self._bar.set_postfix(shown, refresh=False)

    def say(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """A line for each report, with the time that is left, for what is not a terminal."""

    def __init__(self, start: int, steps: int):
        self._step, self._steps = start, steps
        # (time, step) after the first call, which may compile
        self._since: tuple[float, int] | None = None

    def advance(self, steps: int) -> None:
        self._step += steps
        self._since = self._since or (time.perf_counter(), self._step)

    def show(self, step: int, shown: dict[str, str]) -> None:
        figures = ", ".join(f"{name} {value}" for name, value in shown.items())
        self.say(f"step {step}/{self._steps}: {figures}{self._left()}")

    def _left(self) -> str:
        if self._since is None or not self._since[1] < self._step < self._steps:
            return ""
        then, first = self._since
        pace = (time.perf_counter() - then) / (self._step - first)
        return f"; {duration(pace * (self._steps - self._step))} left"

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


def duration(seconds: float) -> str:
    """A time for a person: seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
