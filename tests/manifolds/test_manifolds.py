"""What a manifold is: exp and log, geodesics, distances, projections, transport, curvature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.manifolds import (
    SO3,
    SPD,
    Euclidean,
    FlatProduct,
    Hyperbolic,
    Product,
    Simplex,
    Sphere,
    Torus,
)

N = 8
MANIFOLDS = [
    Euclidean((2, 2)),
    Torus(2),
    Sphere(1),
    Sphere(2),
    SO3(),
    Hyperbolic(2),
    SPD(3),
    Simplex(3),
    FlatProduct((SO3(), Euclidean(2))),
    Product({"position": Euclidean(3), "rotation": SO3()}),
]
every = pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)


def largest(*trees):
    """The largest difference between two pytrees."""
    differences = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), *trees)
    return jnp.max(jnp.stack(jax.tree.leaves(differences)))


def points(manifold, key, dtype):
    origin = jax.tree.map(lambda one: jnp.broadcast_to(one, (N, *one.shape)), manifold.origin)
    origin = jax.tree.map(lambda one: one.astype(dtype), origin)
    if isinstance(manifold, Simplex):
        return jax.tree.map(lambda one: one.astype(dtype), manifold.uniform(key, (N,)))
    return manifold.wrapped_normal(key, origin, 0.4)


def tangents(manifold, key, x):
    dtype = jax.tree.leaves(x)[0].dtype
    return manifold.tangent(x, jax.random.normal(key, (N, manifold.dim), dtype))


def times(t, u):
    return jax.tree.map(lambda one: t * one, u)


def frame(manifold, x):
    dtype = jax.tree.leaves(x)[0].dtype
    return jax.vmap(
        lambda row: manifold.tangent(x, jnp.broadcast_to(row, (N, manifold.dim))),
        out_axes=0,
    )(jnp.eye(manifold.dim, dtype=dtype))


def broken(manifold, dtype):
    """By how much each law of a manifold is broken at random points."""
    keys = jax.random.split(jax.random.key(0), 5)
    x, y, z = (points(manifold, key, dtype) for key in keys[:3])
    u, v = (tangents(manifold, key, x) for key in keys[3:])
    step, distance = manifold.log(x, y), manifold.dist(x, y)
    third = manifold.exp(x, times(0.3, step))
    there = manifold.transport(x, y, u)
    rows = frame(manifold, x)
    gram = jax.vmap(lambda a: jax.vmap(lambda b: manifold.inner(x, a, b))(rows))(rows)
    symmetry = manifold.inner(x, u, v) - manifold.inner(x, v, u)
    return {
        "exp inverts log": largest(manifold.exp(x, step), y),
        "log inverts exp": largest(manifold.log(x, third), times(0.3, step)),
        "the length of log is the distance": largest(
            jnp.sqrt(manifold.inner(x, step, step)), distance
        ),
        "constant speed": largest(manifold.dist(third, y), 0.7 * distance),
        "symmetric": largest(manifold.dist(y, x), distance) + largest(symmetry, 0 * symmetry),
        "zero at coincident points": jnp.max(manifold.dist(x, x)),
        "triangle": jnp.max(jnp.maximum(distance - manifold.dist(x, z) - manifold.dist(z, y), 0)),
        "on the manifold": jnp.max(manifold._off(y)) + jnp.max(manifold._off(third)),
        "a point stays": largest(manifold.project(x), x),
        "projected twice": largest(
            manifold.project(manifold.project(times(1.7, u))), manifold.project(times(1.7, u))
        ),
        "a tangent vector stays": largest(manifold.to_tangent(x, u), u),
        "to_tangent is orthogonal": largest(
            manifold.inner(x, jax.tree.map(jnp.subtract, y, manifold.to_tangent(x, y)), u),
            0 * distance,
        ),
        "transport keeps inner products": largest(
            manifold.inner(y, there, manifold.transport(x, y, v)), manifold.inner(x, u, v)
        ),
        "transport is tangent": largest(manifold.to_tangent(y, there), there),
        "the other way back": largest(manifold.transport(y, x, there), u),
        "a geodesic carries its velocity": largest(
            manifold.transport(x, y, step), times(-1.0, manifold.log(y, x))
        ),
        "the frame is orthonormal": largest(
            gram, jnp.broadcast_to(jnp.eye(manifold.dim, dtype=dtype)[..., None], gram.shape)
        ),
    }


@pytest.mark.day_cases(5)
@pytest.mark.slow
@every
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-5), ("float64", 1e-9)])
def test_laws(manifold, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        found = jax.jit(lambda: broken(manifold, dtype))()
        wrong = {law: float(by) for law, by in found.items() if not float(by) < tolerance}
    assert not wrong


@pytest.mark.day_cases(4)
@pytest.mark.slow
@every
def test_uniform_and_shapes(manifold):
    if np.isinf(manifold.volume):
        pytest.skip("no uniform distribution")
    x = jax.jit(lambda key: manifold.uniform(key, (3, 2)))(jax.random.key(0))
    assert jax.tree.map(jnp.shape, x) == jax.tree.map(
        lambda one: (3, 2, *one.shape), manifold.origin
    )
    manifold.check("x", x)
    assert manifold.dist(x, x).shape == manifold.uniform_log_prob(x).shape == (3, 2)


SECTIONAL = {Euclidean(2): 0.0, Torus(2): 0.0, Sphere(2): 1.0, SO3(): 0.25, Hyperbolic(2): -1.0}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("manifold", "curvature"), SECTIONAL.items(), ids=repr)
def test_curvature_is_the_turn_of_a_vector_around_a_small_square(manifold, curvature):
    """A square of side a turns a vector by a^2 times the curvature; SO3, of radius 2, has 1/4."""
    with jax.enable_x64(True):
        turn = jax.jit(lambda: holonomy(manifold, manifold.origin.astype(float), 0, 1))()
    assert float(turn) == pytest.approx(curvature, abs=1e-2)


@pytest.mark.slow
def test_curvature_of_positive_matrices():
    """-|[u, v]|^2 / 4 for orthonormal u and v at the identity."""
    manifold = SPD(2)
    with jax.enable_x64(True):
        x = jnp.eye(2)
        u, v = manifold.tangent(jnp.stack([x, x]), jnp.eye(3)[:2])
        expected = -jnp.sum(jnp.square(u @ v - v @ u)) / 4
        assert float(holonomy(manifold, x, 0, 1)) == pytest.approx(float(expected), abs=1e-2)
    assert expected < -0.1


def holonomy(manifold, x, i, j, side=0.02):
    """<v, P u> / side^2, with P the transport around a square in the plane of two unit vectors."""
    rows = jnp.eye(manifold.dim, dtype=x.dtype)
    u, v = manifold.tangent(x, rows[i]), manifold.tangent(x, rows[j])
    first = manifold.exp(x, side * u)
    second = manifold.exp(first, side * manifold.transport(x, first, v))
    last = manifold.exp(x, side * v)
    carried = u
    for start, end in ((x, first), (first, second), (second, last), (last, x)):
        carried = manifold.transport(start, end, carried)
    return manifold.inner(x, v, carried) / side**2


def test_a_flat_product_is_the_product():
    flat = FlatProduct((Sphere(2), SO3()))
    product = Product((Sphere(2), SO3()))
    x, y = (product.uniform(jax.random.key(i), (4,)) for i in range(2))
    joined = flat.join(x), flat.join(y)
    np.testing.assert_array_equal(flat.dist(*joined), product.dist(x, y))
    np.testing.assert_array_equal(flat.split(joined[0])[1], x[1])


@functools.cache
def _hard():
    """For each manifold, points whose pairs are the hard ones: coincident, far, at a boundary."""
    sphere, rotations = Sphere(2), SO3()
    small = np.float32([1e-3, 1e-6, 1e-7, 1e-20])[:, None]
    e = np.eye(3, dtype=np.float32)
    unit = sphere.project(np.concatenate([e[:1], -e[:1], e[2:], -e[2:], e[0] + small * e[1]]))
    axes = sphere.project(np.float32([[1, 0, 0], [0, 0, 1], [1, -2, 0.5]]))
    angles = np.float32([0, np.pi, np.pi - 1e-6, 1e-6, 1e-20])
    turns = np.concatenate([angle * np.asarray(axes) for angle in angles])
    identity = jnp.broadcast_to(jnp.eye(3), (len(turns), 3, 3))
    rotated = rotations.exp(identity, rotations.tangent(identity, turns))
    radius = np.float32([0, 1e-20, 0.5, 1 - 1e-5, 1 - 1e-7, 1])[:, None]
    ball = np.concatenate([radius * e[:1, :2], -radius * e[:1, :2], radius * [[0.6, -0.8]]])
    matrices = [e, 2 * e, 1e-10 * e, np.diag([1, 1, 1e-3]), np.diag([1e-6, 1e6, 1]), e + 1e-7]
    corners = [[1, 1e-38, 1e-30], [1, 1e-12, 1e-19], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]
    angles = [[0, 0], [np.pi, 0], [-np.pi, np.pi], [3 * np.pi, -np.pi], [1e-20, 6.28]]
    return {
        Torus(2): np.float32(angles),
        sphere: np.concatenate([unit, -unit]),
        rotations: rotated,
        Hyperbolic(2): np.float32(ball),
        SPD(3): np.float32(np.stack(matrices)),
        Simplex(2): np.concatenate([e, np.float32(corners)]),
    }


SLOW = [pytest.param(at, marks=pytest.mark.slow) for at in (2, 3, 4)]


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1, 5, *SLOW])
def test_values_and_derivatives_are_finite_everywhere(at):
    manifold, given = list(_hard().items())[at]
    n = len(given)
    x, y = jnp.repeat(jnp.asarray(given), n, axis=0), jnp.concatenate([jnp.asarray(given)] * n)
    u = manifold.to_tangent(x, jnp.full_like(x, 0.3))

    def everything(x, y, u):
        found = {
            "log": manifold.log(x, y),
            "dist": manifold.dist(x, y),
            "exp": manifold.exp(x, u),
            "exp of 0": manifold.exp(x, 0 * u),
            "exp of a long one": manifold.exp(x, 1e4 * u),
            "there and back": manifold.exp(x, manifold.log(x, y)),
            "transport": manifold.transport(x, y, u),
            "inner": manifold.inner(x, u, u),
            "project": manifold.project(x),
            "project 0": manifold.project(x - y),
            "project the opposite": manifold.project(-x),
            "tangent": manifold.tangent(x, jnp.ones(manifold.dim)),
        }
        if not isinstance(manifold, Simplex):
            found["normal"] = manifold.wrapped_normal_log_prob(x, y, 0.5)
        return found

    def values_and_derivatives(*given):
        return everything(*given), jax.jacfwd(everything, (0, 1, 2))(*given)

    def slope(*given):
        return jax.vjp(everything, *given)[1](jax.tree.map(jnp.ones_like, everything(*given)))

    values, derivatives = jax.jit(jax.vmap(values_and_derivatives))(x, y, u)
    assert [k for k in values if not _finite((values[k], derivatives[k]))] == []
    assert _finite(jax.jit(jax.vmap(slope))(x, y, u))


def _finite(tree):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_a_batch_may_be_empty_and_its_shape_is_whole_numbers():
    key = jax.random.key(0)
    assert Sphere(2).uniform(key, (0, 2)).shape == (0, 2, 3)
    assert Sphere(2).uniform(key).shape == (3,)
    for shape in ((-1,), (1.5,), [2], 2):
        with pytest.raises(InputError, match="shape must be"):
            Sphere(2).uniform(key, shape)
