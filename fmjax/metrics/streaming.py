"""A stream of examples as what the figures need: moments of all, and the features of some.

Nothing grows with the number of examples: the moments take d² numbers, and at most ``keep`` rows of
features stay, a random choice. The examples are split into two random halves, because a distance
means little without that between two halves of the real data.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Real, Shaped

from fmjax.checks import check_at_least
from fmjax.errors import InputError
from fmjax.metrics.features import Features
from fmjax.metrics.moments import (
    Moments,
    merge_moments,
    merge_over_processes,
    moments_of,
    no_moments,
)

KEPT = 2000  # rows of features
_BLOCK = 4096  # rows of features that are made one update of the moments


class Collected(NamedTuple):
    """What is kept of a set of examples.

    Attributes:
        halves: the moments of two random halves, over all processes.
        rows: features of some examples of either half, ``(k, d)``, in random order; of this
            process's own.
        digest: a sha256 of the examples in their order.
    """

    halves: tuple[Moments, Moments]
    rows: tuple[Real[np.ndarray, "_n features"], Real[np.ndarray, "_m features"]]
    digest: str

    @property
    def whole(self) -> Moments:
        """The moments of both halves together."""
        return merge_moments(self.halves)

    @property
    def all_rows(self) -> Real[np.ndarray, "n features"]:
        """The rows of both halves."""
        return np.concatenate(self.rows)


def collect(
    features: Features,
    batches: Iterable[Shaped[np.ndarray, "batch ..."]],
    count: int,
    *,
    keep: int = KEPT,
    dims: int | None = None,
) -> Collected:
    """Runs through a set of examples once.

    Args:
        features: to take of each example.
        batches: examples ``(b, ...)``, the same on all processes; each process takes its share.
        count: how many examples there are in all.
        keep: how many rows of features to keep, on each process.
        dims: how many features there must be, because something else has so many; None for any.

    Returns:
        What is kept, in float64 moments; the halves and the kept rows depend on the place of an
        example alone, not on the batches.

    Raises:
        InputError: there are fewer than four examples a process, or not as many as was said; they
            change their shape; the features are not finite, or of another number.
    """
    check_count(count)
    order = np.random.default_rng(0).permutation(count)
    total = hashlib.sha256()
    halves: list[Moments] = []
    kept: tuple[list, list] = ([], [])  # rows of features with their ranks, of either half
    for rows, ranks in _blocks(_in_features(features, batches, order, total)):
        if dims not in (None, rows.shape[1]):
            raise InputError(
                f"{features.name} gives {rows.shape[1]} features of these examples, and {dims} of "
                "those that they are compared with; give examples of the same shape."
            )
        halves = halves or [no_moments(rows.shape[1])] * 2
        for half in (0, 1):
            here = ranks % 2 == half
            if here.any():
                halves[half] = merge_moments([halves[half], moments_of(rows[here])])
            chosen = here & (ranks < keep * jax.process_count())
            kept[half].append((rows[chosen], ranks[chosen]))
    return Collected(
        (merge_over_processes(halves[0]), merge_over_processes(halves[1])),
        (_in_order(*_joined(kept[0])), _in_order(*_joined(kept[1]))),
        total.hexdigest(),
    )


def _in_order(
    rows: Real[np.ndarray, "n features"], ranks: Int[np.ndarray, " n"]
) -> Real[np.ndarray, "n features"]:
    """The rows by their random ranks: then the first few of a set sorted by class are mixed."""
    return rows[np.argsort(ranks)]


def check_count(count: int) -> None:
    """Checks that there are examples enough for two halves that have covariances, on each process.

    Raises:
        InputError: there are not.
    """
    check_at_least("the number of examples", count, 4 * jax.process_count())


def _in_features(
    features: Features,
    batches: Iterable[np.ndarray],
    order: Int[np.ndarray, " n"],
    total: "hashlib._Hash",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The features of this process's examples, and the random rank of each."""
    start, shape = 0, None
    for batch in map(np.asarray, batches):
        shape = shape or batch.shape[1:]
        if batch.shape[1:] != shape:
            raise InputError(
                f"all examples must have one shape; got {batch.shape[1:]} after {shape}."
            )
        total.update(np.ascontiguousarray(batch).data)
        places = np.arange(start, start + len(batch))
        start += len(batch)
        if start > len(order):
            break
        mine = places % jax.process_count() == jax.process_index()
        if mine.any():
            yield features(batch[mine]), order[places[mine]]
    if start != len(order):
        raise InputError(
            f"the examples must be as many as was said, {len(order)}; got {start} or more."
        )


def _blocks(
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Small parts joined: an update of the moments costs d² numbers however few rows it has."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for part in parts:
        waiting.append(part)
        if sum(len(rows) for rows, _ in waiting) >= _BLOCK:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(
    parts: list[tuple[Real[np.ndarray, "_n features"], Int[np.ndarray, " _n"]]],
) -> tuple[Real[np.ndarray, "n features"], Int[np.ndarray, " n"]]:
    rows, ranks = zip(*parts, strict=True)
    return np.concatenate(rows), np.concatenate(ranks)
