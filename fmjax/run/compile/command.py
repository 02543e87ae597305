"""Compiles for a TPU without one: ``python -m fmjax compile --config=NAME --topology=v5e:4x4``.

Prints the memory that each device needs, the collectives and the roofline bounds of a training
step, or with ``--what=sample`` of a sampler. A run's sampler is compiled by ``--workdir``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from fmjax.checks import check_at_least
from fmjax.errors import InputError
from fmjax.factory import Recipe, Solver
from fmjax.run.compile.programs import compile_sampling, compile_training, record_of
from fmjax.run.compile.report import Report, print_report
from fmjax.run.sample.request import Request
from fmjax.samplers import METHODS, SOLVERS, sde_spec, solver_spec

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration: a name such as digits, or the path of a Python file."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "With --what=sample: folder of a run, instead of --config."
)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "TPU slice, e.g. v5e:4x4, or v5e:16x16*2 for two of them."
)
WHAT = flags.DEFINE_enum(
    "what", "train", ["train", "sample"], "Compile a training step or a sampler."
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Batch size over all devices; default: train.batch_size, or 256 samples."
)
SOLVER: flags.FlagHolder[Any] = flags.DEFINE_enum(
    "solver", "heun", sorted({*SOLVERS, *METHODS}), "With --what=sample: the solver."
)
STEPS = flags.DEFINE_integer("steps", 25, "With --what=sample: number of fixed steps.")

HELP = {
    "What to compile": (CONFIG, WORKDIR, WHAT, BATCH_SIZE),
    "For which devices": (TOPOLOGY,),
    "For --what=sample": (SOLVER, STEPS),
}


def main() -> int:
    """Reads the flags, compiles and prints the report."""
    if TOPOLOGY.value is None:
        raise InputError("say which TPU slice to compile for: --topology=v5e:4x4")
    if BATCH_SIZE.value is not None:
        check_at_least("--batch_size", BATCH_SIZE.value)
    compile_ = _compile_training if WHAT.value == "train" else _compile_sampler
    return print_report(compile_(TOPOLOGY.value))


def _compile_training(topology: str) -> Report:
    for name in ("workdir", "solver", "steps"):
        if flags.FLAGS[name].present:
            raise InputError(f"--{name} is for --what=sample; a training step takes --config.")
    if CONFIG.value is None:
        raise InputError("say what to compile: --config=digits, or --config=PATH of your own file")
    config = CONFIG.value.copy_and_resolve_references()
    if BATCH_SIZE.value is not None:
        config.train.batch_size = BATCH_SIZE.value
    return compile_training(config, topology)


def _compile_sampler(topology: str) -> Report:
    workdir = None if WORKDIR.value is None else Path(WORKDIR.value)
    batch_size = 256 if BATCH_SIZE.value is None else BATCH_SIZE.value
    return compile_sampling(
        record_of(CONFIG.value, workdir),
        topology,
        Request(batch_size),
        Recipe(_fixed_solver()),
        batch_size=batch_size,
    )


def _fixed_solver() -> Solver:
    build: Callable[..., Solver] = sde_spec if SOLVER.value in METHODS else solver_spec
    return build(SOLVER.value, STEPS.value)
