"""Measures samples of a trained run, or images from anywhere, against real examples.

    python -m fmjax evaluate --workdir=runs/digits --num=1000
    python -m fmjax evaluate --workdir=runs/digits --num=50000 --features=inception
    python -m fmjax evaluate --samples=FOLDER --reference=mnist --features=efficientnet_lite0

The first draws samples with the solver and the guidance of the flags, and prints how they compare
with real examples: class accuracy, Fréchet distance, nearest training examples, balance of the
classes. With --features, or for --samples, examples stream through the features: Fréchet and kernel
distance, precision, recall, density and coverage, each beside those of two halves of the real data.
Several processes share the work by the flags of `fmjax.run.distributed.launch`.
"""

import os
from pathlib import Path

import jax
from absl import flags

from fmjax.data.dataset import Dataset
from fmjax.errors import InputError
from fmjax.factory.features import NAMES
from fmjax.factory.settings import DataSettings
from fmjax.factory.snapshots import check_one_distribution
from fmjax.files import check_file, write_json
from fmjax.first_process import say
from fmjax.metrics.comparison import describe_comparison
from fmjax.metrics.streaming import check_count
from fmjax.run.distributed import launch
from fmjax.run.evaluate.examples import open_examples
from fmjax.run.evaluate.in_features import Asked, measure_in_features, open_real_side
from fmjax.run.evaluate.measure import check_evaluated, describe_evaluation, evaluate_flow
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.flags import HOW, WHAT, WHICH, recipe, request, weights
from fmjax.run.sample.request import resolve
from fmjax.run.sample.sampler import stream_samples
from fmjax.run.workdir import check_same_data, load_record

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run to measure.")
OUT = flags.DEFINE_string("out", None, "JSON file to write the figures to.")
SAMPLES = flags.DEFINE_string(
    "samples", None, "Instead of a run: a folder of images or of samples, an .npz or .npy."
)
FEATURES = flags.DEFINE_string(
    "features", None, f"Features to compare in: {', '.join(NAMES)}, or MODULE:NAME of your own."
)
FEATURE_WEIGHTS = flags.DEFINE_string(
    "feature_weights", None, "Weights of the features: .safetensors, .npz, or the published file."
)
FEATURE_SHA256 = flags.DEFINE_string(
    "feature_sha256", None, "Required sha256 of that file, or how it begins."
)
REFERENCE = flags.DEFINE_string(
    "reference",
    None,
    "Real examples: a data set, a folder, an .npz of images or of statistics; default: "
    "the data of the run.",
)
SIZE = flags.DEFINE_integer(
    "size", None, "Side, in pixels, to which images of a folder are resized and cropped."
)
SPLIT = flags.DEFINE_string("split", "train", "Split of the reference: train or test.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets; default: TFDS_DATA_DIR."
)
REAL_NUM = flags.DEFINE_integer(
    "real_num", 50_000, "Maximum number of real examples (fixed random subset)."
)
WRITE_REFERENCE = flags.DEFINE_string(
    "write_reference", None, ".npz file to write the statistics of the real examples to."
)
HELP = {
    "What to measure": (WORKDIR, SAMPLES, *WHICH["Which parameters"]),
    "Against what": (REFERENCE, SPLIT, REAL_NUM, SIZE, DATA_DIR),
    "In which features": (FEATURES, FEATURE_WEIGHTS, FEATURE_SHA256),
    **WHAT,
    **HOW,
    "Where to write": (OUT, WRITE_REFERENCE),
    **launch.HELP,
}

_ONLY_IN_FEATURES = ("feature_weights", "feature_sha256", "reference", "write_reference")


def main() -> int:
    """Reads the flags and evaluates."""
    launch.join_processes()
    for flag in (OUT, WRITE_REFERENCE):
        if flag.value is not None:
            check_file(Path(flag.value), f"--{flag.name}")
    if SAMPLES.value is not None:
        report = _measure_samples(SAMPLES.value)
    elif WORKDIR.value is not None:
        report = _measure_run(Path(WORKDIR.value))
    elif REFERENCE.value is not None and WRITE_REFERENCE.value is not None:
        real = open_real_side(_asked(REFERENCE.value))
        say(f"statistics of {real.name} in {real.features.name}: {WRITE_REFERENCE.value}")
        return 0
    else:
        raise InputError(
            "say what to evaluate: --workdir=runs/digits, or --samples=FOLDER --reference=SET"
        )
    if OUT.value is not None and jax.process_index() == 0:
        write_json(Path(OUT.value), report)
    return 0


def _measure_run(workdir: Path) -> dict:
    what, how, which = request(), recipe(workdir), weights()
    experiment = open_run(workdir)
    check_evaluated(experiment, what, how, which)
    data = experiment.data
    if FEATURES.value is None:
        if given := [name for name in _ONLY_IN_FEATURES if flags.FLAGS[name].value is not None]:
            raise InputError(f"--{given[0]} is for figures in features: write --features=pca, say.")
        dataset = _same_data(workdir, data)
        flow = restore_flow(workdir, experiment, which)
        report = evaluate_flow(flow, dataset, what, how)
        if report is None:  # another process says it
            return {}
        say(describe_evaluation(report))
        return {"step": flow.step} | report
    check_one_distribution(experiment.spec, "a comparison in features")
    if experiment.spec.codec.kind == "text":
        raise InputError(
            "a comparison in features is of images and vectors, and this run is of texts, which "
            "are evaluated by their bits: leave --features out."
        )
    what, how = resolve(experiment, what, how)
    check_count(what.number)
    asked = _asked(REFERENCE.value or _same_data(workdir, data))
    real = open_real_side(asked)
    flow = restore_flow(workdir, experiment, which)
    report = measure_in_features(real, stream_samples(flow, what, how), what.number)
    return _said({"step": flow.step} | report, real.features.distance)


def _same_data(workdir: Path, data: DataSettings) -> Dataset:
    """The run's own data, which must not have changed since it was trained."""
    dataset = data.load()
    check_same_data(workdir, load_record(workdir), dataset.fingerprint)
    return dataset


def _measure_samples(source: str) -> dict:
    if WORKDIR.value is not None or REFERENCE.value is None:
        raise InputError(
            "--samples are compared with --reference=SET, a folder or an .npz, and have no "
            "--workdir; give the one and leave the other out."
        )
    samples = open_examples(source, SPLIT.value, size=SIZE.value)
    check_count(len(samples))
    real = open_real_side(_asked(REFERENCE.value))
    report = measure_in_features(real, samples, len(samples))
    return _said({"from": samples.name} | report, real.features.distance)


def _asked(reference: str | Dataset) -> Asked:
    def path(flag: flags.FlagHolder) -> Path | None:
        return None if flag.value is None else Path(os.path.expanduser(flag.value))

    return Asked(
        reference,
        SPLIT.value,
        SIZE.value,
        DATA_DIR.value,
        REAL_NUM.value,
        FEATURES.value or "pca",
        path(FEATURE_WEIGHTS),
        FEATURE_SHA256.value,
        path(WRITE_REFERENCE),
    )


def _said(report: dict, distance: str) -> dict:
    say(f"real examples: {report['reference']}\n{describe_comparison(report, distance)}")
    return report
