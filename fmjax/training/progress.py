"""Where a training reports: a progress bar, ``metrics.jsonl`` and TensorBoard event files."""

import json
import sys
from pathlib import Path

import jax

from fmjax.files import AppendedFile, write_bytes
from fmjax.training.events import Events
from fmjax.training.folder import EVENTS, METRICS


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
    """

    def __init__(self, workdir: Path | None, start: int, steps: int):
        self._active = jax.process_index() == 0
        self._path = None if workdir is None else workdir / METRICS
        if not self._active:
            return
        from tqdm import tqdm

        if self._path is not None:
            _keep_until(self._path, start)
            self._file = AppendedFile(self._path)
            self._events = Events(workdir / EVENTS, start)
        self._bar = tqdm(
            total=steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,
            file=sys.stderr,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, steps: int) -> None:
        """Moves the bar on."""
        if self._active:
            self._bar.update(steps)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes scalars under a step.

        Raises:
            OSError: they cannot be written.
        """
        if not self._active:
            return
        if self._path is not None:
            self._to_files(step, values)
        self._to_bar(values)

    def _to_files(self, step: int, values: dict[str, float]) -> None:
        try:
            self._file.write(json.dumps({"step": step} | values).encode() + b"\n")
            self._events.write(step, values)
        except OSError as error:
            raise OSError(
                f"{error} The same command goes on from the newest checkpoint."
            ) from error

    def _to_bar(self, values: dict[str, float]) -> None:
        shown = {
            "loss": f"{values['loss']:.4f}" if "loss" in values else None,
            "ex/s": f"{values['examples_per_second']:.0f}"
            if "examples_per_second" in values
            else None,
            "MFU": f"{values['mfu']:.0%}" if "mfu" in values else None,
            "data wait": f"{values['data_wait']:.0%}" if "data_wait" in values else None,
        }
        shown = {name: value for name, value in shown.items() if value is not None}
        if shown:
            self._bar.set_postfix(shown, refresh=False)

    def say(self, text: str) -> None:
        """Prints a sentence without breaking the bar."""
        if self._active:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Flushes and closes everything."""
        if not self._active:
            return
        self._bar.close()
        if self._path is not None:
            self._file.close()
            self._events.close()
