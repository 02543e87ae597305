"""Train a flow: ``python train.py --config=configs/digits.py``.

Run the same command again to resume. Any key of the configuration can be set on the command line,
e.g. ``--config.train.steps=3000``; `fmjax/config.py` lists them all.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fmjax.errors import InputError
from fmjax.run import cli
from fmjax.run.compile.programs import compile_training
from fmjax.run.compile.report import print_report
from fmjax.run.distributed import launch
from fmjax.run.train.loop import train

CONFIG = config_flags.DEFINE_config_file("config", None, "Path of a configuration file.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; runs/ and the config's name.")
PARALLEL = flags.DEFINE_enum("parallel", "jit", ["jit", "pmap"], "How to use several devices.")
PROFILE = flags.DEFINE_bool("profile", False, "Write a trace of a few steps to the workdir.")
COMPILE_ONLY = flags.DEFINE_string(
    "compile_only",
    None,
    "Compile for this TPU topology, e.g. v5e:4x4, without TPUs, and report memory and bounds.",
)
INIT_FROM = flags.DEFINE_string(
    "init_from", None, "Begin with these parameters: a run, exported weights, or a .safetensors."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete an earlier run in the workdir first.")


def main() -> int:
    """Reads the flags and trains."""
    if CONFIG.value is None:
        raise InputError("say what to train: --config=configs/digits.py")
    if COMPILE_ONLY.value is not None:
        return print_report(compile_training(CONFIG.value, COMPILE_ONLY.value, PARALLEL.value))
    launch.join_processes()
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = Path(WORKDIR.value or Path("runs") / name)
    initial = None if INIT_FROM.value is None else Path(INIT_FROM.value)
    return train(
        CONFIG.value,
        workdir,
        PARALLEL.value,
        OVERWRITE.value,
        init_from=initial,
        profile=PROFILE.value,
    )


if __name__ == "__main__":
    cli.run(main)
