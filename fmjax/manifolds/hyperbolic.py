"""Hyperbolic space.

All is written in differences of points and in 1 - |x|^2, and nothing as a small difference of large
numbers: near the boundary float32 has little room between a point and 1.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.conventions import Array
from fmjax.manifolds import even
from fmjax.manifolds.base import OfDimension, dot, eps_of


@dataclass(frozen=True)
class Hyperbolic(OfDimension):
    """The Poincare ball |x| < 1 of R^n, of curvature -1: |u|_x = 2 |u| / (1 - |x|^2).

    Points are kept within the radius 1 - 100 eps, in float32 a distance of 12 from the centre. A
    rounding moves a point by 0.005 there, and by 1e-5 at a distance of 6.

    Args:
        n: the dimension.

    Raises:
        InputError: n is no whole number of at least 1.
    """

    @property
    def volume(self) -> float:
        """Infinite."""
        return math.inf

    @property
    def origin(self) -> Float[Array, " {self.n}"]:
        """Zeros, the centre of the ball."""
        return jnp.zeros(self.shape)

    _of = "inside of the unit ball"

    def _exp(self, x, u):
        gap = _gap(x)
        half = u / gap  # half the length of u in the metric, with its direction
        square = dot(half, half)[..., None]
        v = even.tanh_over(square) * half
        s = x + v
        s2 = dot(s, s)[..., None]
        below = s2 + gap * even.sech_squared(square)
        return self._project((s2 * x + gap * s) / jnp.maximum(below, eps_of(x) ** 2))

    def _log(self, x, y):
        gap, other = _gap(x), _gap(y)
        step = y - x
        d2 = dot(step, step)[..., None]
        q = d2 / (gap * other)  # sinh(dist / 2)^2
        w = (gap * step - d2 * x) / (d2 + gap * other)  # of length tanh(dist / 2)
        return gap * even.asinh_over(q) * jnp.sqrt(1 + q) * w

    def _dist(self, x, y):
        step = y - x
        return 2 * jnp.arcsinh(even.root(dot(step, step) / (_gap(x) * _gap(y))[..., 0]))

    def _inner(self, x, u, v):
        gap = _gap(x)
        return 4 * dot(u / gap, v / gap)

    def _project(self, x):
        most = 1 - 100 * eps_of(x)
        radius = even.root(dot(x, x))[..., None]
        outside = radius > most
        return jnp.where(outside, x * (most / jnp.where(outside, radius, 1)), x)

    def _to_tangent(self, x, u):
        return u

    def _transport(self, x, y, u):
        # Gyration of y and -x, with y = x + step; see Ungar, Analytic Hyperbolic Geometry, ch. 3.
        step = y - x
        gap, other = _gap(x), _gap(y)
        d2, xu, du = (dot(a, b)[..., None] for a, b in ((step, step), (x, u), (step, u)))
        x2 = dot(x, x)[..., None]
        change = du * (gap * x - x2 * step) - xu * (other * step + d2 * y)
        return (other / gap) * (u + 2 * change / (d2 + gap * other))

    def _tangent(self, x, coordinates):
        return coordinates * _gap(x) / 2

    def _log_volume_element(self, x):
        # Not of `_gap`, whose second derivative is 0 at the centre.
        return -self.n * jnp.log(jnp.maximum(1 - dot(x, x), 200 * eps_of(x)))

    def _log_det_exp(self, x, u):
        return (self.n - 1) * even.log_sinh_over(self._inner(x, u, u))

    def _off(self, x):
        return jnp.maximum(even.root(dot(x, x)) - 1, 0)


def _gap(x: Float[Array, "... n"]) -> Float[Array, "... 1"]:
    """1 - |x|^2 (..., 1), at least what it is at the largest radius."""
    radius = even.root(dot(x, x))[..., None]
    return jnp.maximum((1 - radius) * (1 + radius), 200 * eps_of(x))
