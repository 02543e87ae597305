"""Distances: how far a prediction is from its target, D(predicted, target, x_t, t) -> (batch,).

The distances here see the difference e = predicted - target alone. One of your own sees all four,
so that it may compare what the two say of the data: on the straight path, x_t + (1 - t) predicted
with x_t + (1 - t) target.

Those here depend on the squared length of e alone, which on a manifold is that of the metric at
x_t: `distance_on` makes them so.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_between, check_positive
from fmjax.conventions import Array, at_least_float32, per_example_sum


class Distance(Protocol):
    """``distance(predicted, target, x_t, t) -> (batch,)``."""

    def __call__(self, predicted: Any, target: Any, x_t: Any, t: Any) -> Float[Array, " batch"]:
        """The distance of each example (batch,), of arrays (batch, ...)."""


def error_of(
    predicted: Float[Array, "*shape"], target: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """predicted - target, (batch, ...), in float32 or wider.

    Args:
        predicted: what a network gave (batch, ...).
        target: what it should have given, at least float32.

    Raises:
        InputError: the shapes differ, or the prediction is not of floats.
    """
    check_returned("apply_fn", predicted, "x", target)
    return at_least_float32(predicted) - target


class SquaredError(NamedTuple):
    """How long the errors of a batch are.

    Attributes:
        square: the squared length of each example's error (batch,).
        features: how many numbers it is summed over.
    """

    square: Float[Array, " batch"]
    features: int


class OfLength(ABC):
    """A distance that depends on the squared length of the error alone."""

    @abstractmethod
    def of_square(self, error: SquaredError) -> Float[Array, " batch"]:
        """Distances (batch,)."""

    def __call__(
        self,
        predicted: Float[Array, " batch *shape"],
        target: Float[Array, " batch *shape"],
        x_t: Any = None,
        t: Any = None,
    ) -> Float[Array, " batch"]:
        """Distances (batch,) of arrays (batch, ...)."""
        del x_t, t
        error = error_of(predicted, target)
        return self.of_square(SquaredError(per_example_sum(jnp.square(error)), error[0].size))


def distance_on(path: Any, distance: Distance | None) -> Distance:
    """The distance as a loss on a path measures it: the path's own if None.

    Of a path on a manifold, one that depends on the length of the error alone takes its length in
    the metric.

    Args:
        path: with ``squared_error(predicted, target, x_t, t)``, where it has its own lengths.
        distance: one of this module, one of your own, or None.
    """
    if distance is None:
        return path.distance
    if not (isinstance(distance, OfLength) and hasattr(path, "squared_error")):
        return distance
    return lambda *compared: distance.of_square(path.squared_error(*compared))


def squared(
    predicted: Float[Array, " batch *shape"],
    target: Float[Array, " batch *shape"],
    x_t: Any = None,
    t: Any = None,
) -> Float[Array, " batch"]:
    """The mean squared error over the features, ``||e||^2 / d``: (batch, ...) -> (batch,)."""
    del x_t, t
    error = error_of(predicted, target)
    return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))


@dataclass(frozen=True)
class PseudoHuber(OfLength):
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

    def of_square(self, error: SquaredError) -> Float[Array, " batch"]:
        """Distances (batch,)."""
        square = error.square
        c = 0.00054 * (error.features**0.5) if self.c is None else self.c
        # sqrt(s + c^2) - c without the cancellation at small errors.
        return square / (jnp.sqrt(square + c**2) + c)


@dataclass(frozen=True)
class Adaptive(OfLength):
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

    def of_square(self, error: SquaredError) -> Float[Array, " batch"]:
        """Weighted errors (batch,)."""
        square = error.square
        return square / jax.lax.stop_gradient((square + self.c) ** self.power)
