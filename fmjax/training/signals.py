"""SIGTERM, SIGINT and SIGHUP: noticed between two steps, so that a training saves and leaves."""

import contextlib
import os
import signal
import threading
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

_WATCHED = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
]


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
    """A context in which SIGTERM, SIGINT and SIGHUP are remembered and do not end the program.

    A second one, of the same kind or another, ends it at once. One that was ignored before, as
    nohup has it for SIGHUP, stays so. Python delivers signals to the main thread alone; elsewhere
    they end the program as ever.

    Args:
        watch: whether to; False leaves them as they are.
    """

    def __init__(self, watch: bool = True):
        self._watch = watch

    def __enter__(self) -> "Signals":
        self._received, self._previous = 0, {}
        if self._watch and threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, self._remember)
                for number in _WATCHED
                if signal.getsignal(number) not in (signal.SIG_IGN, None)
            }
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        self._received = number
        self._restore()
        # Not by print, which may be in the middle of another line when the signal comes.
        text = f"\n{signal.Signals(number).name}: saving after this step; once more ends at once.\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())

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
