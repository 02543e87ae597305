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
from fmjax.run.sample.export import export_run
from fmjax.run.sample.flags import recipe, request, weights
from fmjax.run.sample.to_disk import describe_result, sample

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
OUT = flags.DEFINE_string("out", "out", "The folder to write samples.npz and grid.png to.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what is there already.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Per call, over the devices of a process.")
SHARD_SIZE = flags.DEFINE_integer("shard_size", 0, "Samples in a file; 0: all in samples.npz.")
TRAJECTORY = flags.DEFINE_bool("trajectory", False, "Also write trajectory.gif.")
EXPORT = flags.DEFINE_string(
    "export", None, "Write the sampler to this file, to run without fmjax, and draw nothing."
)
CONFIG = config_flags.DEFINE_config_file("config", None, "For --compile_only without a workdir.")
COMPILE_ONLY = flags.DEFINE_string(
    "compile_only",
    None,
    "Compile ahead of time for a TPU topology, e.g. v5e:4x4, without TPUs; report memory, "
    "collectives and roofline bounds.",
)


def main() -> int:
    """Reads the flags and samples."""
    workdir = None if WORKDIR.value is None else Path(WORKDIR.value)
    what, how = request(), recipe(workdir, CONFIG.value)
    if COMPILE_ONLY.value is not None:
        record = record_of(CONFIG.value, workdir)
        report = compile_sampling(record, COMPILE_ONLY.value, what, how, BATCH_SIZE.value)
        return print_report(report)
    if workdir is None:
        raise InputError("say what to sample from: --workdir=runs/digits")
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
