"""Distills a trained run into one that is sampled in one evaluation.

    python -m fmjax distill --workdir=runs/digits --guidance=1.5 --out=runs/digits-one

Run the same command again to resume. ``sample.py --workdir=runs/digits-one --steps=1`` then draws
samples.
"""

from pathlib import Path
from typing import Any

from absl import flags

from fmjax.errors import InputError
from fmjax.run.distill.student import METHODS, Plan, distill
from fmjax.run.distributed import launch
from fmjax.samplers import SOLVERS, solver_spec

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run, the teacher.")
OUT = flags.DEFINE_string("out", None, "Folder of the student.")
METHOD = flags.DEFINE_string(
    "method", "lagrangian", f"How the student learns: {', '.join(METHODS)}."
)
GUIDANCE = flags.DEFINE_float(
    "guidance",
    None,
    "Guidance scale w of the teacher, built into the student; default: the "
    "sample.guidance of its configuration.",
)
TRAIN_STEPS = flags.DEFINE_integer(
    "train_steps",
    None,
    "Training steps of the student; default: those of the teacher.",
    lower_bound=1,
)
SOLVER: flags.FlagHolder[Any] = flags.DEFINE_string(
    "solver", "heun", f"Solver of the teacher: {', '.join(sorted(SOLVERS))}."
)
STEPS = flags.DEFINE_integer("steps", 25, "Number of fixed steps of that solver.")
K = flags.DEFINE_integer(
    "k", 1, "With --method=pairs: number of Euler steps that the student takes."
)
NUM = flags.DEFINE_integer("num", 20_000, "With --method=pairs: number of pairs (x0, x1).")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "With --method=pairs: pairs per call.")
SEED = flags.DEFINE_integer("seed", 0, "With --method=pairs: random seed of the noise x0.")
PARALLEL: flags.FlagHolder[Any] = flags.DEFINE_enum(
    "parallel", "jit", ["jit", "pmap"], "How several devices share a step."
)

HELP = {
    "What to distill": (WORKDIR, OUT, GUIDANCE, SOLVER, STEPS),
    "How to train": (METHOD, TRAIN_STEPS, PARALLEL),
    "For --method=pairs": (NUM, K, BATCH_SIZE, SEED),
    **launch.HELP,
}


def main() -> int:
    """Reads the flags and distills."""
    if WORKDIR.value is None:
        raise InputError("say what to distill: --workdir=runs/digits")
    if OUT.value is None:
        raise InputError(f"say where the student goes: --out={WORKDIR.value}-one")
    launch.join_processes()
    plan = Plan(
        method=METHOD.value,
        guidance=GUIDANCE.value,
        solver=solver_spec(SOLVER.value, STEPS.value),
        train_steps=TRAIN_STEPS.value,
        parallel=PARALLEL.value,
        k=K.value,
        num=NUM.value,
        batch_size=BATCH_SIZE.value,
        seed=SEED.value,
    )
    return distill(Path(WORKDIR.value), Path(OUT.value), plan)
