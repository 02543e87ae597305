"""Functions of a length r that are smooth in s = r^2, with finite derivatives at s = 0.

sin(r)/r and its kin divide 0 by 0 at r = 0, and the derivative of r = sqrt(s) is infinite there.
Near 0 each is a power series in s; elsewhere it is computed from r. In float64 the series are as
exact as the rest.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.conventions import Array

_BELOW = 0.01  # where the series are used; their first missing term is below 1e-14


def _series(s: Array, coefficients: Sequence[float]) -> Array:
    total = jnp.zeros_like(s)
    for coefficient in reversed(coefficients):
        total = total * s + coefficient
    return total


def _series_or(s: Array, coefficients: Sequence[float], exact: Callable[[Array], Array]) -> Array:
    small = s < _BELOW
    near = _series(jnp.where(small, s, 0), coefficients)
    # Both branches are differentiated: the other one must not see 0.
    return jnp.where(small, near, exact(jnp.sqrt(jnp.where(small, 1, s))))


def root(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """sqrt(s), with the derivative 0 at s = 0; s >= 0."""
    positive = s > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, s, 1)), 0)


def cos(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The cosine of r."""
    series = (1, -1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800)
    return _series_or(s, series, jnp.cos)


def sin_over(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """sin(r) / r."""
    series = (1, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800)
    return _series_or(s, series, lambda r: jnp.sin(r) / r)


def versine_over(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """(1 - cos(r)) / r^2."""
    series = (1 / 2, -1 / 24, 1 / 720, -1 / 40320, 1 / 3628800)
    return _series_or(s, series, lambda r: 2 * jnp.square(jnp.sin(r / 2) / r))


def log_sin_over(s: Float[Array, "*s"], floor: float) -> Float[Array, "*s"]:
    """log(|sin(r)| / r), where |sin(r)| counts as at least `floor`."""
    series = (0, -1 / 6, -1 / 180, -1 / 2835, -1 / 37800, -1 / 467775)
    return _series_or(s, series, lambda r: jnp.log(jnp.maximum(jnp.abs(jnp.sin(r)), floor) / r))


def tanh_over(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """tanh(r) / r."""
    series = (1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075)
    return _series_or(s, series, lambda r: jnp.tanh(r) / r)


def sech_squared(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """1 - tanh(r)^2, without cancellation at large r."""
    series = (1, -1, 2 / 3, -17 / 45, 62 / 315, -1382 / 14175, 21844 / 467775)

    def exact(r):
        decay = jnp.exp(-2 * r)
        return 4 * decay / jnp.square(1 + decay)

    return _series_or(s, series, exact)


def asinh_over(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """asinh(r) / r."""
    series = (1, -1 / 6, 3 / 40, -5 / 112, 35 / 1152, -63 / 2816, 231 / 13312)
    return _series_or(s, series, lambda r: jnp.arcsinh(r) / r)


def atanh_over(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """artanh(r) / r; r < 1."""
    series = (1, 1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13)
    return _series_or(s, series, lambda r: jnp.arctanh(r) / r)


def log_sinh_over(s: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """log(sinh(r) / r), which does not overflow."""
    series = (0, 1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775)
    return _series_or(s, series, lambda r: r + jnp.log1p(-jnp.exp(-2 * r)) - jnp.log(2 * r))


def angle_over_sine(s: Float[Array, "*s"], cosine: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """theta / sin(theta), of s = sin(theta)^2 and the cosine; smooth but at theta = pi."""
    series = (1, -1 / 3, 1 / 5, -1 / 7, 1 / 9, -1 / 11, 1 / 13)
    near = (cosine > 0) & (s < _BELOW * jnp.square(cosine))
    c = jnp.where(near, cosine, 1)
    small = _series(jnp.where(near, s / jnp.square(c), 0), series) / c
    sine = jnp.sqrt(jnp.where(near | (s <= 0), 1, s))
    return jnp.where(near, small, jnp.arctan2(sine, cosine) / sine)
