"""A trace of a few steps, for TensorBoard's profile page, XProf or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_FIRST, _LAST = 6, 10  # the calls that are traced: the first ones are not like the others


def traced(step_fn: Callable, folder: Path, notify: Callable[[str], None]) -> Callable:
    """A compiled step that traces its sixth to tenth call.

    Args:
        step_fn: the step; it is called in the same way as before.
        folder: where the trace goes.
        notify: takes a sentence once the trace is written.
    """
    calls = 0

    def step(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == _FIRST:
            jax.block_until_ready(args)
            jax.profiler.start_trace(str(folder))
        result = step_fn(*args)
        if calls == _LAST:
            jax.block_until_ready(result)
            jax.profiler.stop_trace()
            notify(f"traced a few steps: {folder}")
        return result

    return step
