"""Snapshots in time as pairs of neighbours: cells, say, that are measured and so destroyed.

Each snapshot is a set of points of its own; none of them is seen twice. A batch takes as many pairs
from each interval between two neighbouring snapshots, and pairs the points of an interval by
minibatch optimal transport: those whose total squared distance is least. The sizes of the snapshots
may differ, and only distributions are compared: that points grow in number or die is not modelled.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from fmjax.array_checks import check_finite
from fmjax.checks import check_between
from fmjax.conditions import ClassIds
from fmjax.data.dataset import Dataset
from fmjax.data.pipeline import HostBatch, whole_batches
from fmjax.errors import InputError
from fmjax.names import named_leaves
from fmjax.numerics.host_assignment import least_cost_columns


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshots:
    """Points at two or more times, in the order of time: a stream of pairs for `fit`.

    Batch k is a function of the seed and of k alone, whatever the number of processes.

    Args:
        points: ``{time: array (n, ...)}`` of any real times and any numbers of points.

    Attributes:
        times: the times as they were given, from the earliest.
        exact: batches are the same wherever the stream starts.

    Raises:
        InputError: there are fewer than two, one is empty or not finite, or their points differ in
            shape.
    """

    points: Mapping[float, Any]
    exact = True

    def __post_init__(self):
        _check(self.points)
        ordered = {
            float(time): np.asarray(self.points[time], np.float32) for time in sorted(self.points)
        }
        object.__setattr__(self, "points", ordered)

    @property
    def times(self) -> tuple[float, ...]:
        """The times as they were given, from the earliest."""
        return tuple(self.points)

    @property
    def number(self) -> int:
        """How many points there are, in all snapshots."""
        return sum(map(len, self.points.values()))

    def scaled(self, time: float) -> float:
        """A time in the flow's own unit; see `Timeline.scaled`."""
        return Timeline(self.times).scaled(time)

    def without(self, *times: float) -> "Snapshots":
        """The other snapshots, so that those at these times can be held out.

        Raises:
            InputError: there is none at a time, it is the first or the last, or too few are left.
        """
        for time in times:
            if time not in self.times[1:-1]:
                raise InputError(
                    f"what is held out must lie between the first and the last snapshot; got "
                    f"{time:g}, and there are {', '.join(f'{t:g}' for t in self.times)}."
                )
        return Snapshots({t: x for t, x in self.points.items() if t not in times})

    def take(self, limit: int) -> HostBatch:
        """At most so many pairs; see `fmjax.data.streams.Stream`."""
        return self.draw(min(limit, self.number), np.random.default_rng(0))

    def batches(
        self, *, global_batch: int, seed: int, start: int, process: int, processes: int
    ) -> Iterator[HostBatch]:
        """Batches from `start` on, without end; see `fmjax.data.streams.Stream`.

        Returns:
            An iterator with a ``close()``, over ``"x0"`` and ``"x1"``, float32 (local, ...),
            ``"labels"``, ``{"interval": (local, 2)}`` with the ends of each pair's interval in the
            flow's unit, and ``"index"``.
        """
        source = _Batches(self, global_batch, seed)
        where = {"start": start, "process": process, "processes": processes}
        return whole_batches(source, global_batch=global_batch, **where)

    def draw(self, number: int, rng: np.random.Generator) -> HostBatch:
        """So many pairs, without their places in the batch."""
        points, times = list(self.points.values()), [self.scaled(t) for t in self.times]
        intervals = len(points) - 1
        # What does not divide goes to intervals drawn anew in each batch.
        sizes = np.full(intervals, number // intervals)
        sizes[rng.permutation(intervals)[: number % intervals]] += 1
        parts = [_paired(rng, points[k], points[k + 1], n) for k, n in enumerate(sizes)]
        both = np.asarray(times, np.float32)
        ends = [np.tile(both[k : k + 2], (n, 1)) for k, n in enumerate(sizes)]
        order = rng.permutation(number)
        x0, x1 = (np.concatenate(side)[order] for side in zip(*parts, strict=True))
        return {"x0": x0, "x1": x1, "labels": {"interval": np.concatenate(ends)[order]}}


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The times of snapshots, and the flow's own unit of time.

    Args:
        times: of the snapshots that a flow goes through, from the earliest.
    """

    times: tuple[float, ...]

    def __post_init__(self):
        for time in self.times:
            check_between("the time of a snapshot", time, -1e9, 1e9)
        if len(self.times) < 2 or list(self.times) != sorted(set(self.times)):
            raise InputError(
                f"the times of snapshots must be two or more, from the earliest; got {self.times}."
            )

    def scaled(self, time: float) -> float:
        """A time in the flow's unit, in which the first snapshot is at 0 and the last at 1.

        Raises:
            InputError: it lies outside.
        """
        first, last = self.times[0], self.times[-1]
        check_between("the time", time, first, last)
        return (time - first) / (last - first)


@dataclasses.dataclass(frozen=True, eq=False)
class SnapshotSplits:
    """The states of a data set at each time.

    Attributes:
        known: the training examples of all snapshots.
        test: held-out examples of all snapshots.
        held_out: the time of a snapshot that no flow is trained on, or None.

    Raises:
        InputError: the snapshot that is held out is not between others.
    """

    known: Snapshots
    test: Snapshots
    held_out: float | None

    def __post_init__(self):
        self.train  # noqa: B018  (a wrong time is refused here)

    @functools.cached_property
    def train(self) -> Snapshots:
        """What a flow is trained on: the known examples without the snapshot that is held out."""
        return self.known if self.held_out is None else self.known.without(self.held_out)


def in_snapshots(dataset: Dataset, held_out: float | None) -> Dataset:
    """A data set whose one condition is the time of each example, as snapshots.

    Args:
        dataset: its condition is a number, or a class whose name is one.
        held_out: the time of a snapshot that is not to be trained on, or None.

    Raises:
        InputError: the times are no numbers, the set is one of pairs or has weights, a snapshot is
            missing in a split, or the one that is held out is not between others.
    """
    paired = hasattr(dataset.train, "read_pairs")
    if paired or getattr(dataset.train, "weights", None) is not None:
        raise InputError(f"{dataset.name} has pairs or weights, which snapshots do without.")
    parts = {}
    for split in ("train", "test"):
        x, labels = dataset.arrays(split)
        times = _times(dataset, labels)
        states = np.asarray(dataset.codec.encode(x))
        parts[split] = Snapshots({time: states[times == time] for time in np.unique(times)})
    if parts["train"].times != parts["test"].times:
        raise InputError(
            f"each snapshot of {dataset.name} must have examples to train on and held-out ones; "
            f"got those at {parts['train'].times} and at {parts['test'].times}."
        )
    splits = SnapshotSplits(parts["train"], parts["test"], held_out)
    return dataclasses.replace(dataset, conditions=None, snapshots=splits)


_MOST_TIMES = 1000


def _times(dataset: Dataset, labels: Any) -> Real[np.ndarray, " n"]:
    """The time of each example, float64 (n,)."""
    (condition,) = named_leaves(dataset.conditions).values()
    (x,) = named_leaves(labels).values()
    if isinstance(condition, ClassIds):
        names = condition.names or tuple(map(str, range(condition.num_classes)))
        try:
            times = np.array([float(name) for name in names])[x]
        except ValueError as error:
            raise InputError(
                f"the times of {dataset.name} must be numbers; got the classes "
                f"{', '.join(names[:5])}."
            ) from error
    else:
        times = np.asarray(x, np.float64)
        times = times[:, 0] if times.shape[1:] == (1,) else times
    if times.ndim != 1 or len(np.unique(times)) > _MOST_TIMES:
        raise InputError(
            f"the time of {dataset.name} must be one number an example, of {_MOST_TIMES} different "
            f"ones at most; got {len(np.unique(times))} in shape {times.shape}."
        )
    return times


@dataclasses.dataclass(frozen=True, eq=False)
class _Batches:
    """Item k is the global batch k, for the threads that read ahead."""

    snapshots: Snapshots
    size: int
    seed: int

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, k: int) -> HostBatch:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(int(k),)))
        return self.snapshots.draw(self.size, rng)


def _paired(
    rng: np.random.Generator,
    before: Float[np.ndarray, " n *shape"],
    after: Float[np.ndarray, " m *shape"],
    number: int,
) -> tuple[Float[np.ndarray, " {number} *shape"], Float[np.ndarray, " {number} *shape"]]:
    """So many points of two snapshots, row by row the pairs of least total squared distance."""
    x0, x1 = (_drawn(rng, x, number) for x in (before, after))
    if not number:
        return x0, x1
    # |a|^2 + |b|^2 are the same for every pairing, so that -2 a b decides.
    a, b = (x.reshape(number, -1).astype(np.float64) for x in (x0, x1))
    return x0[least_cost_columns(-2 * (b - b.mean(0)) @ (a - a.mean(0)).T)], x1


def _drawn(
    rng: np.random.Generator, x: Float[np.ndarray, " n *shape"], number: int
) -> Float[np.ndarray, " {number} *shape"]:
    """Rows drawn without repetition where there are enough, so that each is as likely."""
    whole, rest = divmod(number, len(x))
    chosen = [np.tile(np.arange(len(x)), whole), rng.permutation(len(x))[:rest]]
    return x[np.concatenate(chosen)]


def _check(points: Any) -> None:
    if not isinstance(points, Mapping) or len(points) < 2:
        came = f"{len(points)}" if isinstance(points, Mapping) else type(points).__name__
        raise InputError(f"snapshots must be {{time: points}}, at two or more times; got {came}.")
    shapes = {}
    for time, x in points.items():
        check_between("the time of a snapshot", time, -1e9, 1e9)
        x = np.asarray(x)
        if x.dtype.kind not in "iuf" or x.ndim < 2 or not len(x):
            raise InputError(
                f"the snapshot at {time:g} must have points, floats (n, ...); got {x.dtype} of "
                f"shape {x.shape}."
            )
        check_finite(f"the snapshot at {time:g}", x)
        shapes[time] = x.shape[1:]
    if len(set(shapes.values())) > 1:
        raise InputError(f"the points of all snapshots must have one shape; got {shapes}.")
