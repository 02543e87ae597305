"""The flags by which several processes become one run, for the commands that can be several."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags

from fmjax.errors import InputError
from fmjax.run.distributed.failure import stand_by

DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "off", "explicit"],
    "Run several processes as one: detected on a TPU pod, Slurm or OpenMPI (auto), or given by "
    "the three next flags (explicit).",
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "Address of process 0, host:port.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
TIMEOUT = flags.DEFINE_integer(
    "distributed_timeout", 300, "Seconds to wait for the other processes."
)
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout", 100, "Seconds without an answer after which a process counts as lost."
)
HELP = {
    "Several processes": (DISTRIBUTED, COORDINATOR, NUM_PROCESSES, PROCESS_ID, TIMEOUT, HEARTBEAT)
}

_DAY = 86400  # a process may evaluate alone for long while the others wait to leave with it
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


def _by_hand() -> dict[str, Any]:
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
    stand_by()
