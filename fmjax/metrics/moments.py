"""Count, mean and covariance of features that come in batches, in float64 on the host.

The sums of squares are taken about the mean of each part, and parts are merged by Chan's formula
(Chan, Golub and LeVeque, 1979): with d = mean_b - mean_a,

    mean = mean_a + d n_b / (n_a + n_b),     scatter = scatter_a + scatter_b + d dᵀ n_a n_b / n.

So no digits are lost to a large mean, and the result does not depend on how rows were split among
batches or processes, but for rounding.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Float64, Real
from numpy.typing import ArrayLike

from fmjax.errors import InputError
from fmjax.metrics.rows import as_rows


class Gaussian(NamedTuple):
    """A mean ``(d,)`` and a covariance ``(d, d)``, float64."""

    mean: Float[np.ndarray, " _features"]
    covariance: Float[np.ndarray, "_features _features"]


class Moments(NamedTuple):
    """What is kept of a set of features.

    Attributes:
        count: how many examples.
        mean: ``(d,)`` float64.
        scatter: the sum of (x - mean)(x - mean)ᵀ over the examples, ``(d, d)`` float64.
    """

    count: int  # type: ignore[assignment]  # it hides tuple.count
    mean: Float64[np.ndarray, " _features"]
    scatter: Float64[np.ndarray, "_features _features"]

    def gaussian(self) -> Gaussian:
        """The mean and the unbiased covariance.

        Raises:
            InputError: there are fewer than two examples.
        """
        if self.count < 2:
            raise InputError(f"a covariance needs at least 2 examples, got {self.count}.")
        return Gaussian(self.mean, self.scatter / (self.count - 1))


def moments_of(rows: Real[np.ndarray, "n ..."] | ArrayLike) -> Moments:
    """The moments of a batch of features, ``(n, d)``; images are flattened.

    Raises:
        InputError: there is no example, or one is not finite.
    """
    rows = as_rows(rows, "features").astype(np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    return Moments(len(rows), mean, centred.T @ centred)


def no_moments(features: int) -> Moments:
    """The moments of no example with so many features, which change nothing that they join."""
    return Moments(0, np.zeros(features), np.zeros((features, features)))


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """The moments of several sets together.

    Args:
        parts: of disjoint sets in the same features, at least one.

    Raises:
        InputError: there is none, or they differ in their number of features.

    Example:
        >>> a, b = moments_of([[0.0], [2.0]]), moments_of([[7.0]])
        >>> merge_moments([a, b])
        Moments(count=3, mean=array([3.]), scatter=array([[26.]]))
    """
    parts = list(parts)
    if not parts:
        raise InputError("moments to merge must be at least one, got none.")
    sizes = sorted({part.mean.shape for part in parts})
    if len(sizes) > 1:
        raise InputError(f"moments to merge must have the same features, got {sizes}.")
    return functools.reduce(_merge, parts)


def _merge(a: Moments, b: Moments) -> Moments:
    count = a.count + b.count
    if not a.count or not b.count:
        return a if a.count else b
    apart = b.mean - a.mean
    mean = a.mean + apart * (b.count / count)
    between = np.outer(apart, apart) * (a.count * b.count / count)
    return Moments(count, mean, a.scatter + b.scatter + between)


def merge_over_processes(part: Moments) -> Moments:
    """The moments of what all processes hold together; called by all, and the same on all."""
    if jax.process_count() == 1:
        return part
    flat = np.concatenate([[float(part.count)], part.mean, part.scatter.ravel()])
    # As bytes: jax would round float64 to float32 on the way.
    gathered = multihost_utils.process_allgather(flat.view(np.uint8))
    d = len(part.mean)
    rows = np.ascontiguousarray(gathered).view(np.float64)
    return merge_moments(
        Moments(int(row[0]), row[1 : d + 1], row[d + 1 :].reshape(d, d)) for row in rows
    )
