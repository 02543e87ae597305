"""A trace of a few steps, for TensorBoard's profile page, XProf or Perfetto."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

_FIRST, _LAST = 6, 10  # the calls that are traced: the first ones are not like the others


@contextlib.contextmanager
def traced(
    step_fn: Callable, folder: Path | None, notify: Callable[[str], None]
) -> Iterator[Callable]:
    """A compiled step whose sixth to tenth call is traced; the trace ends with the context.

    Args:
        step_fn: the step; it is called in the same way as before.
        folder: where the trace goes; None traces nothing.
        notify: takes a sentence once the trace is written, or if there were too few calls.

    Yields:
        The step.
    """
    if folder is None:
        yield step_fn
        return
    calls = 0

    def stop(result: Any) -> None:
        jax.block_until_ready(result)
        jax.profiler.stop_trace()
        notify(f"traced a few steps: {folder}")

    def step(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == _FIRST:
            jax.block_until_ready(args)
            jax.profiler.start_trace(str(folder))
        result = step_fn(*args)
        if calls == _LAST:
            stop(result)
        return result

    try:
        yield step
    finally:
        if _FIRST <= calls < _LAST:
            stop(None)
        elif calls < _FIRST:
            notify(f"no trace was written: it begins with call {_FIRST}, and there were {calls}.")
