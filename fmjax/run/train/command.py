"""Trains a flow from a configuration.

    python train.py --config=configs/digits.py

Run the same command again to resume. Any key of the configuration can be set on the command line,
e.g. ``--config.train.steps=3000``; ``--help-config`` lists them all.
"""

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from fmjax.config import KEYS
from fmjax.errors import InputError
from fmjax.keys import describe_keys
from fmjax.run.compile.programs import compile_training
from fmjax.run.compile.report import print_report
from fmjax.run.distributed import launch
from fmjax.run.train.training import train

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration: a name such as digits, or the path of a Python file."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default: runs/ and the name of the configuration."
)
PARALLEL: flags.FlagHolder[Any] = flags.DEFINE_enum(
    "parallel", "jit", ["jit", "pmap"], "How several devices share a step."
)
PROFILE = flags.DEFINE_bool("profile", False, "Write a trace of a few steps to the workdir.")
COMPILE_ONLY = flags.DEFINE_string(
    "compile_only",
    None,
    "Compile ahead of time for a TPU topology, e.g. v5e:4x4, without TPUs; report memory, "
    "collectives and roofline bounds.",
)
INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Start from these parameters: a run, exported or published weights (a .safetensors file, a "
    "diffusers folder, a .pt).",
)
INIT_LAYOUT = flags.DEFINE_string(
    "init_layout",
    None,
    "Layout of published weights, such as sit, where the names in the file leave it open.",
)
INIT_FRESH = flags.DEFINE_list(
    "init_fresh",
    [],
    "Parameters to draw afresh and not to take from there, e.g. condition/label/* for other "
    "classes.",
)
WANDB = flags.DEFINE_string(
    "wandb", None, "Log to this project of Weights & Biases as well (pip install wandb)."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the earlier run in the workdir first.")
HELP_CONFIG = flags.DEFINE_bool(
    "help-config", False, "Print every key of the configuration, its default, range and meaning."
)

HELP = {
    "What to train": (CONFIG, HELP_CONFIG, INIT_FROM, INIT_LAYOUT, INIT_FRESH),
    "Where to write": (WORKDIR, OVERWRITE, WANDB),
    "How to run": (PARALLEL, PROFILE, COMPILE_ONLY),
    **launch.HELP,
}


def default_workdir(config_file: str, overrides: dict[str, object]) -> Path:
    """The folder of a run that is given none: named after its configuration and its data.

    The data's name is left out where it is the one that the configuration file itself names.

    Args:
        config_file: the path of the configuration.
        overrides: the keys that were set on the command line, with their values.
    """
    config = Path(config_file).stem
    data = str(overrides.get("data.name", config)).removeprefix("toy/").replace("/", "-")
    return Path("runs") / (config if data == config else f"{config}-{data}")


def main() -> int:
    """Reads the flags and trains."""
    if HELP_CONFIG.value:
        print(describe_keys(KEYS))
        return 0
    if CONFIG.value is None:
        raise InputError("say what to train: --config=digits, or --config=PATH of your own file")
    if COMPILE_ONLY.value is not None:
        return print_report(compile_training(CONFIG.value, COMPILE_ONLY.value, PARALLEL.value))
    launch.join_processes()
    flag = flags.FLAGS["config"]
    workdir = WORKDIR.value or default_workdir(
        config_flags.get_config_filename(flag), config_flags.get_override_values(flag)
    )
    return train(
        CONFIG.value,
        Path(workdir),
        parallel=PARALLEL.value,
        overwrite=OVERWRITE.value,
        init_from=None if INIT_FROM.value is None else Path(INIT_FROM.value),
        profile=PROFILE.value,
        init_layout=INIT_LAYOUT.value,
        init_fresh=tuple(INIT_FRESH.value),
        wandb=WANDB.value,
    )
