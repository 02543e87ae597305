"""Distances: the size of the error of each example, D(e) of e (batch, ...)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fmjax.checks import check_between, check_positive
from fmjax.conventions import Array

Distance = Callable[[Array], Array]
"""From errors (batch, ...) to one number per example (batch,)."""


def _sum_of_squares(error: Array) -> Array:
    return jnp.sum(jnp.square(error), axis=tuple(range(1, error.ndim)))


def squared(error: Array) -> Array:
    """The mean squared error over the features, ``||e||^2 / d``: (batch, ...) -> (batch,)."""
    return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))


@dataclass(frozen=True)
class PseudoHuber:
    """The pseudo-Huber distance: quadratic below c, linear above, smooth everywhere.

    D(e) = sqrt(||e||^2 + c^2) - c, with ||e||^2 summed over the d features. Source: Song and
    Dhariwal, arXiv:2310.14189, section 3.3, where c = 0.00054 sqrt(d).

    Args:
        c: where it turns linear, positive; 0.00054 sqrt(d) if None.

    Raises:
        InputError: c is not positive.
    """

    c: float | None = None

    def __post_init__(self):
        if self.c is not None:
            check_positive("c of the pseudo-Huber distance", self.c)

    def __call__(self, error: Array) -> Array:
        """Distances (batch,) of errors (batch, ...)."""
        c = 0.00054 * (error[0].size ** 0.5) if self.c is None else self.c
        square = _sum_of_squares(error)
        # sqrt(s + c^2) - c without the cancellation at small errors.
        return square / (jnp.sqrt(square + c**2) + c)


@dataclass(frozen=True)
class Adaptive:
    """The squared error divided by a power of itself, the divisor taken as a constant.

    D(e) = ||e||^2 / stop_gradient(||e||^2 + c)^p, with ||e||^2 summed over the features: p = 0 is
    the squared error, p = 0.5 has the gradient of a pseudo-Huber distance. Source: Geng et al.,
    arXiv:2505.13447, eq. (22) and the text after it.

    Args:
        power: p, in [0, 1].
        c: positive; keeps the weight of small errors finite.

    Raises:
        InputError: power lies outside [0, 1], or c is not positive.
    """

    power: float = 1.0
    c: float = 1e-3

    def __post_init__(self):
        check_between("the power of the adaptive weight", self.power, 0, 1)
        check_positive("c of the adaptive weight", self.c)

    def __call__(self, error: Array) -> Array:
        """Weighted errors (batch,) of errors (batch, ...)."""
        square = _sum_of_squares(error)
        return square / jax.lax.stop_gradient((square + self.c) ** self.power)
