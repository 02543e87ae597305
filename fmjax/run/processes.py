"""The flags by which several processes become one run, for the commands that train."""

import jax
from absl import flags

from fmjax.errors import InputError

DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes: TPU pod, Slurm, or the three flags below."
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes.")
TIMEOUT = flags.DEFINE_integer("distributed_timeout", 300, "Seconds to wait for the others.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this one, from 0.")


def join_processes() -> None:
    """Makes this process one of several where the flags say so.

    Raises:
        InputError: the flags are incomplete; or no cluster answers, since N processes that each
            train alone would look like success.
    """
    by_hand = {
        "coordinator": COORDINATOR.value,
        "num_processes": NUM_PROCESSES.value,
        "process_id": PROCESS_ID.value,
    }
    given = [name for name, value in by_hand.items() if value is not None]
    if given and (len(given) < 3 or not DISTRIBUTED.value):
        raise InputError(
            "several processes by hand need --distributed, --coordinator, --num_processes and "
            f"--process_id together; got only --{', --'.join(given)}"
            + (" and --distributed." if DISTRIBUTED.value else ".")
        )
    if DISTRIBUTED.value:
        try:
            jax.distributed.initialize(*by_hand.values(), initialization_timeout=TIMEOUT.value)
        except ValueError as error:
            raise InputError(
                f"--distributed found no cluster ({error}). On a TPU pod, Slurm or OpenMPI jax "
                "finds it; elsewhere add --coordinator, --num_processes and --process_id."
            ) from error
