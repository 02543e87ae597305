"""Measures the likelihood of a run's data: ``python -m fmjax likelihood --workdir=runs/digits``.

Prints bits per dimension of the test images, or nats of the test points, with their standard error.
Adaptive steps by default; ``--steps`` chooses fixed ones, and ``--jumps`` those of a flow map. Of a
run on tokens a bound is estimated, at ``--draws`` times for each example.
"""

from pathlib import Path
from typing import Any

from absl import flags

from fmjax.data.codecs import vocabulary_of
from fmjax.errors import InputError
from fmjax.files import check_file, write_json
from fmjax.flow_maps import Jumps
from fmjax.likelihood import Exact, Hutchinson, Trace
from fmjax.run.likelihood.measure import LABELS as CHOICES
from fmjax.run.likelihood.measure import Draws, Question, check_question, measure
from fmjax.run.likelihood.report import describe_likelihood
from fmjax.run.restore import Weights, check_weights
from fmjax.run.workdir import load_record
from fmjax.samplers import SOLVERS, Solver, solver_spec
from fmjax.samplers.ode_solver import Control

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
SPLIT = flags.DEFINE_enum("split", "test", ["test", "train"], "Which examples to measure.")
NUM = flags.DEFINE_integer(
    "num", None, "Maximum number of examples (fixed random subset); default: the whole split."
)
LABELS = flags.DEFINE_string(
    "labels", None, f"Labels to condition on: {' or '.join(CHOICES)}; default: true if conditional."
)
EXACT = flags.DEFINE_bool(
    "exact", False, "Exact trace of the Jacobian: one derivative per dimension."
)
PROBES = flags.DEFINE_integer("probes", None, "Random probes of the trace per example; default: 8.")
KIND = flags.DEFINE_string(
    "kind", "rademacher", "Distribution of the probes: rademacher or gaussian."
)
SOLVER: flags.FlagHolder[Any] = flags.DEFINE_string(
    "solver", "dopri5", f"Solver of the ODE: one of {', '.join(sorted(SOLVERS))}."
)
STEPS = flags.DEFINE_integer("steps", None, "Number of fixed steps; default: adaptive steps.")
JUMPS = flags.DEFINE_integer(
    "jumps", None, "Number of jumps, for a flow map that learned the average divergence."
)
DRAWS = flags.DEFINE_integer(
    "draws", None, "For tokens: times at which the bound is estimated, for each example; 64."
)
RTOL = flags.DEFINE_float("rtol", None, "Relative tolerance of adaptive steps; default: 1e-4.")
ATOL = flags.DEFINE_float("atol", None, "Absolute tolerance of adaptive steps; default: 1e-4.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed of the dequantising noise and of the probes.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Examples per call, over all devices.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "The number of its step, best, or latest.")
EMA = flags.DEFINE_bool("ema", True, "Use the EMA of the parameters.")
OUT = flags.DEFINE_string("out", None, "JSON file to write the figures to.")

HELP = {
    "What to measure": (WORKDIR, CHECKPOINT, EMA, SPLIT, NUM, LABELS),
    "How to solve": (SOLVER, STEPS, RTOL, ATOL, JUMPS),
    "How to take the trace": (EXACT, PROBES, KIND, SEED),
    "How to estimate the bound of tokens": (DRAWS,),
    "How to run, and where to write": (BATCH_SIZE, OUT),
}


def _trace() -> Trace:
    if not EXACT.value:
        return Hutchinson(8 if PROBES.value is None else PROBES.value, KIND.value)
    if PROBES.value is not None:
        raise InputError("the exact trace has no probes; leave --exact or --probes out.")
    return Exact()


def _solver() -> Solver:
    if JUMPS.value is not None:
        given = [name for name in ("steps", "probes", "rtol", "atol") if flags.FLAGS[name].present]
        if given or EXACT.value:
            raise InputError(
                f"--jumps solves nothing and takes no trace: leave --{(given or ['exact'])[0]} out."
            )
        return Jumps(JUMPS.value)
    control: Control = "fixed" if STEPS.value is not None else "sample"
    return solver_spec(SOLVER.value, STEPS.value, control, RTOL.value, ATOL.value)


def _way(workdir: Path) -> tuple[Solver | Draws, Trace | None]:
    """How the flags ask to measure a run, of tokens or of numbers."""
    of_numbers = ("solver", "steps", "jumps", "rtol", "atol", "exact", "probes", "kind")
    given = [name for name in of_numbers if flags.FLAGS[name].present]
    solver, trace = _solver(), _trace()
    if vocabulary_of(load_record(workdir).spec.codec) is None:
        return (solver, trace) if DRAWS.value is None else (Draws(DRAWS.value), None)
    if given:
        raise InputError(
            f"the likelihood of tokens is a bound, estimated at --draws times: leave --{given[0]} "
            "out."
        )
    return Draws() if DRAWS.value is None else Draws(DRAWS.value), None


def main() -> int:
    """Reads the flags and measures."""
    if WORKDIR.value is None:
        raise InputError("say whose likelihood: --workdir=runs/digits")
    out = None if OUT.value is None else Path(OUT.value)
    if out is not None:
        check_file(out, "--out")
    # What is wrong with a flag alone is said before the run is looked at.
    question = Question(SPLIT.value, NUM.value, LABELS.value, SEED.value)
    check_question(question, BATCH_SIZE.value)
    weights = check_weights(Weights(CHECKPOINT.value, EMA.value))
    workdir = Path(WORKDIR.value)
    report = measure(workdir, question, *_way(workdir), weights, batch_size=BATCH_SIZE.value)
    print(describe_likelihood(report))
    if out is not None:
        write_json(out, report)
    return 0
