"""Train a flow: ``python train.py --config=configs/digits.py``.

Run the same command again to resume. Any key of the configuration can be set on the command line,
e.g. ``--config.train.steps=3000``; `fmjax/config.py` lists them all.
"""

from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from fmjax.errors import InputError
from fmjax.run import cli
from fmjax.run.train import train

CONFIG = config_flags.DEFINE_config_file("config", None, "Path of a configuration file.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; runs/ and the config's name.")
PARALLEL = flags.DEFINE_enum("parallel", "jit", ["jit", "pmap"], "How to use several devices.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete an earlier run in the workdir first.")
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


def main() -> int:
    """Reads the flags and trains."""
    if CONFIG.value is None:
        raise InputError("say what to train: --config=configs/digits.py")
    join_processes()
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = Path(WORKDIR.value or Path("runs") / name)
    return train(CONFIG.value, workdir, PARALLEL.value, OVERWRITE.value)


if __name__ == "__main__":
    cli.run(main)
