"""Sample a trained flow: ``python sample.py --workdir=runs/digits --num=100 --out=out``.

Everything is rebuilt from the workdir. Fixed steps by default; ``--rtol`` or ``--atol`` chooses
adaptive ones.
"""

from pathlib import Path

from absl import flags

from fmjax.errors import InputError
from fmjax.run import cli
from fmjax.run.sample import SOLVERS, Request, SampleResult, sample, solver_spec

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
OUT = flags.DEFINE_string("out", "out", "The folder to write samples.npz and grid.png to.")
NUM = flags.DEFINE_integer("num", 100, "How many samples.")
LABELS = flags.DEFINE_string("labels", "all", "Classes that repeat in turn: 0,1,2, all, or none.")
GUIDANCE = flags.DEFINE_string("guidance", "1.5", "Scale w, or a list that repeats in turn.")
SOLVER = flags.DEFINE_string("solver", "heun", f"One of {', '.join(sorted(SOLVERS))}.")
STEPS = flags.DEFINE_integer("steps", None, "Fixed steps; 25 unless --rtol or --atol is given.")
SHIFT = flags.DEFINE_float("shift", 1.0, "Of the fixed steps: above 1, more near the noise.")
RTOL = flags.DEFINE_float("rtol", None, "Relative tolerance of adaptive steps.")
ATOL = flags.DEFINE_float("atol", None, "Absolute tolerance of adaptive steps.")
SEED = flags.DEFINE_integer("seed", 0, "Sample i is a function of the seed and i alone.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Samples per call, over all devices.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, best, or latest.")
EMA = flags.DEFINE_bool("ema", True, "Use the averaged parameters.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace samples that are already in --out.")


def _numbers(flag: str, text: str, kind: type) -> tuple:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--{flag} must be a list of numbers like 1,2,3; got {text!r}.") from None


def _labels(text: str) -> tuple[int, ...] | None:
    return (
        {"none": None, "all": ()}[text]
        if text in ("none", "all")
        else _numbers("labels", text, int)
    )


def _describe(result: SampleResult, num: int) -> str:
    return (
        f"{num} samples of step {result.step} in {result.folder}: {result.seconds:.1f} s, after "
        f"{result.compile_seconds:.1f} s of compilation; {num / result.seconds:.1f} images per "
        f"second; {result.nfe:g} velocity evaluations per image "
        f"({result.nfe * result.branches:g} of the network)"
    )


def main() -> int:
    """Reads the flags and samples."""
    if WORKDIR.value is None:
        raise InputError("say what to sample from: --workdir=runs/digits")
    request = Request(
        NUM.value,
        _labels(LABELS.value),
        _numbers("guidance", GUIDANCE.value, float),
        SEED.value,
    )
    result = sample(
        Path(WORKDIR.value),
        Path(OUT.value),
        request,
        solver_spec(SOLVER.value, STEPS.value, rtol=RTOL.value, atol=ATOL.value, shift=SHIFT.value),
        checkpoint=CHECKPOINT.value,
        ema=EMA.value,
        batch_size=BATCH_SIZE.value,
        overwrite=OVERWRITE.value,
    )
    print(_describe(result, NUM.value))
    return 0


if __name__ == "__main__":
    cli.run(main)
