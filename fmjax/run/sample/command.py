"""Draws samples from a trained run and writes them.

    python sample.py --workdir=runs/digits --num=100 --out=out

Everything is rebuilt from the workdir. Fixed steps by default; ``--rtol`` or ``--atol`` chooses
adaptive ones, and ``--solver=churn`` and its like sample with noise.

``--num=50000 --shard_size=1024`` writes shards, from all the processes that are started with the
flags of `fmjax.run.distributed.launch`; the same command again goes on where it was stopped.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fmjax.errors import InputError
from fmjax.first_process import say
from fmjax.run.compile.programs import compile_sampling, record_of
from fmjax.run.compile.report import print_report
from fmjax.run.distributed import launch
from fmjax.run.sample.compare import compare, describe_solvers
from fmjax.run.sample.export import export_run
from fmjax.run.sample.flags import HOW, WHAT, WHICH, recipe, recipes, request, weights
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import describe_result, sample

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run to sample from.")
OUT = flags.DEFINE_string("out", "out", "Folder to write samples.npz and the picture grid.png to.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace samples that are there already.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Samples per call, over all devices.")
SHARD_SIZE = flags.DEFINE_integer(
    "shard_size", 0, "Write files of this many samples; 0: one file, samples.npz."
)
TRAJECTORY = flags.DEFINE_bool(
    "trajectory", False, "Also write trajectory.gif, from t = 0 to t = 1."
)
COMPARE = flags.DEFINE_string(
    "compare",
    None,
    "Instead of samples, write compare.png and compare.json: the same noise by several solvers, "
    "each with its number of steps, heun:25,euler:8.",
)
EXPORT = flags.DEFINE_string(
    "export",
    None,
    "Draw nothing; write the compiled sampler to this file, which runs without fmjax.",
)
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration to compile, with --compile_only and no --workdir."
)
COMPILE_ONLY = flags.DEFINE_string(
    "compile_only",
    None,
    "Compile ahead of time for a TPU topology, e.g. v5e:4x4, without TPUs; report memory, "
    "collectives and roofline bounds.",
)

HELP = {
    "What to sample from": (WORKDIR, *WHICH["Which parameters"]),
    **WHAT,
    **HOW,
    "Where to write": (OUT, OVERWRITE, BATCH_SIZE, SHARD_SIZE, TRAJECTORY, COMPARE, EXPORT),
    "To compile and stop": (COMPILE_ONLY, CONFIG),
    **launch.HELP,
}


def main() -> int:
    """Reads the flags and samples."""
    workdir = None if WORKDIR.value is None else Path(WORKDIR.value)
    what = request()
    if COMPARE.value is not None:
        return _compare(COMPARE.value, workdir, what)
    how = recipe(workdir, CONFIG.value)
    if COMPILE_ONLY.value is not None:
        record = record_of(CONFIG.value, workdir)
        report = compile_sampling(record, COMPILE_ONLY.value, what, how, BATCH_SIZE.value)
        return print_report(report)
    workdir = _given(workdir)
    if CONFIG.value is not None:
        raise InputError("a run has its own configuration: --config is for --compile_only.")
    launch.join_processes()
    if EXPORT.value is not None:
        say(export_run(workdir, Path(EXPORT.value), what, how, weights(), OVERWRITE.value))
        return 0
    result = sample(
        workdir,
        Path(OUT.value),
        what,
        how,
        weights(),
        batch_size=BATCH_SIZE.value,
        shard_size=SHARD_SIZE.value,
        trajectory=TRAJECTORY.value,
        overwrite=OVERWRITE.value,
    )
    say(describe_result(result))
    return 0


def _given(workdir: Path | None) -> Path:
    if workdir is None:
        raise InputError("say what to sample from: --workdir=runs/digits")
    return workdir


def _compare(solvers: str, workdir: Path | None, what: Request) -> int:
    how = recipes(solvers)
    rows = compare(
        _given(workdir),
        Path(OUT.value),
        what,
        how,
        weights(),
        batch_size=BATCH_SIZE.value,
        overwrite=OVERWRITE.value,
    )
    say(describe_solvers(rows))
    return 0
