"""SIGTERM and SIGINT: noticed between two steps, so that the run can save and leave."""

import signal

import jax
import numpy as np
from jax.experimental import multihost_utils

_WATCHED = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """A context in which SIGTERM and SIGINT are remembered instead of ending the program.

    A second one ends it at once.
    """

    def __enter__(self) -> "Signals":
        self._received = 0
        self._previous = {s: signal.signal(s, self._remember) for s in _WATCHED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        self._received = number
        signal.signal(number, self._previous[number])

    def received(self, agree: bool) -> int:
        """The number of the signal received, 0 for none.

        Several processes must leave at the same step, so they answer only where ``agree`` says that
        all of them ask; alone, a process answers at every step.
        """
        if jax.process_count() == 1:
            return self._received
        if not agree:
            return 0
        return int(np.max(multihost_utils.process_allgather(np.int32(self._received))))
