"""The only module that imports grain: the step-indexed stream of training batches.

Global batch k is a function of the seed and of k alone: whichever process asks, and whether it
began at batch 0 or at batch k, the examples, their order and their augmentation are the same. To
resume is to build the stream again with ``start=k``; there is no iterator state to store.
"""

import collections
import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import Float, Int, Int32, Shaped

from fmjax.array_checks import check_shaped_as
from fmjax.checks import check_at_least, check_between, check_multiple
from fmjax.conventions import Places
from fmjax.data.codecs import Codec
from fmjax.data.dataset import Dataset, Split
from fmjax.data.resampling import WeightedOrder
from fmjax.data.toys import ToyBatches
from fmjax.errors import InputError

HostBatch = dict[str, Any]

Couple = Callable[
    [
        np.random.Generator,
        Float[np.ndarray, " batch *shape"],
        Shaped[np.ndarray, "batch ..."] | None,
    ],
    Float[np.ndarray, " batch *shape"],
]
"""A coupling on the host: ``couple(rng, x1, labels) -> x0``, one source point per data point."""

_COUPLE = 2  # a spawn key of the seed; the order and the augmentation have streams of their own


def batches(
    dataset: Dataset,
    *,
    global_batch: int,
    seed: int,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    flip: bool = False,
    threads: int = 2,
    couple: Couple | None = None,
) -> Iterator[HostBatch]:
    """One process's rows of the global batches `start`, `start` + 1, ... without end.

    Row j of process p out of P is example ``j * P + p`` of the global batch. Each epoch visits
    every training example once, in an order of its own; a batch may span two epochs. Of n examples
    with weights an epoch visits n, example i floor or ceil of n w_i / sum w times.

    Args:
        dataset: what to read; its train split.
        global_batch: examples in a batch, over all processes.
        seed: of the order and of the augmentation; not negative.
        start: the first global batch.
        process: which process this is, from 0.
        processes: how many there are; must divide `global_batch`.
        flip: mirrors each image left to right with probability one half.
        threads: how many batches are read at the same time; twice as many wait, ready. They
            share Python's lock, so more help only where images are large.
        couple: chooses x0 for this process's rows of each batch, in the threads that read ahead,
            so that its work goes on while the device steps. It is given x1 float32 in the model's
            unit, [-1, 1] for images, and a generator that is a function of the seed, the number of
            the batch and the process alone.

    Returns:
        An iterator with a ``close()``, over dictionaries ``"x1"`` uint8 ``(local, H, W, C)``, or
        float32 ``(local, 2)`` for a toy; ``"labels"`` int32 ``(local,)``, absent where the set has
        none; ``"index"`` int32 ``(local,)``, the positions in the global batch. Pairs, like a
        coupling, add ``"x0"``, states float32; those that a flow made have x1 float32, too.

    Raises:
        InputError: for numbers that do not fit together, a flip asked of anything but pixels, a
            coupling asked of pairs that are stored; at the first batch, for a coupling that gives
            another shape.
    """
    _check_stream(global_batch, seed, start, process, processes, threads)
    if flip and dataset.codec.kind != "pixels":
        raise InputError(
            f"data set {dataset.name!r} has {dataset.codec.kind}, not pixels: flip must be off."
        )
    if couple is not None and hasattr(dataset.train, "read_pairs"):
        raise InputError(f"the pairs in {dataset.name} are coupled already: couple must be None.")
    if dataset.toy is not None:
        source = ToyBatches(dataset.toy, global_batch, seed)
        stream = _whole_stream(source, global_batch, start, process, processes)
    else:
        split = dataset.stored("train")
        stream = _stored_stream(split, global_batch, seed, start, process, processes, flip)
    if couple is not None:
        stream = stream.map_with_index(
            lambda k, batch: _coupled(couple, dataset.codec, batch, (seed, start + k, process))
        )
    return _read_ahead(stream, threads)


def split_batches(
    split: Split,
    *,
    global_batch: int,
    seed: int,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    threads: int = 2,
) -> Iterator[HostBatch]:
    """The batches of a split that is no image set of ours; all else is as in `batches`.

    Args:
        split: its arrays, of x and of labels, may be pytrees of arrays.
        global_batch: as in `batches`, as all that follow.
        seed: of the order.
        start: the first global batch.
        process: which process this is.
        processes: how many there are.
        threads: how many batches are read at the same time.

    Returns:
        An iterator with a ``close()``, over ``"x1"``, ``"index"`` and, where the split has them,
        ``"labels"`` and ``"x0"``.
    """
    _check_stream(global_batch, seed, start, process, processes, threads)
    stream = _stored_stream(split, global_batch, seed, start, process, processes, flip=False)
    return _read_ahead(stream, threads)


def whole_batches(
    source: Any, *, global_batch: int, start: int, process: int, processes: int, threads: int = 2
) -> Iterator[HostBatch]:
    """The batches of a source whose item k is the global batch k; all else is as in `batches`.

    Args:
        source: ``len(source)``, and ``source[k]``, which pickles and which threads may ask at once.
        global_batch: as in `batches`, as all that follow.
        start: the first global batch.
        process: which process this is.
        processes: how many there are.
        threads: how many batches are made at the same time.
    """
    _check_stream(global_batch, 0, start, process, processes, threads)
    return _read_ahead(_whole_stream(source, global_batch, start, process, processes), threads)


def _read_ahead(stream: grain.MapDataset, threads: int) -> Iterator[HostBatch]:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(stream.to_iter_dataset(options))


def _check_stream(global_batch, seed, start, process, processes, threads) -> None:
    for name, value, least in (
        ("the batch size", global_batch, 1),
        ("the seed", seed, 0),
        ("the first batch", start, 0),
        ("the number of processes", processes, 1),
        ("the number of threads", threads, 1),
    ):
        check_at_least(name, value, least)
    check_between("the process", process, 0, processes - 1)
    check_multiple("the batch size", global_batch, processes, "processes")


def _stored_stream(
    split: Split, global_batch, seed, start, process, processes, flip
) -> grain.MapDataset:
    # grain shuffles epoch e with seed + e, so that nearby seeds would share whole epochs, and it
    # takes 32 bits; hashing the seed avoids both.
    order_seed, flip_seed = map(int, np.random.SeedSequence(seed).generate_state(2))
    weights = getattr(split, "weights", None)
    if weights is None:
        order = grain.MapDataset.range(len(split)).shuffle(order_seed).repeat()
    else:
        order = grain.MapDataset.source(WeightedOrder(weights, order_seed))
    if flip:  # keyed by the position in the one global stream
        order = order.random_map(_toss, seed=flip_seed)
    index = rows_of(process, processes, global_batch)
    plans = _Plans(order, index, global_batch, start)
    # Examples are read a whole batch at a time: one by one an ArrayRecord costs thirty times as
    # much, and a step of grain more than a row of a table.
    read = _read_mirrored if flip else _read_plan
    return grain.MapDataset.source(plans).map(lambda plan: read(split, plan, index))


class _Plans:
    """Which examples each batch is of, for one process: an endless source."""

    def __init__(
        self, order: Sequence[Any], index: Int[np.ndarray, " rows"], global_batch: int, start: int
    ):
        self._order, self._index = order, index.tolist()
        self._batch, self._start = global_batch, start

    def __len__(self) -> int:
        return sys.maxsize // self._batch - self._start

    def __getitem__(self, k: int) -> list[Any]:
        first = (self._start + int(k)) * self._batch
        return [self._order[first + i] for i in self._index]


def rows_of(process: int, processes: int, global_batch: int) -> Int32[np.ndarray, " rows"]:
    """The positions in the global batch of one process's rows, int32."""
    return np.arange(process, global_batch, processes, dtype=np.int32)


def _toss(position: int, rng: np.random.Generator) -> tuple[int, bool]:
    """Which example, and whether to mirror it."""
    return position, bool(rng.random() < 0.5)


def _read_plan(split: Split, plan: Places, index: Int[np.ndarray, " rows"]) -> HostBatch:
    return {"index": index.copy(), **read_batch(split, np.array(plan))}


def _read_mirrored(
    split: Split, plan: Sequence[tuple[int, bool]], index: Int[np.ndarray, " rows"]
) -> HostBatch:
    positions, mirrored = map(np.array, zip(*plan, strict=True))
    batch = _read_plan(split, positions, index)
    for name in ("x1", "x0"):
        if mirrored.any() and name in batch:
            batch[name][mirrored] = batch[name][mirrored, :, ::-1]
    return batch


def read_batch(split: Split, positions: Places) -> HostBatch:
    """The examples at some positions: ``"x1"`` and, where there are any, ``"labels"``, ``"x0"``."""
    if hasattr(split, "read_pairs"):
        x0, x1, labels = split.read_pairs(positions)
        batch = {"x0": x0, "x1": x1}
    else:
        x1, labels = split.read(positions)
        batch = {"x1": x1}
    return batch if labels is None else {**batch, "labels": labels}


def _whole_stream(source: Any, global_batch, start, process, processes) -> grain.MapDataset:
    """A process's rows of the batches of a source whose item k is the global batch k."""
    index = np.arange(global_batch, dtype=np.int32)

    def rows(batch: HostBatch) -> HostBatch:
        whole = {**batch, "index": index}
        return jax.tree.map(lambda leaf: np.ascontiguousarray(leaf[process::processes]), whole)

    return grain.MapDataset.source(source)[start:].map(rows)


def _coupled(
    couple: Couple, codec: Codec, batch: HostBatch, place: tuple[int, int, int]
) -> HostBatch:
    """The batch with the coupling's x0; `place` is its seed, its number and its process."""
    seed, k, process = place
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_COUPLE, k, process)))
    x1 = codec.encode(batch["x1"])
    x0 = np.asarray(couple(rng, x1, batch.get("labels")), np.float32)
    check_shaped_as("x0 from couple", x0, "x1", x1.shape)
    return {**batch, "x0": x0}


@contextlib.contextmanager
def closed(iterator: Iterator) -> Iterator[None]:
    """Closes an iterator at the end, if it can be closed: a generator, whose threads then stop."""
    try:
        yield
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def in_rows(iterator: Iterator[HostBatch], calls: int) -> Iterator[HostBatch]:
    """Stacks so many batches in a row along a new leading axis; 1 leaves them as they are."""
    if calls == 1:
        return iterator

    def stacked() -> Iterator[HostBatch]:
        with closed(iterator):
            while True:
                row = list(itertools.islice(iterator, calls))
                if len(row) < calls:  # the iterator has ended
                    return
                yield jax.tree.map(lambda *leaves: np.stack(leaves), *row)

    return stacked()


class DevicePrefetch:
    """An iterator that keeps batches on the device ahead of the step that consumes them.

    Transfers are asynchronous, so `place` returns at once and no thread is needed here; reading
    ahead on the host is the work of the threads of `batches`.

    Attributes:
        waited: seconds the consumer has spent in ``next`` so far, waiting for the host.
    """

    def __init__(
        self, iterator: Iterator[HostBatch], place: Callable[[HostBatch], Any], size: int = 2
    ):
        """Args as in `device_prefetch`."""
        check_at_least("size, the batches that wait on the device,", size)
        self.waited = 0.0
        self._iterator, self._place, self._size = iterator, place, size
        self._ready: collections.deque = collections.deque()

    def __iter__(self) -> "DevicePrefetch":
        return self

    def __next__(self) -> Any:
        began = time.perf_counter()
        self._fill()
        self.waited += time.perf_counter() - began
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def _fill(self) -> None:
        # One more than `size`, because the first of them leaves at once.
        while len(self._ready) <= self._size:
            try:
                self._ready.append(self._place(next(self._iterator)))
            except StopIteration:
                break

    def peek(self) -> Any:
        """The batch that comes next, which stays; None at the end."""
        self._fill()
        return self._ready[0] if self._ready else None

    def close(self) -> None:
        """Stops the threads of the iterator and lets go of the batches; safe to call twice."""
        self._ready.clear()
        if hasattr(self._iterator, "close"):
            self._iterator.close()


def device_prefetch(
    iterator: Iterator[HostBatch], place: Callable[[HostBatch], Any], size: int = 2
) -> DevicePrefetch:
    """Keeps `size` batches on the device ahead of the consumer, and measures its waiting.

    Args:
        iterator: numpy batches.
        place: puts one batch on the device, or on all of them, and returns it.
        size: how many placed batches wait.

    Returns:
        An iterator over placed batches, with the attribute ``waited`` (seconds) and ``close()``.

    Raises:
        InputError: for a size below 1.
    """
    return DevicePrefetch(iterator, place, size)
