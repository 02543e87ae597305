"""What `fmjax.training.fit` trains on, whatever it came as: a stream of global batches.

==============================================  ====================================================
arrays, or a dictionary of them                 held in memory; batch k is a function of the seed;
                                                "weights" among them say how often each is visited
anything with ``len(data)`` and ``data[k]``     read one by one in threads; batch k as well
an iterator or iterable of batches              taken in turn: it cannot be resumed exactly
anything with the methods of `Stream`           as it is
==============================================  ====================================================
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from fmjax.checks import check_multiple
from fmjax.data import pipeline
from fmjax.data.arrays import ArrayPairs, ArraySplit, check_rows
from fmjax.data.dataset import Split
from fmjax.data.items import ItemPairs, ItemSplit, by_parts
from fmjax.data.pipeline import HostBatch
from fmjax.data.resampling import check_weights
from fmjax.errors import InputError


@runtime_checkable
class Stream(Protocol):
    """Batches of examples."""

    @property
    def exact(self) -> bool:
        """Whether batch k is the same wherever the stream starts."""

    @property
    def number(self) -> int | None:
        """How many examples there are, None where that is not known."""

    def take(self, limit: int) -> HostBatch:
        """At most so many examples, at least one, the same at every call: a batch, no index."""

    def batches(
        self, *, global_batch: int, seed: int, start: int, process: int, processes: int
    ) -> Iterator[HostBatch]:
        """As `fmjax.data.pipeline.batches`."""


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedStream:
    """The batches of a split, in an order of each epoch's own.

    Attributes:
        split: what is read.
        threads: how many batches are read at the same time.
    """

    split: Split
    threads: int = 2
    exact = True

    @property
    def number(self) -> int:
        """How many examples there are."""
        return len(self.split)

    def take(self, limit: int) -> HostBatch:
        """A fixed random choice of the examples, in their order."""
        chosen, n = np.arange(self.number), min(limit, self.number)
        if n < self.number:
            chosen = np.sort(np.random.default_rng(0).choice(self.number, n, replace=False))
        return pipeline.read_batch(self.split, chosen)

    def batches(self, **place: int) -> Iterator[HostBatch]:
        """As `fmjax.data.pipeline.split_batches`."""
        return pipeline.split_batches(self.split, threads=self.threads, **place)


@dataclasses.dataclass(eq=False)
class IteratorStream:
    """The batches of an iterable, as they come; one that can be had again begins anew at its end.

    Attributes:
        iterable: of arrays (batch, ...), or dictionaries of x and, if any, labels and x0. Of
            several processes each gives its own rows.
    """

    iterable: Iterable
    exact = False
    number = None

    def __post_init__(self):
        self._iterator = iter(self._parsed())

    def _parsed(self) -> Iterator[HostBatch]:
        given, checked = iter(self.iterable), False
        while True:
            empty = True
            for batch in given:
                parts, empty = by_parts("each batch", batch), False
                if not checked:
                    check_rows("a batch", parts)
                    checked = True
                yield {"x1" if name == "x" else name: x for name, x in parts.items()}
            if empty or given is self.iterable:
                return
            given = iter(self.iterable)

    def take(self, limit: int) -> HostBatch:
        """The first rows of the next batch, which stays."""
        first = next(self._iterator, None)
        if first is None:
            raise InputError("the data must give at least one batch; the iterator gave none.")
        self._iterator = itertools.chain([first], self._iterator)
        return jax.tree.map(lambda x: x[:limit], first)

    def batches(
        self, *, global_batch: int, seed: int, start: int, process: int, processes: int
    ) -> Iterator[HostBatch]:
        """The batches that are left, in turn, whatever the seed and the start."""
        check_multiple("the batch size", global_batch, processes, "processes")
        index = pipeline.rows_of(process, processes, global_batch)
        for batch in self._iterator:
            found = len(jax.tree.leaves(batch)[0])
            if found != len(index):
                raise InputError(
                    f"the iterator gives batches of {found} examples, and batch_size="
                    f"{global_batch} needs {len(index)}: write batch_size={found * processes}, and "
                    "drop a last batch that is smaller."
                )
            yield {**batch, "index": index}


def as_stream(data: Any, threads: int = 2, what: str = "data") -> Stream:
    """The batches of data.

    Args:
        data: arrays, a dictionary of them, an indexable source, or an iterable; see above.
        threads: how many batches are read at the same time.
        what: the data, as a message names it.

    Raises:
        InputError: it is none of these, has no examples, or is not finite.
    """
    if isinstance(data, Stream):
        return data
    if isinstance(data, dict) or (hasattr(data, "shape") and hasattr(data, "dtype")):
        return IndexedStream(_array_split(what, data), threads)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return IndexedStream(_item_split(what, data), threads)
    if hasattr(data, "__iter__"):
        return IteratorStream(data)
    raise InputError(
        f"{what} must be an array, a dictionary of arrays such as {{'x': x, 'labels': labels}}, "
        "anything with len() and [k] that gives one example, or an iterable of batches; got "
        f"{type(data).__name__}."
    )


def _array_split(what: str, given: Any) -> ArraySplit:
    weights = None
    if isinstance(given, dict):
        given, weights = dict(given), given.get("weights")
        given.pop("weights", None)
    parts = by_parts(what, given)
    count = check_rows(what, parts)
    if weights is not None:
        weights = check_weights(f"the weights of {what}", np.asarray(weights), count)
    return (ArrayPairs if "x0" in parts else ArraySplit)(**parts, weights=weights)


def _item_split(what: str, source: Any) -> ItemSplit:
    if not 1 <= len(source) < sys.maxsize:
        found = "none" if len(source) < 1 else "no end: leave its repeat() out, fit has its own"
        raise InputError(f"{what} must have a number of examples, at least one; got {found}.")
    split = ItemSplit(source)
    first = split.stacked([0])
    check_rows(what, first)
    return ItemPairs(source) if "x0" in first else split
