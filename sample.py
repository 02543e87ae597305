"""Sample a trained flow: ``python sample.py --workdir=runs/digits --num=100 --out=out``.

Everything is rebuilt from the workdir. Fixed steps by default; ``--rtol`` or ``--atol`` chooses
adaptive ones, and ``--solver=churn`` and its like sample with noise.

``--num=50000 --shard_size=1024`` writes shards, from all the processes that are started with the
flags of `fmjax.run.distributed.launch`; the same command again goes on where it was stopped.
"""

from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from fmjax.errors import InputError
from fmjax.run import cli
from fmjax.run.compile.programs import compile_sampling, record_of
from fmjax.run.compile.report import print_report
from fmjax.run.distributed import launch
from fmjax.run.restore import load
from fmjax.run.sample.export import check_file, export_sampler
from fmjax.run.sample.job import (
    DIFFUSIONS,
    GRIDS,
    METHODS,
    RULES,
    SCHEDULES,
    SOLVERS,
    Guidance,
    Request,
    SampleResult,
    sample,
    sde_spec,
    solver_spec,
)


def _one_of(names) -> str:
    return f"one of {', '.join(sorted(names))}"


WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
OUT = flags.DEFINE_string("out", "out", "The folder to write samples.npz and grid.png to.")
NUM = flags.DEFINE_integer("num", 100, "How many samples.")
LABELS = flags.DEFINE_string("labels", "all", "Classes that repeat in turn: 0,1,2, all, or none.")
SEED = flags.DEFINE_integer("seed", 0, "Sample i is a function of the seed and i alone.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Per call, over the devices of a process.")
SHARD_SIZE = flags.DEFINE_integer("shard_size", 0, "Samples in a file; 0: all in samples.npz.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, best, or latest.")
EMA = flags.DEFINE_bool("ema", True, "Use the averaged parameters.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what is there already.")
TRAJECTORY = flags.DEFINE_bool("trajectory", False, "Also write trajectory.gif.")
EXPORT = flags.DEFINE_string(
    "export", None, "Write the sampler to this file, to run without fmjax, and draw nothing."
)

CONFIG = config_flags.DEFINE_config_file("config", None, "For --compile_only without a workdir.")
COMPILE_ONLY = flags.DEFINE_string(
    "compile_only",
    None,
    "Compile for this TPU topology, e.g. v5e:4x4, without TPUs, and report memory and bounds.",
)

SOLVER = flags.DEFINE_string(
    "solver", "heun", f"Of the ODE, {_one_of(SOLVERS)}; or of the SDE, {_one_of(METHODS)}."
)
STEPS = flags.DEFINE_integer("steps", None, "Fixed steps; 25 unless --rtol or --atol is given.")
GRID = flags.DEFINE_string("grid", None, f"Where they are: {_one_of(GRIDS)}, or times 0,0.1,1.")
SHIFT = flags.DEFINE_float("shift", 1.0, "Of equal steps: above 1, more near the noise.")
RTOL = flags.DEFINE_float("rtol", None, "Relative tolerance of adaptive steps.")
ATOL = flags.DEFINE_float("atol", None, "Absolute tolerance of adaptive steps.")
CONTROL = flags.DEFINE_string("control", None, "Adaptive steps per sample (default) or per batch.")
DIFFUSION = flags.DEFINE_string("diffusion", "sigma", f"Noise of the SDE: {_one_of(DIFFUSIONS)}.")
NOISE = flags.DEFINE_float("noise", 1.0, "How much of it.")

GUIDANCE = flags.DEFINE_string(
    "guidance", None, "Scale w, or a list that repeats in turn; the run's own if not given."
)
RULE = flags.DEFINE_string("rule", "linear", f"How branches are combined: {_one_of(RULES)}.")
SCHEDULE = flags.DEFINE_string("schedule", "constant", f"w over t: {_one_of(SCHEDULES)}.")
INTERVAL = flags.DEFINE_string("interval", None, "Guide in these times only, e.g. 0.2,0.8.")
ZERO_UNTIL = flags.DEFINE_float("zero_until", 0.0, "No velocity before this time (CFG-Zero*).")
NEGATIVE = flags.DEFINE_integer("negative", None, "A class to lead away from.")
WEAK = flags.DEFINE_string("weak", None, "Guide by an earlier checkpoint: a step (autoguidance).")


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


def _grid(text: str | None) -> str | tuple[float, ...] | None:
    return _numbers("grid", text, float) if text and text[0].isdigit() else text


def _solver():
    if SOLVER.value not in METHODS:
        given = [name for name in ("diffusion", "noise") if flags.FLAGS[name].present]
        if given:
            raise InputError(
                f"--{given[0]} is for sampling with noise: take --solver={_one_of(METHODS)}."
            )
        return solver_spec(
            SOLVER.value,
            STEPS.value,
            CONTROL.value,
            RTOL.value,
            ATOL.value,
            shift=SHIFT.value,
            grid=_grid(GRID.value),
        )
    adaptive = {
        name: flags.FLAGS[name].value for name in ("rtol", "atol") if flags.FLAGS[name].present
    }
    return sde_spec(
        SOLVER.value,
        STEPS.value,
        diffusion=DIFFUSION.value,
        scale=NOISE.value,
        control=CONTROL.value or "fixed",
        shift=SHIFT.value,
        grid=_grid(GRID.value),
        **adaptive,
    )


def _guidance() -> Guidance:
    interval = None if INTERVAL.value is None else _numbers("interval", INTERVAL.value, float)
    return Guidance(RULE.value, SCHEDULE.value, interval, ZERO_UNTIL.value, NEGATIVE.value)


def _describe(result: SampleResult, num: int) -> str:
    done = f"{num} samples of step {result.step} in {result.folder}"
    if not result.drawn:
        return f"{done}: all there already"
    part = "" if result.drawn == num else f"{result.drawn} of them now, "
    return (
        f"{done}: {part}{result.seconds:.1f} s, after {result.compile_seconds:.1f} s of "
        f"compilation; {result.drawn / result.seconds:.1f} images per second; {result.nfe:g} "
        f"velocity evaluations per image ({result.calls:g} of the network)"
    )


def _export(file: Path, workdir: Path, how: tuple, of: dict) -> None:
    if jax.process_count() > 1:
        raise InputError("--export is the work of one process; start it alone.")

    def check(_: object) -> None:
        check_file(file, OVERWRITE.value)

    loaded = load(workdir, *how, **of, check=check, portable=True)
    size = export_sampler(loaded, file)
    print(f"{file}: the sampler of step {loaded.step}, {size / 1e6:.1f} MB")


def _compile_only(how: tuple) -> int:
    workdir = None if WORKDIR.value is None else Path(WORKDIR.value)
    record = record_of(CONFIG.value, workdir)
    report = compile_sampling(record, COMPILE_ONLY.value, *how, batch_size=BATCH_SIZE.value)
    return print_report(report)


def main() -> int:
    """Reads the flags and samples."""
    request = Request(
        NUM.value,
        _labels(LABELS.value),
        None if GUIDANCE.value is None else _numbers("guidance", GUIDANCE.value, float),
        SEED.value,
    )
    how = request, _solver(), _guidance()
    if COMPILE_ONLY.value is not None:
        return _compile_only(how)
    if WORKDIR.value is None:
        raise InputError("say what to sample from: --workdir=runs/digits")
    if CONFIG.value is not None:
        raise InputError("a run has its own configuration: --config is for --compile_only.")
    launch.join_processes()
    workdir = Path(WORKDIR.value)
    of = {"checkpoint": CHECKPOINT.value, "weak": WEAK.value, "ema": EMA.value}
    if EXPORT.value is not None:
        _export(Path(EXPORT.value), workdir, how, of)
        return 0
    result = sample(
        workdir,
        Path(OUT.value),
        *how,
        **of,
        batch_size=BATCH_SIZE.value,
        shard_size=SHARD_SIZE.value,
        trajectory=TRAJECTORY.value,
        overwrite=OVERWRITE.value,
    )
    if jax.process_index() == 0:
        print(_describe(result, NUM.value))
    return 0


if __name__ == "__main__":
    cli.run(main)
