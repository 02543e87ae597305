"""SIGTERM and SIGINT: noticed between two steps, so that a training can save and leave."""

import signal
import threading
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

_WATCHED = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal ended a training between two steps, after its state was saved.

    Args:
        number: of the signal.
        step: the last one, which was saved.
        workdir: where.

    Attributes:
        signal: its number.
        step: the last one.
    """

    def __init__(self, number: int, step: int, workdir: Path):
        super().__init__(
            f"stopped by signal {number}: saved step {step} in {workdir}. The same call goes on "
            "from there."
        )
        self.signal, self.step = number, step


class Signals:
    """A context in which SIGTERM and SIGINT are remembered instead of ending the program.

    A second one ends it at once. Python delivers signals to the main thread alone; elsewhere they
    end the program as ever.

    Args:
        watch: whether to; False leaves them as they are.
    """

    def __init__(self, watch: bool = True):
        self._watch = watch

    def __enter__(self) -> "Signals":
        self._received, self._previous = 0, {}
        if self._watch and threading.current_thread() is threading.main_thread():
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
