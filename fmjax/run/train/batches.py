"""The examples of a run, as `fmjax.training.fit` takes them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fmjax.data import pipeline
from fmjax.data.dataset import Dataset
from fmjax.factory import Experiment

_HELD_OUT = 512


def read_examples(dataset: Dataset, split: str, limit: int) -> dict[str, Any]:
    """Some examples of a split as the pipeline gives a batch, without their index."""
    if dataset.snapshots is not None:
        return getattr(dataset.snapshots, split).take(limit)
    read_pairs = getattr(getattr(dataset, split), "read_pairs", None)
    if read_pairs is None:
        parts = dict(zip(("x1", "labels"), dataset.arrays(split, limit), strict=True))
    else:
        chosen = np.arange(min(limit, len(getattr(dataset, split))))
        parts = dict(zip(("x0", "x1", "labels"), read_pairs(chosen), strict=True))
    return {name: x for name, x in parts.items() if x is not None}


def held_out(dataset: Dataset) -> dict[str, Any]:
    """Test examples, under the names that `fmjax.training.fit` takes."""
    parts = read_examples(dataset, "test", _HELD_OUT)
    return {"x" if name == "x1" else name: x for name, x in parts.items()}


class RunStream(NamedTuple):
    """The batches of a run: a `fmjax.data.streams.Stream`.

    Attributes:
        dataset: its train split is read.
        experiment: says how.
    """

    dataset: Dataset
    experiment: Experiment

    @property
    def exact(self) -> bool:
        """True."""
        return True

    @property
    def number(self) -> None:
        """None: a batch may be larger than the set, and spans epochs."""

    def take(self, limit: int) -> dict[str, Any]:
        """Some training examples."""
        return read_examples(self.dataset, "train", limit)

    def batches(self, **place: int) -> Iterator[pipeline.HostBatch]:
        """As `fmjax.data.pipeline.batches`."""
        if self.dataset.snapshots is not None:
            return self.dataset.snapshots.train.batches(**place)
        data = self.experiment.data
        return pipeline.batches(
            self.dataset,
            flip=data.flip,
            threads=data.threads,
            couple=self.experiment.couple,
            **place,
        )
