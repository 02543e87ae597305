"""Couplings on the host, in numpy: pairing in the data threads while the device trains.

The same couplings as `exact` in a compiled program, for a pipeline that reads ahead: the device
never waits for a pairing that ended before it needed the batch.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Real

from fmjax.array_checks import check_leading_size, check_pairs
from fmjax.checks import check_at_least, check_multiple
from fmjax.couplings.conditions import NearConditions, SameClass, pick
from fmjax.couplings.cost import check_memory, geodesic_cost
from fmjax.errors import InputError
from fmjax.manifolds import Manifold
from fmjax.numerics.host_assignment import least_cost_columns


def host_exact(
    x0: Real[np.ndarray, " n *features"],
    x1: Real[np.ndarray, " n *features"],
    labels: Any = None,
    conditions: Any = None,
    *,
    manifold: Manifold | None = None,
) -> Real[np.ndarray, " n *features"]:
    """Minibatch optimal transport in numpy: x0 in the order of least total squared distance.

    Solved by `fmjax.numerics.host_assignment`, in float64.

    Args:
        x0: source points (n, ...).
        x1: data (n, ...).
        labels: numpy conditions of x1 (a pytree), needed with `conditions`.
        conditions: `SameClass` or `NearConditions`, with the meaning they have in `exact`.
        manifold: where the points are, for squared lengths of geodesics, which jax computes on its
            CPU; None in flat space.

    Returns:
        x0 (n, ...) permuted, in its dtype: row j belongs to x1[j].

    Raises:
        InputError: shapes differ, a value is not finite or off the manifold, the cost matrix would
            be too large, or conditions are asked without labels.
    """
    x0, x1 = np.asarray(x0), np.asarray(x1)
    check_pairs(x0, x1)
    if isinstance(conditions, SameClass):
        condition = _condition_rows(conditions, labels, len(x1))
        return x0[_within_classes(x0, x1, condition, manifold)]
    cost = _cost(x0, x1, manifold)
    if isinstance(conditions, NearConditions):
        cost = _weighted(cost, conditions, _condition_rows(conditions, labels, len(x1)))
    elif conditions is not None:
        raise InputError(f"conditions must be SameClass or NearConditions; got {conditions!r}.")
    return x0[least_cost_columns(cost.T)]


def _cost(x0: np.ndarray, x1: np.ndarray, manifold: Manifold | None) -> np.ndarray:
    """Squared distances (n, n), float64."""
    if manifold is not None:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return np.asarray(geodesic_cost(manifold, x0, x1), np.float64)
    check_memory(len(x0), 8)
    a = x0.reshape(len(x0), -1).astype(np.result_type(x0, x1, np.float32))
    return _squared(a, x1.reshape(len(x1), -1).astype(a.dtype))


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (n, n), in float64: the search works in it anyway."""
    from scipy.spatial.distance import cdist

    if a.shape[1] <= 16:
        return cdist(a, b, "sqeuclidean")
    middle = b.mean(axis=0)
    a, b = a - middle, b - middle
    cost = -2.0 * (a @ b.T)
    cost = cost + np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)
    return np.maximum(cost, 0).astype(np.float64)


def _condition_rows(conditions: SameClass | NearConditions, labels: Any, batch: int) -> np.ndarray:
    c = np.asarray(pick(labels, conditions.of))
    check_leading_size(c, batch)
    return c.reshape(batch, -1)


def _within_classes(
    x0: np.ndarray, x1: np.ndarray, condition: np.ndarray, manifold: Manifold | None
) -> np.ndarray:
    """Class after class: a matrix of blocks is as many small problems."""
    _, name = np.unique(condition, axis=0, return_inverse=True)
    order = np.empty(len(x0), int)
    for label in range(name.max() + 1):
        rows = np.flatnonzero(name.ravel() == label)
        order[rows] = rows[least_cost_columns(_cost(x0[rows], x1[rows], manifold).T)]
    return order


def _weighted(cost: np.ndarray, conditions: NearConditions, c: np.ndarray) -> np.ndarray:
    """The cost with its conditions; the weight of `find_weight` read off the sorted thresholds."""
    c = c.astype(np.float64)
    if conditions.distance == "cosine":
        norm = np.linalg.norm(c, axis=1, keepdims=True)
        unit = c / np.where(norm > 0, norm, 1)
        distance = _squared(unit, unit) / 2
        distance[distance < 1e-6] = 0
    else:
        distance = _squared(c, c)
    gain = np.diagonal(cost)[None, :] - cost
    last = np.divide(gain, distance, out=np.full_like(gain, -np.inf), where=distance > 0)
    last[(distance == 0) & (gain >= 0)] = np.inf
    rank = min(int(conditions.ratio * last.size), last.size - 1)
    weight = -np.partition(-last.ravel(), rank)[rank]
    if weight == np.inf:
        weight = last[np.isfinite(last)].max(initial=0)
    return cost + max(weight, 0) * distance


@dataclass(frozen=True)
class HostCoupling:
    """Draws the noise of a batch and pairs it, for a data pipeline: ``(rng, x1, labels) -> x0``.

    Standard normal x0 shaped as x1, permuted by `host_exact`. It pickles, and holds no state: the
    generator that comes with each batch decides everything. scipy's solver and numpy's kernels
    release Python's lock, so several threads pair several batches at once.

    Args:
        conditions: `SameClass` or `NearConditions`; None pairs without regard to the labels.
        groups: equal contiguous blocks paired each by itself, to bound time and memory.
    """

    conditions: Any = None
    groups: int = 1

    def __post_init__(self):
        check_at_least("groups", self.groups)

    def __call__(
        self, rng: np.random.Generator, x1: Real[np.ndarray, " batch *shape"], labels: Any = None
    ) -> Float32[np.ndarray, " batch *shape"]:
        """Source points for the data x1 (batch, ...), row by row, float32.

        Args:
            rng: the generator of this batch.
            x1: data (batch, ...).
            labels: conditions of x1, numpy, or None.

        Returns:
            x0 (batch, ...), float32, standard normal as a set.

        Raises:
            InputError: as `host_exact`; the groups do not divide the batch.
        """
        check_multiple("the batch", len(x1), self.groups, "groups")
        x0 = rng.standard_normal(x1.shape, dtype=np.float32)
        size = len(x1) // self.groups
        blocks = []
        for first in range(0, len(x1), size):
            rows = slice(first, first + size)
            part = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], labels)
            blocks.append(host_exact(x0[rows], x1[rows], part, self.conditions))
        return np.concatenate(blocks)
