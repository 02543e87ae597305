"""Reflows a trained run: ``python -m fmjax reflow --workdir=runs/digits --rounds=1``.

Run the same command again to resume. What it writes goes to ``runs/digits-reflow1``, and so on.
"""

from pathlib import Path

from absl import flags

from fmjax.errors import InputError
from fmjax.run.distributed import launch
from fmjax.run.reflow.rounds import STARTS, Plan, reflow
from fmjax.samplers import SOLVERS, solver_spec

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
ROUNDS = flags.DEFINE_integer("rounds", 1, "How many times.")
NUM = flags.DEFINE_integer("num", 20_000, "How many pairs in each round.")
START = flags.DEFINE_string("start", "weights", f"Where training begins: {', '.join(STARTS)}.")
GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Scale w of the first round's pairs.")
SOLVER = flags.DEFINE_string("solver", "heun", f"One of {', '.join(sorted(SOLVERS))}.")
STEPS = flags.DEFINE_integer("steps", 25, "Fixed steps of the solver.")
TRAIN_STEPS = flags.DEFINE_integer(
    "train_steps", None, "Of each round; as many as the first run.", lower_bound=1
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Pairs per call, over all devices.")
SEED = flags.DEFINE_integer("seed", 0, "Of the noise that the pairs start from.")
PARALLEL = flags.DEFINE_enum("parallel", "jit", ["jit", "pmap"], "How to train on several devices.")


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
