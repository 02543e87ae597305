"""Losses read late: the device never waits for the host to look at them."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator

import jax

from fmjax.run.log import Log

_AHEAD = 2  # steps the host may run ahead of the device: enough to hide dispatch, few to hold


def not_finite(name: str, value: float, step: int) -> FloatingPointError:
    """The error that stops a run whose numbers have gone."""
    return FloatingPointError(
        f"the {name} is {value} at step {step}. Nothing was saved since, so the last checkpoint is "
        "good. Look at the data, or start anew with a lower optimizer.learning_rate or "
        "optimizer.clip_norm in another --workdir."
    )


class Meter:
    """Reads the metrics of every step two steps late, checks all of them, and logs their means.

    Args:
        batch_size: examples per step.
        log: where the means go.
        log_every: over how many steps.
    """

    def __init__(self, batch_size: int, log: Log, log_every: int):
        self._batch_size, self._log, self._log_every = batch_size, log, log_every
        self._pending, self._read = deque(), []
        self._since = None  # (time, step, seconds waited for data) of the last line

    def add(self, step: int, metrics: dict[str, jax.Array], waited: float) -> None:
        """Takes the metrics of a step, still being computed, and reads those of two steps before.

        Args:
            step: the step just dispatched.
            metrics: its scalars.
            waited: seconds spent waiting for data since the run began.
        """
        self._pending.append((step, metrics, waited))
        # The first step is compilation: speed is counted from its end.
        self._drain(leave=_AHEAD if self._since else 0)

    def drain(self) -> None:
        """Waits for all steps taken, and reads and checks them.

        Raises:
            FloatingPointError: a loss or a gradient norm is NaN or infinite.
        """
        self._drain(leave=0)

    def _drain(self, leave: int) -> None:
        while len(self._pending) > leave:
            step, metrics, waited = self._pending.popleft()
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise not_finite(name, value, step)
            self._read.append(values)
            self._since = self._since or (time.perf_counter(), step, waited)
            if step % self._log_every == 0:
                self._report(step, waited)

    def _report(self, step: int, waited: float) -> None:
        """Logs the means since the last line."""
        now, (then, first, waited_then) = time.perf_counter(), self._since
        elapsed = max(now - then, 1e-9)
        read, self._read = self._read, []
        means = {name: sum(values[name] for values in read) / len(read) for name in read[0]}
        speed = {
            "examples_per_second": (step - first) * self._batch_size / elapsed,
            "data_wait": min((waited - waited_then) / elapsed, 1.0),
        }
        self._log.metrics(step, means | speed)
        self._since = (now, step, waited)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out of the speed: it goes into something else than steps."""
        began = time.perf_counter()
        yield
        then, step, waited = self._since
        self._since = (then + time.perf_counter() - began, step, waited)
