"""A trace of a few steps, for TensorBoard's profile page, XProf or Perfetto."""

from pathlib import Path
from typing import Any

import jax

_SKIP, _CALLS = 5, 5  # calls before the trace, for the first ones are not like the others


class Profiler:
    """Traces some calls of the compiled step, once, a few calls after the first.

    Args:
        folder: where the trace goes; None traces nothing.
    """

    def __init__(self, folder: Path | None):
        self._folder, self._calls, self._tracing = folder, 0, False

    def called(self, result: Any) -> bool:
        """Counts a call of the step, and begins or ends the trace.

        Args:
            result: what the call gave: the trace ends when it has been computed.

        Returns:
            Whether the trace ended here.
        """
        self._calls += 1
        if self._folder is None or self._calls not in (_SKIP, _SKIP + _CALLS):
            return False
        jax.block_until_ready(result)
        if self._calls == _SKIP:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
            return False
        self.close()
        return True

    def close(self) -> None:
        """Ends a trace that is still being taken."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
