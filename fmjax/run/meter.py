"""Losses read late: the device never waits for the host to look at them."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator

import jax

from fmjax.run.log import Log

_AHEAD = 2  # steps the host may run ahead of the device: enough to hide dispatch, few to hold


class Meter:
    """Collects the metrics of every step, checks all of them, and logs their means.

    Args:
        batch_size: examples per step.
        learning_rate: the schedule, by step.
        log: where the means go.
    """

    def __init__(self, batch_size: int, learning_rate: Callable[[int], float], log: Log):
        self._batch_size, self._learning_rate, self._log = batch_size, learning_rate, log
        self._pending = deque()
        self._checked = []
        self._since = None  # (time, step, seconds waited) of the last report

    def add(self, step: int, metrics: dict[str, jax.Array], waited: float) -> None:
        """Takes the metrics of a step, still being computed; waits for those two steps back.

        Args:
            step: the step just dispatched.
            metrics: its scalars.
            waited: seconds spent waiting for data since the run began.
        """
        self._pending.append((step, metrics))
        if len(self._pending) > _AHEAD:
            jax.block_until_ready(self._pending[-1 - _AHEAD][1])
        self._step, self._waiting = step, waited
        if self._since is None:  # the first step is compilation; speed is counted from its end
            self.drain()
            self._since = (time.perf_counter(), step, waited)

    def drain(self, leave: int = 0) -> None:
        """Reads and checks all steps but the last few.

        Raises:
            FloatingPointError: a loss or a gradient norm is NaN or infinite.
        """
        taken = [self._pending.popleft() for _ in range(len(self._pending) - leave)]
        for step, values in jax.device_get(taken):
            for name, value in values.items():
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the {name} is {value} at step {step}. Nothing was saved after it, so the "
                        "last checkpoint is good. Lower optimizer.learning_rate or "
                        "optimizer.clip_norm, or look at the data."
                    )
            self._checked.append(values)

    def report(self) -> None:
        """Logs the means since the last report."""
        self.drain(leave=_AHEAD)
        if not self._checked:
            return
        now, (then, step, waited) = time.perf_counter(), self._since
        elapsed = max(now - then, 1e-9)
        means = {
            name: sum(float(values[name]) for values in self._checked) / len(self._checked)
            for name in self._checked[0]
        }
        # On the host's own device: a kernel on the accelerator would queue behind the steps.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            learning_rate = float(self._learning_rate(self._step - 1))
        speed = {
            "learning_rate": learning_rate,
            "examples_per_second": (self._step - step) * self._batch_size / elapsed,
            "data_wait": min((self._waiting - waited) / elapsed, 1.0),
        }
        self._log.metrics(self._step, means | speed)
        self._checked, self._since = [], (now, self._step, self._waiting)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out of the speed: it goes into something else than steps."""
        began = time.perf_counter()
        yield
        then, step, waited = self._since
        self._since = (then + time.perf_counter() - began, step, waited)
