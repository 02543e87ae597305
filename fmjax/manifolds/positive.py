"""Symmetric positive definite matrices."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_at_least
from fmjax.conventions import Array
from fmjax.manifolds import even
from fmjax.manifolds.base import Manifold, eps_of, matmul
from fmjax.manifolds.symmetric import (
    eigh,
    matrix_exp,
    matrix_floor,
    matrix_log,
    matrix_sqrt,
    symmetric,
)


@dataclass(frozen=True)
class SPD(Manifold):
    """Symmetric positive definite matrices (n, n), with <u, v> = trace(x^-1 u x^-1 v) at x.

    Any two are joined by one geodesic. With x = L L^T the map y -> L^-1 y L^-T keeps distances and
    takes x to the identity, where exp and log are those of matrices.

    Args:
        n: the number of rows.

    Raises:
        InputError: n is no whole number of at least 1.
    """

    n: int

    def __post_init__(self):
        check_at_least("n of SPD", self.n)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n)."""
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        """n (n + 1) / 2."""
        return self.n * (self.n + 1) // 2

    @property
    def volume(self) -> float:
        """Infinite."""
        return math.inf

    @property
    def origin(self) -> Float[Array, "{self.n} {self.n}"]:
        """The identity."""
        return jnp.eye(self.n)

    _of = "symmetric positive definite matrices"

    def _exp(self, x, u):
        factor = jnp.linalg.cholesky(x)
        return _from_identity(factor, matrix_exp(_to_identity(factor, u)))

    def _log(self, x, y):
        factor = jnp.linalg.cholesky(x)
        return _from_identity(factor, matrix_log(_to_identity(factor, y)))

    def _dist(self, x, y):
        steps = matrix_log(_to_identity(jnp.linalg.cholesky(x), y))
        return even.root(jnp.sum(jnp.square(steps), axis=(-2, -1)))

    def _inner(self, x, u, v):
        factor = jnp.linalg.cholesky(x)
        return jnp.sum(_to_identity(factor, u) * _to_identity(factor, v), axis=(-2, -1))

    def _project(self, x):
        return matrix_floor(x)

    def _to_tangent(self, x, u):
        return symmetric(u)

    def _transport(self, x, y, u):
        factor = jnp.linalg.cholesky(x)
        middle = matrix_sqrt(_to_identity(factor, y))
        return _from_identity(factor, matmul(middle, matmul(_to_identity(factor, u), middle)))

    def _tangent(self, x, coordinates):
        rows, columns = jnp.triu_indices(self.n)
        each = jnp.where(rows == columns, 1, math.sqrt(0.5)).astype(x.dtype)
        upper = (
            jnp.zeros_like(x)
            .at[..., rows, columns]
            .set(coordinates * each.reshape((1,) * (x.ndim - 2) + (-1,)))
        )
        return _from_identity(jnp.linalg.cholesky(x), 2 * symmetric(upper) - _diagonal(upper))

    def _log_volume_element(self, x):
        # det(x)^-(n + 1) is the determinant of v -> x^-1 v x^-1 on symmetric matrices.
        halves = jnp.log(jnp.diagonal(jnp.linalg.cholesky(x), axis1=-2, axis2=-1))
        return -(self.n + 1) * jnp.sum(halves, axis=-1)

    def _log_det_exp(self, x, u):
        values = eigh(_to_identity(jnp.linalg.cholesky(x), u))[0]
        rows, columns = jnp.triu_indices(self.n, 1)
        gaps = values[..., rows] - values[..., columns]
        return jnp.sum(even.log_sinh_over(jnp.square(gaps / 2)), axis=-1)

    def _off(self, x):
        size = jnp.maximum(jnp.max(jnp.abs(x), axis=(-2, -1)), jnp.finfo(x.dtype).tiny)
        askew = jnp.max(jnp.abs(x - jnp.swapaxes(x, -2, -1)), axis=(-2, -1)) / size
        least = jnp.linalg.eigvalsh(x)[..., 0] / size
        # A matrix that is not numerically positive has no Cholesky factor: no tolerance there.
        return jnp.where(least > self.n * eps_of(x), askew, jnp.maximum(askew, 1 - least))


def _diagonal(x: Array) -> Array:
    return x * jnp.eye(x.shape[-1], dtype=x.dtype).reshape((1,) * (x.ndim - 2) + x.shape[-2:])


def _to_identity(factor: Array, y: Array) -> Array:
    """L^-1 y L^-T."""
    solve = jax.scipy.linalg.solve_triangular
    half = solve(factor, symmetric(y), lower=True)
    return symmetric(solve(factor, jnp.swapaxes(half, -2, -1), lower=True))


def _from_identity(factor: Array, y: Array) -> Array:
    """L y L^T."""
    return symmetric(matmul(factor, matmul(y, jnp.swapaxes(factor, -2, -1))))
