"""The sphere."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.conventions import Array
from fmjax.manifolds import even
from fmjax.manifolds.base import OfDimension, dot, eps_of, round_log_prob


@dataclass(frozen=True)
class Sphere(OfDimension):
    """The sphere S^n: unit vectors of R^(n+1), with the angle as the distance.

    Antipodal points have infinitely many shortest geodesics. There `log` takes a fixed direction,
    the first one of the frame of `tangent` at x, with length pi.

    Args:
        n: the dimension.

    Raises:
        InputError: n is no whole number of at least 1.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(n + 1,)."""
        return (self.n + 1,)

    @property
    def volume(self) -> float:
        """2 pi^((n+1)/2) / Gamma((n+1)/2)."""
        half = (self.n + 1) / 2
        return 2 * math.pi**half / math.gamma(half)

    @property
    def origin(self) -> Float[Array, " {self.n+1}"]:
        """The last unit vector."""
        return jnp.zeros(self.shape).at[-1].set(1)

    _of = "unit vectors"

    def _exp(self, x, u):
        square = dot(u, u)[..., None]
        return even.cos(square) * x + even.sin_over(square) * u

    def _log(self, x, y):
        step = y - x
        across = step - dot(x, step)[..., None] * x  # of length sin(angle), exact where it is small
        square, cosine = dot(across, across), dot(x, y)
        # In the last roundings before the antipode the direction is noise.
        antipodal = (square < (8 * eps_of(x)) ** 2) & (cosine < 0)
        square = jnp.where(antipodal, 1, square)
        first = jnp.zeros_like(x[..., :-1]).at[..., 0].set(math.pi)
        factor = even.angle_over_sine(square, jnp.where(antipodal, 1, cosine))
        return jnp.where(antipodal[..., None], self._tangent(x, first), factor[..., None] * across)

    def _dist(self, x, y):
        apart, together = y - x, y + x
        return 2 * jnp.arctan2(even.root(dot(apart, apart)), even.root(dot(together, together)))

    def _inner(self, x, u, v):
        return dot(u, v)

    def _project(self, x):
        return normalised(x)

    def _to_tangent(self, x, u):
        return u - dot(x, u)[..., None] * x

    def _transport(self, x, y, u):
        v = self._log(x, y)
        square = dot(v, v)[..., None]
        turn = even.versine_over(square) * v + even.sin_over(square) * x
        return u - dot(v, u)[..., None] * turn

    def _tangent(self, x, coordinates):
        # The reflection that swaps the last unit vector and +x or -x, whichever is farther off.
        sign = jnp.where(x[..., -1:] < 0, -1, 1)
        mirror = jnp.concatenate([x[..., :-1], x[..., -1:] + sign], axis=-1)
        flat = jnp.concatenate([coordinates, jnp.zeros_like(coordinates[..., :1])], axis=-1)
        return flat - 2 * (dot(mirror, flat) / dot(mirror, mirror))[..., None] * mirror

    def _uniform(self, key, shape):
        return normalised(jax.random.normal(key, (*shape, self.n + 1)))

    def _wrapped_normal_log_prob(self, x, mean, scale):
        return round_log_prob(self._dist(mean, x), scale, self.n, radius=1)

    def _off(self, x):
        return jnp.abs(even.root(dot(x, x)) - 1)


def normalised(x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """x / |x| (..., n); the last unit vector for |x| < 1e-30, with the derivative 0."""
    # First divided by its largest element, whose square might overflow, or be 0 in float32.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    zero = largest < 1e-30
    last = jnp.zeros_like(x).at[..., -1].set(1)
    x = jnp.where(zero, last, x / jnp.where(zero, 1, largest))
    return x / jnp.sqrt(dot(x, x))[..., None]
