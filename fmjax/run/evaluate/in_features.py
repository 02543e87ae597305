"""Samples beside real examples in chosen features, one pass over each, in bounded memory."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from fmjax.checks import check_at_least
from fmjax.data.dataset import Dataset
from fmjax.errors import InputError
from fmjax.factory.features import make_features
from fmjax.metrics.comparison import compare
from fmjax.metrics.features import Features
from fmjax.metrics.reference import (
    ReferenceStatistics,
    check_reference,
    has_statistics,
    make_reference,
    read_reference,
    write_reference,
)
from fmjax.metrics.streaming import KEPT, Collected, collect
from fmjax.run.evaluate.examples import Examples, examples_of, open_examples

_FITTED = 10_000  # real examples that features are fitted to


class Asked(NamedTuple):
    """What to measure in, and against what.

    Attributes:
        reference: a data set or its name, a folder, or a file of examples or of statistics.
        split: of the reference.
        size: of the images of a folder, to resize and crop them to; None where all have one size.
        data_dir: of prepared sets.
        most: real examples, at most.
        features: a name of `fmjax.factory.features`.
        weights: of the features, a file.
        sha256: of that file.
        write: where to write statistics of the reference; None for nowhere.
    """

    reference: str | Dataset
    split: str = "train"
    size: int | None = None
    data_dir: str | None = None
    most: int = 50_000
    features: str = "pca"
    weights: Path | None = None
    sha256: str | None = None
    write: Path | None = None


class RealSide(NamedTuple):
    """Real examples in features."""

    name: str
    features: Features
    found: Collected | ReferenceStatistics
    dtype: np.dtype | None = None  # of the examples; None of statistics, which do not tell

    @property
    def dims(self) -> int:
        """How many features there are."""
        if isinstance(self.found, ReferenceStatistics):
            return len(self.found.gaussian.mean)
        return len(self.found.halves[0].mean)


def open_real_side(asked: Asked) -> RealSide:
    """Reads the real examples once, or their statistics, and writes the latter where asked.

    Raises:
        InputError: they or the features cannot be had, or do not fit together.
    """
    check_at_least("--real_num", asked.most, 4)
    if isinstance(asked.reference, Dataset):
        return _measured_side(asked, examples_of(asked.reference, asked.split))
    path = Path(os.path.expanduser(asked.reference))
    if path.suffix == ".npz" and os.path.isfile(path) and has_statistics(path):
        if asked.write is not None:
            raise InputError(f"{path} holds statistics already; leave --write_reference out.")
        reference = read_reference(path)
        features = make_features(asked.features, asked.weights, asked.sha256)
        check_reference(path, reference, features)
        return RealSide(str(path), features, reference)
    return _measured_side(
        asked, open_examples(asked.reference, asked.split, asked.size, asked.data_dir)
    )


def _measured_side(asked: Asked, examples: Examples) -> RealSide:
    examples = examples.choose(asked.most)
    fitted = examples.choose(_FITTED)
    features = make_features(asked.features, asked.weights, asked.sha256, real=fitted.array)
    real = collect(features, examples, len(examples), keep=2 * KEPT)
    if asked.write is not None and jax.process_index() == 0:
        write_reference(asked.write, make_reference(features, real))
    return RealSide(examples.name, features, real, examples.dtype)


def measure_in_features(
    real: RealSide, samples: Iterable[Shaped[np.ndarray, "batch ..."]] | Examples, count: int
) -> dict:
    """Runs through samples once and compares.

    Args:
        real: from `open_real_side`.
        samples: batches of them, in the form of the real examples.
        count: how many there are.

    Returns:
        What `fmjax.metrics.compare` gives, and the name of the ``reference``.

    Raises:
        InputError: one side is pixels and the other is not, or they have other shapes.
    """
    drawn = collect(real.features, _of_its_kind(real, samples), count, dims=real.dims)
    return {"reference": real.name} | compare(real.features, drawn, real.found)


def _of_its_kind(
    real: RealSide, samples: Iterable[Shaped[np.ndarray, "batch ..."]]
) -> Iterator[Shaped[np.ndarray, "batch ..."]]:
    """The samples, as long as they are pixels where the real examples are."""
    for batch in map(np.asarray, samples):
        pixels = batch.dtype == np.uint8
        if real.dtype is not None and pixels != (real.dtype == np.uint8):
            kind = ("floats such as latents", "pixels of uint8")
            raise InputError(
                f"the samples are {batch.dtype} and {real.name} is {real.dtype}: {kind[pixels]} "
                f"have no distance from {kind[not pixels]}; give both in one form."
            )
        yield batch
