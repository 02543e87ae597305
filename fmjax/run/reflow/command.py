"""Reflows a trained run: ``python -m fmjax reflow --workdir=runs/digits --rounds=1``.

Run the same command again to resume. What it writes goes to ``runs/digits-reflow1``, and so on.
"""

from pathlib import Path
from typing import Any

from absl import flags

from fmjax.errors import InputError
from fmjax.run.distributed import launch
from fmjax.run.reflow.rounds import STARTS, Plan, reflow
from fmjax.samplers import SOLVERS, solver_spec

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run to reflow.")
ROUNDS = flags.DEFINE_integer("rounds", 1, "Number of rounds.")
NUM = flags.DEFINE_integer("num", 20_000, "Number of pairs (x0, x1) in each round.")
START = flags.DEFINE_string("start", "weights", f"Parameters to start from: {', '.join(STARTS)}.")
GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Guidance scale w of the pairs of the first round.")
SOLVER: flags.FlagHolder[Any] = flags.DEFINE_string(
    "solver", "heun", f"Solver of the pairs: {', '.join(sorted(SOLVERS))}."
)
STEPS = flags.DEFINE_integer("steps", 25, "Number of fixed steps of the solver.")
TRAIN_STEPS = flags.DEFINE_integer(
    "train_steps",
    None,
    "Training steps of each round; default: those of the first run.",
    lower_bound=1,
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Pairs per call, over all devices.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed of the noise x0.")
PARALLEL: flags.FlagHolder[Any] = flags.DEFINE_enum(
    "parallel", "jit", ["jit", "pmap"], "How several devices share a step."
)

HELP = {
    "What to reflow": (WORKDIR, ROUNDS),
    "How to draw the pairs": (NUM, GUIDANCE, SOLVER, STEPS, SEED, BATCH_SIZE),
    "How to train": (START, TRAIN_STEPS, PARALLEL),
    **launch.HELP,
}


def main() -> int:
    """Reads the flags and reflows."""
    if WORKDIR.value is None:
        raise InputError("say what to reflow: --workdir=runs/digits")
    launch.join_processes()
    plan = Plan(
        num=NUM.value,
        start=START.value,
        guidance=GUIDANCE.value,
        solver=solver_spec(SOLVER.value, STEPS.value),
        train_steps=TRAIN_STEPS.value,
        batch_size=BATCH_SIZE.value,
        seed=SEED.value,
        parallel=PARALLEL.value,
    )
    return reflow(Path(WORKDIR.value), ROUNDS.value, plan)
