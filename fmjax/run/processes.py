"""The flags by which several processes become one run, and how they end when one of them is lost.

What jax does when a process dies, seen with jax 0.10 and 0.12: a collective over Gloo raises at
once; and the runtime of every process aborts it, at once when process 0 is gone, which serves the
others, and after ``--heartbeat_timeout`` when another is. An abort cannot be caught, so a shell
waits beside each process, to say the sentence that it no longer can.
"""

import atexit
import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
from absl import flags

from fmjax.errors import InputError

DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "off", "explicit"],
    "Several processes as one run: found on a TPU pod, Slurm or OpenMPI, or by the three flags.",
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this one, from 0.")
TIMEOUT = flags.DEFINE_integer("distributed_timeout", 300, "Seconds to wait for the others.")
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout", 100, "Seconds without a sign of life after which a process is lost."
)

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
_DAY = 86400  # a process may evaluate alone for long while the others wait to leave with it
_leaving: list[Callable[[], None]] = []

_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE")


def launched_tasks(environment: Mapping[str, str], tpu_host: bool) -> str | None:
    """What says that this process is one of several, in words; None where nothing does.

    Args:
        environment: the variables that launchers set.
        tpu_host: whether TPUs hang on this machine: jax asks them for the others, and for the
            coordinator even where there are none.
    """
    for name in _COUNTS:
        if environment.get(name, "").isdecimal() and int(environment[name]) > 1:
            return f"{name}={environment[name]}"
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    if "," in hosts and " " not in hosts:  # libtpu writes a sentence there when it finds none
        return f"TPU_WORKER_HOSTNAMES={hosts}"
    return "a TPU on this machine" if tpu_host else None


def _tpu_host() -> bool:
    if importlib.util.find_spec("libtpu") is None or os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def _by_hand() -> dict[str, str | int | None]:
    """The three flags, all of them or none.

    Raises:
        InputError: some are missing, or --distributed says that they are not wanted.
    """
    values = {
        "coordinator": COORDINATOR.value,
        "num_processes": NUM_PROCESSES.value,
        "process_id": PROCESS_ID.value,
    }
    given = [name for name, value in values.items() if value is not None]
    explicit = DISTRIBUTED.value == "explicit"
    if (given or explicit) and not (explicit and len(given) == 3):
        raise InputError(
            "several processes by hand need --distributed=explicit, --coordinator, "
            "--num_processes and --process_id together; got "
            f"{', '.join(f'--{name}' for name in given) or 'none of the last three'} and "
            f"--distributed={DISTRIBUTED.value}."
        )
    return values


def join_processes() -> None:
    """Makes this process one of several where the flags or the launcher say so.

    Raises:
        InputError: the flags are incomplete; or several processes were launched and no coordinator
            is found, since N processes that each train alone would look like success.
    """
    by_hand = _by_hand()
    found = None
    if DISTRIBUTED.value == "auto":
        found = launched_tasks(os.environ, _tpu_host())
    if DISTRIBUTED.value != "explicit" and found is None:
        return
    try:
        jax.distributed.initialize(
            by_hand["coordinator"],
            by_hand["num_processes"],
            by_hand["process_id"],
            initialization_timeout=TIMEOUT.value,
            heartbeat_timeout_seconds=HEARTBEAT.value,
            shutdown_timeout_seconds=_DAY,
        )
    except ValueError as error:
        raise InputError(
            f"{found or '--distributed=explicit'} speaks of several processes, and no coordinator "
            f"is found ({error}). Write --distributed=explicit with --coordinator, --num_processes "
            "and --process_id; or --distributed=off for a run of this process alone."
        ) from error
    _stand_by()


def _stand_by() -> None:
    """Starts the shell that speaks for this process if it ends without leaving in order."""
    said = f"{_program()}: a process of this run has ended without a word: {_LOST}"
    script = 'trap "" INT TERM HUP; read -r left || printf "%s\\n" "$0" >&2'
    with contextlib.suppress(OSError):  # no shell here: jax's own message has to do
        shell = subprocess.Popen(["sh", "-c", script, said], stdin=subprocess.PIPE)
        _leaving.append(functools.partial(_dismiss, shell))
    atexit.register(_leave)


def _dismiss(shell: subprocess.Popen) -> None:
    with contextlib.suppress(OSError):
        shell.communicate(b"left\n")


def _leave() -> None:
    """Waits for the others at the end, as jax would, and sends the shell away after it."""
    jax.distributed.shutdown()
    _dismiss_all()


def _dismiss_all() -> None:
    while _leaving:
        _leaving.pop()()


def _program() -> str:
    return Path(sys.argv[0]).name


def together(main: Callable[[], int]) -> Callable[[], int]:
    """Makes an error in one process end all of them, in bounded time and with a sentence.

    A process that fails waits a little for the others to fail as well, as they do where the input
    is wrong, and then leaves alone, which the others notice as the loss of a process.

    Args:
        main: a command, as `fmjax.run.cli.run` takes it.

    Returns:
        The same command.
    """

    @functools.wraps(main)
    def guarded() -> int:
        try:
            return main()
        except Exception as error:
            if jax.distributed.is_initialized():
                _failed(error)
            raise

    return guarded


def _failed(error: Exception) -> None:
    if lost := lost_process(error):
        print(f"{_program()}: {_LOST} Noticed by: {lost}", file=sys.stderr, flush=True)
        _dismiss_all()
        os._exit(4)  # the code of a failed connection; an exit in order would wait for the lost one

    def leave_alone() -> None:
        time.sleep(_PATIENCE)
        print(
            f"{_program()}: the other processes have not failed; leaving without them, which stops "
            "them too.",
            file=sys.stderr,
            flush=True,
        )
        _dismiss_all()
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
