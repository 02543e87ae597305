"""How the processes of a run end when one of them is lost.

What jax does when a process dies, seen with jax 0.10 and 0.12: a collective over Gloo raises at
once; and the runtime of every process aborts it, at once when process 0 is gone, which serves the
others, and after ``--heartbeat_timeout`` when another is. An abort cannot be caught, so a shell
waits beside each process, to say the sentence that it no longer can.
"""

import atexit
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

_LOST = (
    "another process of the run was lost (killed, out of memory, or its machine gone), or this one "
    "was; the first error in the output of all of them says which. Start all of them again by the "
    "same command: the run goes on from its newest checkpoint."
)
_SIGNS = (  # Gloo's and gRPC's words for the other end being gone, and those of jax's heartbeat
    *("Connection closed by peer", "Connection reset", "Connection refused", "Broken pipe"),
    *("Socket closed", "heartbeat", "unhealthy", "coordination service"),
)
_PATIENCE = 20  # seconds in which processes fail together
_shells: list[subprocess.Popen] = []  # the one that stands by, until it is sent away


def stand_by() -> None:
    """Starts the shell that speaks for this process if it ends without leaving in order."""
    said = f"{_program()}: a process of this run has ended without a word: {_LOST}"
    script = 'trap "" INT TERM HUP; read -r left || printf "%s\\n" "$0" >&2'
    with contextlib.suppress(OSError):  # no shell here: jax's own message has to do
        _shells.append(subprocess.Popen(["sh", "-c", script, said], stdin=subprocess.PIPE))
    atexit.register(_leave)


def _leave() -> None:
    """Waits for the others at the end, as jax would, and sends the shell away after it."""
    jax.distributed.shutdown()
    _dismiss()


def _dismiss() -> None:
    while _shells:
        with contextlib.suppress(OSError):
            _shells.pop().communicate(b"left\n")


def _program() -> str:
    return Path(sys.argv[0]).name


def together(main: Callable[[], int]) -> int:
    """Runs a command so that an error in one process ends all of them, soon and with a sentence.

    A process that fails waits a little for the others to fail as well, as they do where the input
    is wrong, and then leaves alone, which the others notice as the loss of a process.

    Args:
        main: a command.

    Returns:
        What it returns.
    """
    try:
        return main()
    except Exception as error:
        if jax.distributed.is_initialized():
            _failed(error)
        raise


def _failed(error: Exception) -> None:
    if lost := lost_process(error):
        print(f"{_program()}: {_LOST} Noticed by: {lost}", file=sys.stderr, flush=True)
        _dismiss()
        os._exit(4)  # the code of a failed connection; an exit in order would wait for the lost one

    def leave_alone() -> None:
        time.sleep(_PATIENCE)
        print(
            f"{_program()}: the other processes have not failed; leaving without them, which stops "
            "them too.",
            file=sys.stderr,
            flush=True,
        )
        _dismiss()
        os._exit(1)

    threading.Thread(target=leave_alone, daemon=True).start()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def lost_process(error: BaseException) -> str | None:
    """The words of jax that tell of a lost process, None where the error is another.

    Args:
        error: what was raised; the errors that it came from are looked at too.
    """
    for cause in _chain(error):
        if isinstance(cause, jax.errors.JaxRuntimeError):
            text = str(cause).splitlines()[0][:200]
            if any(words in str(cause) for words in _SIGNS):
                return text
    return None
