"""Functions of symmetric matrices, with finite derivatives where eigenvalues are equal.

With A = Q diag(a) Q^T, f(A) = Q diag(f(a)) Q^T, and its derivative in the direction E is
Q (F * (Q^T E Q)) Q^T, where F_ij = (f(a_i) - f(a_j)) / (a_i - a_j), and f'(a_i) where the two are
equal (Daleckii and Krein). The derivative of Q itself is infinite there, as at the identity.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.conventions import Array
from fmjax.manifolds import even
from fmjax.manifolds.base import eps_of, matmul

_LARGEST = 40.0  # exp of it, and its derivatives, are within float32


def symmetric(x: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
    """The symmetric part of matrices (..., n, n)."""
    return (x + jnp.swapaxes(x, -2, -1)) / 2


@jax.custom_jvp
def eigh(x: Float[Array, "*b n n"]) -> tuple[Float[Array, "*b n"], Float[Array, "*b n n"]]:
    """Eigenvalues (..., n) and eigenvectors (..., n, n) of a symmetric matrix.

    Where eigenvalues are equal, the derivative of their eigenvectors is taken as 0. Second
    derivatives of the functions below are then finite, and exact where eigenvalues differ.
    """
    values, vectors = jnp.linalg.eigh(x)
    return values, vectors


@eigh.defjvp
def _eigh_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    values, vectors = eigh(x)
    turned = _turned(vectors, symmetric(dx))
    gaps, equal = _gaps(values)
    rate = jnp.where(equal, 0, turned / jnp.where(equal, 1, -gaps))
    return (values, vectors), (
        jnp.diagonal(turned, axis1=-2, axis2=-1),
        matmul(vectors, rate),
    )


def _turned(vectors: Array, x: Array) -> Array:
    """Q^T x Q."""
    return matmul(jnp.swapaxes(vectors, -2, -1), matmul(x, vectors))


def _gaps(values: Array) -> tuple[Array, Array]:
    """a_i - a_j, and whether rounding alone may be the difference."""
    first, second = values[..., :, None], values[..., None, :]
    gaps = first - second
    return gaps, jnp.abs(gaps) <= 100 * eps_of(values) * (jnp.abs(first) + jnp.abs(second))


def _function(f: Callable[[Array], Array], rate: Callable[[Array], Array]):
    """f of a symmetric matrix; `rate` is F (..., n, n) of its eigenvalues (..., n)."""

    @jax.custom_jvp
    def function(x: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
        values, vectors = eigh(symmetric(x))
        return _turned(jnp.swapaxes(vectors, -2, -1), f(values)[..., None] * _identity(values))

    @function.defjvp
    def jvp(primals, tangents):
        (x,), (dx,) = primals, tangents
        values, vectors = eigh(symmetric(x))
        change = rate(values) * _turned(vectors, symmetric(dx))
        return function(x), symmetric(_turned(jnp.swapaxes(vectors, -2, -1), change))

    return function


def _identity(values: Array) -> Array:
    n = values.shape[-1]
    return jnp.eye(n, dtype=values.dtype).reshape((1,) * (values.ndim - 1) + (n, n))


def _each_pair(values: Array) -> tuple[Array, Array]:
    pair = jnp.broadcast_arrays(values[..., :, None], values[..., None, :])
    return pair[0], pair[1]


def _clipped(values: Array) -> Array:
    return jnp.clip(values, -_LARGEST, _LARGEST)


def _exp_rate(values: Array) -> Array:
    """exp((a + b) / 2) sinh(c) / c with c = (a - b) / 2, times the rate of clipping."""
    a, b = _each_pair(_clipped(values))
    gaps, equal = _gaps(values)
    inside = (jnp.abs(values) < _LARGEST)[..., None].astype(values.dtype)
    clipping = jnp.where(equal, inside, (a - b) / jnp.where(equal, 1, gaps))
    return clipping * jnp.exp((a + b) / 2 + even.log_sinh_over(jnp.square((a - b) / 2)))


def _positive(values: Array) -> Array:
    """Eigenvalues of a positive definite matrix: rounding may have made one 0 or negative."""
    largest = jnp.max(jnp.abs(values), axis=-1, keepdims=True)
    return jnp.maximum(values, eps_of(values) * largest)


def _log_rate(values: Array) -> Array:
    a, b = _each_pair(_positive(values))
    z = (a - b) / (a + b)
    near = jnp.square(z) < 0.01  # there (log a - log b) / (a - b) = 2 artanh(z) / z / (a + b)
    small = even.atanh_over(jnp.where(near, jnp.square(z), 0)) * 2 / (a + b)
    return jnp.where(near, small, (jnp.log(a) - jnp.log(b)) / jnp.where(near, 1, a - b))


def _sqrt_rate(values: Array) -> Array:
    a, b = _each_pair(jnp.sqrt(_positive(values)))
    return 1 / (a + b)


def _least(values: Array) -> Array:
    """The smallest eigenvalue that `matrix_floor` leaves."""
    size = jnp.max(jnp.abs(values), axis=-1, keepdims=True)
    least = 16 * values.shape[-1] * eps_of(values) * jnp.maximum(size, jnp.finfo(size.dtype).eps)
    return jax.lax.stop_gradient(least)


def _floor_rate(values: Array) -> Array:
    least = _least(values)
    a, b = _each_pair(values)
    gaps, equal = _gaps(values)
    rises = jnp.maximum(a, least[..., None]) - jnp.maximum(b, least[..., None])
    slope = (a > least[..., None]).astype(values.dtype)
    return jnp.where(equal, slope, rises / jnp.where(equal, 1, gaps))


matrix_exp = _function(lambda values: jnp.exp(_clipped(values)), _exp_rate)
"""The exponential; eigenvalues beyond 40 count as 40, so that all derivatives are finite."""

matrix_log = _function(lambda values: jnp.log(_positive(values)), _log_rate)
"""The logarithm of positive definite matrices."""

matrix_sqrt = _function(lambda values: jnp.sqrt(_positive(values)), _sqrt_rate)
"""The positive square root of positive definite matrices."""

matrix_floor = _function(lambda values: jnp.maximum(values, _least(values)), _floor_rate)
"""The nearest matrix whose eigenvalues are at least 16 n eps times the largest of them."""
