"""Distills a trained run into one that is sampled in one evaluation.

    python -m fmjax distill --workdir=runs/digits --guidance=1.5 --out=runs/digits-one

Run the same command again to resume. ``sample.py --workdir=runs/digits-one --steps=1`` then draws
samples.
"""

from pathlib import Path

from absl import flags

from fmjax.errors import InputError
from fmjax.run.distill.student import METHODS, Plan, distill
from fmjax.run.distributed import launch
from fmjax.samplers import SOLVERS, solver_spec

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run, the teacher.")
OUT = flags.DEFINE_string("out", None, "The folder of the student.")
METHOD = flags.DEFINE_string("method", "lagrangian", f"One of {', '.join(METHODS)}.")
GUIDANCE = flags.DEFINE_float(
    "guidance", None, "Scale w of the teacher, built into the student; the teacher's own."
)
TRAIN_STEPS = flags.DEFINE_integer(
    "train_steps", None, "Of the student; as many as the teacher's.", lower_bound=1
)
SOLVER = flags.DEFINE_string(
    "solver", "heun", f"Of the teacher's samples: {', '.join(sorted(SOLVERS))}."
)
STEPS = flags.DEFINE_integer("steps", 25, "Fixed steps of that solver.")
K = flags.DEFINE_integer("k", 1, "Of --method=pairs: how many Euler steps the student takes.")
NUM = flags.DEFINE_integer("num", 20_000, "Of --method=pairs: how many pairs.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Of --method=pairs: pairs per call.")
SEED = flags.DEFINE_integer("seed", 0, "Of --method=pairs: of the noise that they start from.")
PARALLEL = flags.DEFINE_enum("parallel", "jit", ["jit", "pmap"], "How to train on several devices.")


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
