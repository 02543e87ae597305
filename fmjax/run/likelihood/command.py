"""Measures the likelihood of a run's data: ``python -m fmjax likelihood --workdir=runs/digits``.

Prints bits per dimension of the test images, or nats of the test points, with their standard error.
Adaptive steps by default; ``--steps`` chooses fixed ones, and ``--jumps`` those of a flow map.
"""

from pathlib import Path

from absl import flags

from fmjax.errors import InputError
from fmjax.files import check_file, write_json
from fmjax.flow_maps import Jumps
from fmjax.likelihood import Exact, Hutchinson, Trace
from fmjax.run.likelihood.measure import LABELS as CHOICES
from fmjax.run.likelihood.measure import Question, measure
from fmjax.run.likelihood.report import describe_likelihood
from fmjax.run.restore import Weights, check_weights
from fmjax.samplers import SOLVERS, Solver, solver_spec

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
SPLIT = flags.DEFINE_enum("split", "test", ["test", "train"], "Of which examples.")
NUM = flags.DEFINE_integer("num", None, "At most so many examples, a fixed choice; all of them.")
LABELS = flags.DEFINE_string("labels", None, f"{' or '.join(CHOICES)}; true if conditional.")
EXACT = flags.DEFINE_bool("exact", False, "The exact trace, a derivative for each dimension.")
PROBES = flags.DEFINE_integer("probes", None, "Probes of the trace for each example; 8.")
KIND = flags.DEFINE_string("kind", "rademacher", "Of the probes: rademacher or gaussian.")
SOLVER = flags.DEFINE_string("solver", "dopri5", f"One of {', '.join(sorted(SOLVERS))}.")
STEPS = flags.DEFINE_integer("steps", None, "Fixed steps.")
JUMPS = flags.DEFINE_integer(
    "jumps", None, "So many evaluations, of a run that learned the average divergence."
)
RTOL = flags.DEFINE_float("rtol", None, "Relative tolerance of adaptive steps; 1e-4.")
ATOL = flags.DEFINE_float("atol", None, "Absolute tolerance of adaptive steps; 1e-4.")
SEED = flags.DEFINE_integer("seed", 0, "Of the dequantising noise and the probes.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Examples per call, over all devices.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, best, or latest.")
EMA = flags.DEFINE_bool("ema", True, "Use the averaged parameters.")
OUT = flags.DEFINE_string("out", None, "A JSON file to write the figures to.")


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
    control = "fixed" if STEPS.value is not None else "sample"
    return solver_spec(SOLVER.value, STEPS.value, control, RTOL.value, ATOL.value)


def main() -> int:
    """Reads the flags and measures."""
    if WORKDIR.value is None:
        raise InputError("say whose likelihood: --workdir=runs/digits")
    out = None if OUT.value is None else Path(OUT.value)
    if out is not None:
        check_file(out, "--out")
    report = measure(
        Path(WORKDIR.value),
        Question(SPLIT.value, NUM.value, LABELS.value, SEED.value),
        _solver(),
        _trace(),
        check_weights(Weights(CHECKPOINT.value, EMA.value)),
        batch_size=BATCH_SIZE.value,
    )
    print(describe_likelihood(report))
    if out is not None:
        write_json(out, report)
    return 0
