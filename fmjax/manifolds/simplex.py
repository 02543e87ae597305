"""Probabilities of categories, with the Fisher metric."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.manifolds import even
from fmjax.manifolds.base import OfDimension, dot, eps_of
from fmjax.manifolds.sphere import Sphere


@dataclass(frozen=True)
class Simplex(OfDimension):
    """n + 1 probabilities with the Fisher metric <u, v> = sum(u v / p).

    p = z^2 makes it a part of the sphere of radius 2, so that geodesics are great circles of z, no
    two points are more than pi apart, and a geodesic that meets the boundary is reflected there.
    At the boundary these coordinates are singular: where p_i = 0, a tangent vector has no part i.
    So a path may end at a corner, and must begin inside.

    Args:
        n: the dimension, one less than the number of categories.

    Raises:
        InputError: n is no whole number of at least 1.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(n + 1,)."""
        return (self.n + 1,)

    @property
    def volume(self) -> float:
        """Half the volume of the sphere S^n: 2^n of its 2^(n+1) equal parts."""
        return self._sphere.volume / 2

    @property
    def origin(self) -> Float[Array, " {self.n+1}"]:
        """Equal probabilities."""
        return jnp.full(self.shape, 1 / (self.n + 1))

    _of = "probabilities that sum to 1"

    @property
    def _sphere(self) -> Sphere:
        return Sphere(self.n)

    def _exp(self, x, u):
        z = even.root(x)
        return jnp.square(self._sphere._exp(z, _lift(z, u)))

    def _log(self, x, y):
        z = even.root(x)
        return 2 * z * self._sphere._log(z, even.root(y))

    def _dist(self, x, y):
        return 2 * self._sphere._dist(even.root(x), even.root(y))

    def _inner(self, x, u, v):
        z = even.root(x)
        return 4 * dot(_lift(z, u), _lift(z, v))

    def _project(self, x):
        x = jnp.maximum(x, 0)
        total = jnp.sum(x, axis=-1, keepdims=True)
        zero = total < 1e-15  # the derivative has total^-2, which must stay within float32
        return jnp.where(zero, 1 / (self.n + 1), x / jnp.where(zero, 1, total))

    def _to_tangent(self, x, u):
        return u - x * jnp.sum(u, axis=-1, keepdims=True)

    def _transport(self, x, y, u):
        z, end = even.root(x), even.root(y)
        return 2 * end * self._sphere._transport(z, end, _lift(z, u))

    def _tangent(self, x, coordinates):
        # The vectors of the sphere of radius 2 are 2 dz; dp = 2 z dz.
        z = even.root(x)
        return z * self._sphere._tangent(z, coordinates)

    def _uniform(self, key, shape):
        return jnp.square(self._sphere._uniform(key, shape))

    def _log_volume_element(self, x):
        return -0.5 * jnp.sum(jnp.log(jnp.maximum(x, eps_of(x) ** 2)), axis=-1)

    def _wrapped_normal_log_prob(self, x, mean, scale):
        raise InputError(
            "a wrapped normal on the simplex is reflected at its boundary, and its density is not "
            "offered; write manifold.uniform_log_prob, or take Sphere for the square roots."
        )

    def _off(self, x):
        total = jnp.abs(jnp.sum(x, axis=-1) - 1)
        return jnp.maximum(total, jnp.max(-x, axis=-1))


def _lift(z: Float[Array, "*b n"], u: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """The tangent vector dz of the sphere for dp = u; 0 where z counts as 0."""
    inside = z > 1e-9  # the derivative has z^-3, which must stay below the largest float32
    return jnp.where(inside, u / jnp.where(inside, 2 * z, 1), 0)
