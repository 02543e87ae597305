"""Rotations of space.

Points are rotation matrices: unlike quaternions, of which q and -q are one rotation, a matrix is
one point, and a network that reads it need not know of signs. Logarithms go through the quaternion,
where they are smooth up to and at the angle pi. The formulas are our own: jaxlie 1.5 has no
distance and no transport, and takes the derivative of log by the angle as 0 at the angle pi.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.conventions import Array
from fmjax.manifolds import even
from fmjax.manifolds.base import Manifold, dot, eps_of, matmul, round_log_prob
from fmjax.manifolds.sphere import normalised


@dataclass(frozen=True)
class SO3(Manifold):
    """Rotation matrices (3, 3) with <u, v> = trace(u^T v) / 2: the distance is the angle.

    A tangent vector at R is R W with W skew. Two rotations half a turn apart have two shortest
    geodesics; `log` takes the axis whose largest element is positive.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, 3)."""
        return (3, 3)

    @property
    def dim(self) -> int:
        """3."""
        return 3

    @property
    def volume(self) -> float:
        """8 pi^2, half the volume of the sphere S^3 of radius 2."""
        return 8 * math.pi**2

    @property
    def origin(self) -> Float[Array, "3 3"]:
        """The identity."""
        return jnp.eye(3)

    _of = "orthogonal matrices of determinant 1"

    def _exp(self, x, u):
        return matmul(x, _rotation(_vector(matmul(_t(x), u))))

    def _log(self, x, y):
        return matmul(x, _skew(_rotation_vector(matmul(_t(x), y))))

    def _dist(self, x, y):
        q = _quaternion(matmul(_t(x), y))
        sine = even.root(dot(q[..., 1:], q[..., 1:]))
        return 2 * jnp.arctan2(sine, jnp.abs(q[..., 0]))

    def _inner(self, x, u, v):
        return jnp.sum(u * v, axis=(-2, -1)) / 2

    def _project(self, x):
        return _nearest_rotation(x)

    def _to_tangent(self, x, u):
        return matmul(x, _skew(_vector(matmul(_t(x), u))))

    def _transport(self, x, y, u):
        half = _rotation(-_rotation_vector(matmul(_t(x), y)) / 2)
        turned = matmul(half, _vector(matmul(_t(x), u))[..., None])[..., 0]
        return matmul(y, _skew(turned))

    def _tangent(self, x, coordinates):
        return matmul(x, _skew(coordinates))

    def _uniform(self, key, shape):
        return _matrix(normalised(jax.random.normal(key, (*shape, 4))))

    def _wrapped_normal_log_prob(self, x, mean, scale):
        return round_log_prob(self._dist(mean, x), scale, 3, radius=2)

    def _off(self, x):
        gram = jnp.abs(matmul(_t(x), x) - _identity(x))
        return jnp.maximum(jnp.max(gram, axis=(-2, -1)), jnp.abs(jnp.linalg.det(x) - 1))


def _t(x: Array) -> Array:
    return jnp.swapaxes(x, -2, -1)


def _identity(x: Array) -> Array:
    """The identity with as many axes as x (..., 3, 3)."""
    return jnp.eye(3, dtype=x.dtype).reshape((1,) * (x.ndim - 2) + (3, 3))


def _skew(w: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """The matrix W with W v = w x v, (..., 3) -> (..., 3, 3)."""
    a, b, c = w[..., 0], w[..., 1], w[..., 2]
    zero = jnp.zeros_like(a)
    rows = jnp.stack([zero, -c, b, c, zero, -a, -b, a, zero], axis=-1)
    return rows.reshape((*w.shape[:-1], 3, 3))


def _vector(m: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3"]:
    """The vector of the skew part of a matrix, (..., 3, 3) -> (..., 3)."""
    m = m - _t(m)
    return jnp.stack([m[..., 2, 1], m[..., 0, 2], m[..., 1, 0]], axis=-1) / 2


def _rotation(w: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """The rotation by the angle |w| around w, as a matrix."""
    square = dot(w, w)[..., None, None]
    one = _skew(w)
    twice = matmul(one, one)
    return _identity(one) + even.sin_over(square) * one + even.versine_over(square) * twice


def _quaternion(m: Float[Array, "*b 3 3"]) -> Float[Array, "*b 4"]:
    """One of the two unit quaternions (w, x, y, z) of a rotation, its largest element positive."""
    a, b, c = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    yz, zx, xy = (m[..., i, j] + m[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    wx, wy, wz = (m[..., i, j] - m[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    ww, xx, yy, zz = 1 + a + b + c, 1 + a - b - c, 1 - a + b - c, 1 - a - b + c
    # 4 q q^T; the row of its largest diagonal element is a multiple of q, of length 2 or more.
    rows = [ww, wx, wy, wz, wx, xx, xy, zx, wy, xy, yy, yz, wz, zx, yz, zz]
    table = jnp.stack(rows, axis=-1).reshape((*m.shape[:-2], 4, 4))
    largest = jnp.argmax(jnp.stack([ww, xx, yy, zz], axis=-1), axis=-1)
    row = jnp.take_along_axis(table, largest[..., None, None], axis=-2)[..., 0, :]
    return normalised(row)


def _matrix(q: Float[Array, "*b 4"]) -> Float[Array, "*b 3 3"]:
    """The rotation of a unit quaternion, (..., 4) -> (..., 3, 3)."""
    w, v = q[..., 0], q[..., 1:]
    one = _skew(v)
    return _identity(one) + 2 * (w[..., None, None] * one + matmul(one, one))


def _rotation_vector(m: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3"]:
    """The vector w of angle and axis with rotation(w) = m; see `SO3` for the angle pi."""
    q = _quaternion(m)
    q = jnp.where(q[..., :1] < 0, -q, q)
    v = q[..., 1:]
    return 2 * even.angle_over_sine(dot(v, v), q[..., 0])[..., None] * v


@jax.custom_jvp
def _nearest_rotation(m: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
    """The rotation with the least sum of squared differences from m."""
    u, _, vt = jnp.linalg.svd(m)
    sign = jnp.where(jnp.linalg.det(matmul(u, vt)) < 0, -1, 1).astype(m.dtype)[..., None]
    signs = jnp.concatenate([jnp.ones_like(sign), jnp.ones_like(sign), sign], axis=-1)
    r = matmul(u, signs[..., None] * vt)
    # One step of Newton's method takes r to the last digit, which the decomposition does not reach.
    return matmul(r, 3 * _identity(r) - matmul(_t(r), r)) / 2


@_nearest_rotation.defjvp
def _nearest_rotation_jvp(primals, tangents):
    """With P = R^T m symmetric: (trace(P) - P) w = the vector of R^T dm - dm^T R, and dR = R W.

    The derivative of the singular vectors themselves is infinite where singular values are equal,
    and of a rotation all three are.
    """
    (m,), (dm,) = primals, tangents
    r = _nearest_rotation(m)
    p = matmul(_t(r), m)
    identity = _identity(m)
    a = jnp.trace(p, axis1=-2, axis2=-1)[..., None, None] * identity - (p + _t(p)) / 2
    # Where the nearest rotation is not unique, a has no inverse; this one is finite there.
    square = matmul(a, a)
    size = jnp.trace(square, axis1=-2, axis2=-1)[..., None, None]
    inverse = matmul(a, jnp.linalg.inv(square + eps_of(m) * (size + eps_of(m)) * identity))
    w = matmul(inverse, 2 * _vector(matmul(_t(r), dm))[..., None])[..., 0]
    return r, matmul(r, _skew(w))
