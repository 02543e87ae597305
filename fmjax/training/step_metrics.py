"""The metrics of every step, read late so the device never waits; a NaN stops the training."""

import contextlib
import math
import resource
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from fmjax.roofline.chips import chip_of, mfu
from fmjax.training.progress import Progress

_AHEAD = 2  # calls the host may run ahead of the device: enough to hide dispatch, few to hold
_SKIPPED = "skipped"
_TIMED = 3.0  # seconds of steps from which the time of the others is estimated


def not_finite(name: str, value: float, step: int) -> FloatingPointError:
    """The error that stops a training with a NaN or an infinity."""
    return FloatingPointError(
        f"the {name} is {value} at step {step}. Nothing was saved since, so the last checkpoint is "
        "good. Look at the data, or start anew in another workdir with a lower learning rate "
        "(optimizer.learning_rate) or gradients clipped at a lower norm (optimizer.clip_norm)."
    )


def peak_memory() -> dict[str, float]:
    """The most memory there has been in use, in GB: of a device, or of this process on a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return {"device_memory_gb": stats["peak_bytes_in_use"] / 1e9}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"host_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


class StepMetrics:
    """Reads the metrics of every step two calls late, checks all of them, and logs their means.

    Args:
        batch_size: examples in a step.
        log_every: over how many steps a mean is taken.
        progress: where the means go.
        flops: operations of training on one example; None logs no utilisation.
        compile_seconds: told in the first line.
    """

    def __init__(
        self,
        batch_size: int,
        log_every: int,
        progress: Progress,
        flops: int | None = None,
        compile_seconds: float = 0.0,
    ):
        self._batch_size, self._log_every, self._progress = batch_size, log_every, progress
        self._once = {"compile_seconds": compile_seconds}
        self._flops, self._chip = flops, chip_of(jax.devices()[0])
        self._pending: deque[tuple[int, dict[str, Any], float]] = deque()
        self._read: list[dict[str, float]] = []
        # (time, step, seconds waited for data) of the last line
        self._since: tuple[float, int, float] | None = None
        # (time, step) of the first call, until the rest is estimated
        self._first: tuple[float, int] | None = None

    def add(self, step: int, metrics: dict[str, Float[Any, "..."]], waited: float) -> None:
        """Takes the metrics of a call, still being computed, and reads those of two calls before.

        Args:
            step: the last step just dispatched.
            metrics: its scalars; of several steps in one call, an array of each.
            waited: seconds spent waiting for data since training began.
        """
        self._pending.append((step, metrics, waited))
        # The first call may still compile, and warms up: speed is counted from its end.
        timed = self._first is not None and time.perf_counter() - self._first[0] >= _TIMED
        self._drain(leave=_AHEAD if self._since and not timed else 0)
        if timed:
            self._estimate(step)

    def drain(self) -> None:
        """Waits for all steps taken, and reads and checks them.

        Raises:
            FloatingPointError: a loss or a gradient norm is NaN or infinite.
        """
        self._drain(leave=0)

    def _drain(self, leave: int) -> None:
        while len(self._pending) > leave:
            step, metrics, waited = self._pending.popleft()
            values = {name: np.atleast_1d(x) for name, x in jax.device_get(metrics).items()}
            steps = len(values["loss"])
            for k in range(steps):
                self._check(step - steps + 1 + k, {name: float(x[k]) for name, x in values.items()})
            if self._since is None:
                now = time.perf_counter()
                self._since, self._first = (now, step, waited), (now, step)
            if step % self._log_every == 0:
                self._report(step, waited)

    def _estimate(self, step: int) -> None:
        """Says once how long the other steps will take, from those that are done."""
        assert self._first is not None, "the first step has been read, and none was estimated"
        then, first = self._first
        seconds = (time.perf_counter() - then) / (step - first)
        self._progress.estimate(step, seconds, step - first)
        self._first = None

    def _check(self, step: int, values: dict[str, float]) -> None:
        """Keeps the metrics of one step, which are finite unless it was left out."""
        if not values.get(_SKIPPED):
            for name, value in values.items():
                if not math.isfinite(value):
                    raise not_finite(name, value, step)
        self._read.append(values)

    def _means(self, step: int) -> dict[str, float]:
        """The means of what was read, but for the steps left out, which are counted."""
        read, self._read = self._read, []
        taken = [values for values in read if not values.get(_SKIPPED)]
        if 2 * len(taken) < len(read):
            raise FloatingPointError(
                f"{len(read) - len(taken)} of the {len(read)} steps up to {step} were left out for "
                f"their gradient's norm, {read[-1]['grad_norm']:.3g} in the last: these are no "
                "outliers. Start anew with a lower learning rate in another workdir, or raise the "
                "factor of skip_outliers (optimizer.skip_above)."
            )
        means = {name: sum(values[name] for values in taken) / len(taken) for name in taken[0]}
        if _SKIPPED in means:
            means[_SKIPPED] = len(read) - len(taken)
        return means

    def _report(self, step: int, waited: float) -> None:
        """Logs the means since the last line."""
        assert self._since is not None, "the first step has been read"
        now, (then, first, waited_then) = time.perf_counter(), self._since
        elapsed = max(now - then, 1e-9)
        examples = (step - first) * self._batch_size
        speed = {
            "examples_per_second": examples / elapsed,
            "data_wait": min((waited - waited_then) / elapsed, 1.0),
        }
        done = None if self._flops is None else self._flops * examples
        used = mfu(done, elapsed, jax.device_count(), self._chip)
        if used is not None:
            speed["mfu"] = used
        self._progress.write(step, self._means(step) | speed | peak_memory() | self._once)
        self._once = {}
        self._since = (now, step, waited)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out of the speed: it goes into something else than steps."""
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        assert self._since is not None, "the first step has been read"
        then, step, waited = self._since
        self._since = (then + took, step, waited)
        if self._first is not None:
            self._first = (self._first[0] + took, self._first[1])
