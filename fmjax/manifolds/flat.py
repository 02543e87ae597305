"""Flat manifolds: Euclidean space and the torus."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_at_least
from fmjax.conventions import Array
from fmjax.manifolds.base import Manifold, OfDimension, dot, normal_log_prob, windings


@dataclass(frozen=True)
class Euclidean(Manifold):
    """R^n, or arrays of any shape: exp(x, u) = x + u.

    Args:
        size: n, or the shape of one point, such as ``(8, 8, 1)``.

    Raises:
        InputError: a size is no whole number of at least 1.
    """

    size: int | tuple[int, ...]

    def __post_init__(self):
        for size in self.size if isinstance(self.size, tuple) else (self.size,):
            check_at_least("the size of Euclidean", size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one point."""
        return self.size if isinstance(self.size, tuple) else (self.size,)

    @property
    def dim(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def volume(self) -> float:
        """Infinite."""
        return math.inf

    @property
    def origin(self) -> Float[Array, "*shape"]:
        """Zeros."""
        return jnp.zeros(self.shape)

    def _exp(self, x, u):
        return x + u

    def _log(self, x, y):
        return y - x

    def _inner(self, x, u, v):
        return jnp.sum(u * v, axis=tuple(range(-len(self.shape), 0)))

    def _project(self, x):
        return x

    def _to_tangent(self, x, u):
        return u

    def _transport(self, x, y, u):
        return u

    def _tangent(self, x, coordinates):
        return coordinates.reshape(x.shape)

    def _log_det_exp(self, x, u):
        return jnp.zeros(self._batch(x), x.dtype)

    def _off(self, x):
        return jnp.zeros(self._batch(x), x.dtype)


@dataclass(frozen=True)
class Torus(OfDimension):
    """n angles in radians: a point is given up to multiples of 2 pi, and `project` takes [-pi, pi].

    Angles half a turn apart have two shortest geodesics; `log` takes the one in the direction of
    y - x as the numbers stand.

    Args:
        n: the number of angles.

    Raises:
        InputError: n is no whole number of at least 1.
    """

    @property
    def volume(self) -> float:
        """(2 pi)^n."""
        return (2 * math.pi) ** self.n

    @property
    def origin(self) -> Float[Array, " {self.n}"]:
        """Zeros."""
        return jnp.zeros(self.shape)

    _of = "angles in radians between -2 pi and 2 pi"

    def _advice(self, what: str) -> str:
        return f"Write jnp.deg2rad({what}) for degrees, or manifold.project({what}) for radians."

    def _exp(self, x, u):
        return _wrap(x + u)

    def _log(self, x, y):
        return _wrap(y - x)

    def _inner(self, x, u, v):
        return dot(u, v)

    def _project(self, x):
        return _wrap(x)

    def _to_tangent(self, x, u):
        return u

    def _transport(self, x, y, u):
        return u

    def _tangent(self, x, coordinates):
        return coordinates

    @property
    def ambient_shape(self) -> tuple[int, ...]:
        """(2 n,), the cosines and then the sines."""
        return (2 * self.n,)

    def _ambient(self, x):
        return jnp.concatenate([jnp.cos(x), jnp.sin(x)], axis=-1)

    def _pull_back(self, x, w):
        return jnp.cos(x) * w[..., self.n :] - jnp.sin(x) * w[..., : self.n]

    def _from_ambient(self, w):
        return jnp.arctan2(w[..., self.n :], w[..., : self.n])

    def _uniform(self, key, shape):
        return jax.random.uniform(key, (*shape, self.n), minval=-math.pi, maxval=math.pi)

    def _wrapped_normal_log_prob(self, x, mean, scale):
        square = jnp.square(windings(self._log(mean, x)))
        each = normal_log_prob(square, scale[..., None, None], 1)
        return jnp.sum(jax.nn.logsumexp(each, axis=-1), axis=-1)

    def _off(self, x):
        return jnp.max(jnp.maximum(jnp.abs(x) - 2 * math.pi, 0), axis=-1)


def _wrap(angle: Any) -> Array:
    """The angle in [-pi, pi]; one that lies there stays as it is."""
    turn = 2 * math.pi
    return angle - turn * jnp.round(angle / turn)
