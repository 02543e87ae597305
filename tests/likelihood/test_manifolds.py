"""Likelihoods on manifolds: divergences are Riemannian ones, and densities integrate to one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.likelihood import (
    Exact,
    Hutchinson,
    draw_probes,
    log_likelihood,
    sample_with_log_prob,
    velocity_and_divergence,
)
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
    UniformOn,
    WrappedNormal,
)
from fmjax.samplers import solver_spec
from tests.conftest import nightly_but

KEY = jax.random.key(0)
FINE = solver_spec("rk4", 40)
EACH = [
    Euclidean((2, 2)),
    Sphere(1),
    Sphere(3),
    Torus(2),
    SO3(),
    Hyperbolic(3),
    SPD(2),
    Simplex(2),
    Product({"a": Sphere(2), "b": SPD(2)}),
    FlatProduct((Hyperbolic(2), SO3(), Euclidean(1))),
]
RNG = np.random.default_rng(3)
W1, W2 = RNG.normal(size=(40, 16)) / 2, RNG.normal(size=(16, 40)) / 2


def origins(manifold, n, dtype=float):
    return jax.tree.map(
        lambda one: jnp.broadcast_to(one.astype(dtype), (n, *one.shape)), manifold.origin
    )


def points(manifold, n, scale=0.4):
    return manifold.wrapped_normal(KEY, origins(manifold, n), scale)


def net(x, t, labels=None, scale=1.0):
    """A fixed nonlinear field of the numbers of x, tangent to nothing in particular."""
    one = jax.tree.map(lambda leaf: leaf[0], x)
    size, back = jax.flatten_util.ravel_pytree(one)[0].size, jax.flatten_util.ravel_pytree(one)[1]
    flat = jax.vmap(lambda one: jax.flatten_util.ravel_pytree(one)[0])(x)
    hidden = jnp.tanh(flat @ jnp.asarray(W1[:size], flat.dtype) + t[:, None])
    return jax.vmap(back)(scale * (hidden @ jnp.asarray(W2[:, :size], flat.dtype)))


def periodic(x, t, labels=None):
    return net(jnp.concatenate([jnp.sin(x), jnp.cos(x)], axis=1), t)[:, : x.shape[1]]


def bounded(x, t, labels=None):
    """Of bounded length in the metric of the hyperbolic plane."""
    return Hyperbolic(2).tangent(x, net(x, t))


def covariant_divergence(manifold, velocity, x):
    """By normal coordinates at each point, vectors carried back along their geodesic."""

    def one(x):
        def carried(c):
            y = manifold.exp(x, manifold.tangent(x, c))
            u = jax.tree.map(lambda u: u[0], velocity(jax.tree.map(lambda y: y[None], y)))
            u = manifold.transport(y, x, manifold.to_tangent(y, u))
            rows = jax.vmap(lambda row: manifold.tangent(x, row))(jnp.eye(manifold.dim))
            return jax.vmap(lambda e: manifold.inner(x, e, u))(rows)

        return jnp.trace(jax.jacfwd(carried)(jnp.full(manifold.dim, 1e-4)))

    return jax.vmap(one)(x)


@pytest.mark.day_cases(4)
@pytest.mark.slow
@pytest.mark.parametrize("manifold", EACH, ids=repr)
def test_the_divergence_is_that_of_the_connection(manifold):
    with jax.enable_x64(True):
        x = points(manifold, 3)

        @jax.jit
        def both(x):
            t = jnp.full(3, 0.3)
            _, found = velocity_and_divergence(net, x, t, None, Exact(2), manifold=manifold)
            return found[:, 0], covariant_divergence(manifold, lambda x: net(x, t[:1]), x)

        found, expected = both(x)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(expected).max() > 0.1


def on(manifold, **more):
    return solver_spec("rk4", 30, manifold=manifold, **more)


def spherical_grid(n):
    """Points (n * 2 n, 3) of the sphere and their areas, exact for smooth functions."""
    z, weight = np.polynomial.legendre.leggauss(n)
    angle = (np.arange(2 * n) + 0.5) * math.pi / n
    z, angle = (a.ravel() for a in np.meshgrid(z, angle, indexing="ij"))
    r = np.sqrt(1 - z**2)
    x = np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)
    return x, np.repeat(weight, 2 * n) * math.pi / n


def toroidal_grid(n):
    angle = (np.arange(n) + 0.5) * 2 * math.pi / n - math.pi
    return np.stack(np.meshgrid(angle, angle), -1).reshape(-1, 2), np.full(
        n * n, 4 * np.pi**2 / n**2
    )


def rotational_grid(n):
    """Euler angles: turns around z, y and z again."""
    cosine, weight = np.polynomial.legendre.leggauss(n)
    first, angle, second = (np.arange(2 * n) + 0.5) * math.pi / n, np.arccos(cosine), None
    second = first
    a, b, c = (g.ravel() for g in np.meshgrid(first, angle, second, indexing="ij"))

    def turn(angle, i, j):
        r = np.tile(np.eye(3), (len(angle), 1, 1))
        r[:, i, i] = r[:, j, j] = np.cos(angle)
        r[:, i, j], r[:, j, i] = -np.sin(angle), np.sin(angle)
        return r

    x = turn(a, 0, 1) @ turn(b, 2, 0) @ turn(c, 0, 1)
    weights = np.broadcast_to(weight[None, :, None], (2 * n, n, 2 * n)).ravel()
    return x, weights * (math.pi / n) ** 2


def hyperbolic_grid(n):
    """Distances up to 7 and angles."""
    r, weight = np.polynomial.legendre.leggauss(n)
    r, weight = 3.5 * (r + 1), 3.5 * weight
    angle = (np.arange(n) + 0.5) * 2 * math.pi / n
    far, angle = (a.ravel() for a in np.meshgrid(r, angle, indexing="ij"))
    x = np.tanh(far / 2)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x, np.repeat(weight * np.sinh(r), n) * 2 * math.pi / n


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "velocity", "grid", "n", "rate"),
    [
        (UniformOn(Sphere(2)), net, spherical_grid, 24, 0.7),
        (UniformOn(Torus(2)), periodic, toroidal_grid, 40, 0.7),
        (UniformOn(SO3()), net, rotational_grid, 8, 0.25),
        (WrappedNormal(Hyperbolic(2), scale=0.8), bounded, hyperbolic_grid, 32, 0.7),
    ],
    ids=lambda one: repr(one.manifold) if hasattr(one, "manifold") else "",
)
def test_a_density_integrates_to_one(source, velocity, grid, n, rate):
    x, weights = grid(n)

    @jax.jit
    def log_p(x):
        spec = solver_spec("rk4", 12, manifold=source.manifold)
        return log_likelihood(
            lambda x, t, labels: rate * velocity(x, t), x, spec=spec, source=source
        ).log_p

    found = np.asarray(log_p(jnp.asarray(x, jnp.float32)), np.float64)
    assert np.sum(np.exp(found) * weights) == pytest.approx(1, abs=2e-3)
    prior = np.asarray(source.log_prob(jnp.asarray(x, jnp.float32)))
    assert np.abs(found - prior).max() > 0.3


def towards(a):
    """The gradient of a . x on the sphere: d z / dt = 1 - z^2 for a unit vector a, z = a . x."""
    return lambda x, t, labels=None: jnp.broadcast_to(a, x.shape)


def away(manifold, rate):
    """Distances from the origin grow as exp(rate t)."""

    def velocity(x, t, labels=None):
        back = manifold.log(x, origins(manifold, len(x), x.dtype))
        return -rate * back

    return velocity


@pytest.mark.slow
def test_a_known_flow_on_the_sphere():
    x = Sphere(2).uniform(KEY, (50,))
    a = jnp.asarray([0.0, 0.6, 0.8])
    found = log_likelihood(towards(a), x, spec=on(Sphere(2)), source=UniformOn(Sphere(2)))
    z = np.asarray(x @ a, np.float64)
    z0 = np.tanh(np.arctanh(z) - 1)
    expected = -math.log(4 * math.pi) + np.log((1 - z0**2) / (1 - z**2))
    np.testing.assert_allclose(found.log_p, expected, atol=1e-4)
    np.testing.assert_allclose(found.x0 @ a, z0, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(found.x0, axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_a_known_flow_on_the_torus():
    x = Torus(2).uniform(KEY, (50,))
    found = log_likelihood(
        lambda x, t, labels: jnp.sin(x), x, spec=on(Torus(2)), source=UniformOn(Torus(2))
    )
    x0 = 2 * np.arctan(math.exp(-1) * np.tan(np.asarray(x, np.float64) / 2))
    expected = np.log(np.sin(x0) / np.sin(x)).sum(axis=1) - 2 * math.log(2 * math.pi)
    np.testing.assert_allclose(found.log_p, expected, atol=1e-4)


@pytest.mark.slow
def test_a_known_flow_of_rotations():
    x = SO3().uniform(KEY, (50,))

    def velocity(x, t, labels):
        angle = SO3().dist(x, origins(SO3(), len(x), x.dtype))
        return (jnp.sin(angle) / angle)[:, None, None] * away(SO3(), 1.0)(x, t)

    found = log_likelihood(velocity, x, spec=on(SO3()), source=UniformOn(SO3()))
    half = np.asarray(SO3().dist(x, origins(SO3(), 50, x.dtype)), np.float64) / 2
    half0 = np.arctan(math.exp(-1) * np.tan(half))
    ratio = np.sin(2 * half0) * np.sin(half0) ** 2 / (np.sin(2 * half) * np.sin(half) ** 2)
    np.testing.assert_allclose(found.log_p, np.log(ratio / (8 * math.pi**2)), atol=1e-4)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("manifold", [Hyperbolic(3), SPD(2)], ids=repr)
def test_a_normal_that_is_blown_up_is_a_wider_one(manifold):
    rate, narrow, wide = 0.4, WrappedNormal(manifold, scale=0.5), None
    wide = WrappedNormal(manifold, scale=0.5 * math.exp(rate))
    x = wide.sample(KEY, jnp.arange(40), manifold.shape)
    found = log_likelihood(away(manifold, rate), x, spec=on(manifold), source=narrow)
    np.testing.assert_allclose(found.log_p, wide.log_prob(x), atol=1e-4)


def turning(x, t, labels=None):
    """Turns around (1, -1, 2), by rows of a matrix or by a vector."""
    generator = jnp.asarray([[0.0, -2.0, -1.0], [2.0, 0.0, -1.0], [1.0, 1.0, 0.0]], x.dtype)
    return generator @ x if x.ndim == 3 else x @ generator.T


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("manifold", [Sphere(2), SO3()], ids=repr)
def test_a_normal_that_is_turned_is_one_around_the_turned_mean(manifold):
    mean = manifold.uniform(KEY)
    source, x = WrappedNormal(manifold, mean, 0.6), manifold.uniform(jax.random.key(1), (40,))
    found = log_likelihood(turning, x, spec=on(manifold), source=source)
    turned = manifold.project(jax.scipy.linalg.expm(turning(jnp.eye(3)[None], 0)[0]) @ mean)
    np.testing.assert_allclose(
        found.log_p, WrappedNormal(manifold, turned, 0.6).log_prob(x), atol=1e-4
    )


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("manifold", [Sphere(2), Product({"a": Torus(1), "b": SO3()})], ids=repr)
def test_a_sample_comes_with_its_density(manifold):
    source = UniformOn(manifold)
    x0 = source.sample(KEY, jnp.arange(8), manifold.shape)
    drawn = sample_with_log_prob(net, x0, spec=on(manifold), source=source)
    asked = log_likelihood(net, drawn.x1, spec=on(manifold), source=source)
    np.testing.assert_allclose(drawn.log_p, asked.log_p, atol=1e-4)
    assert float(jnp.max(manifold.dist(asked.x0, x0))) < 1e-4
    assert np.all(drawn.success)


@pytest.mark.slow
def test_tolerances_serve_as_well_as_steps():
    x = Sphere(2).uniform(KEY, (5,))
    tight = solver_spec("dopri5", rtol=1e-6, atol=1e-6, manifold=Sphere(2))
    source = UniformOn(Sphere(2))
    found, expected = (
        log_likelihood(net, x, spec=s, source=source) for s in (tight, on(Sphere(2)))
    )
    np.testing.assert_allclose(found.log_p, expected.log_p, atol=1e-4)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "manifold",
    nightly_but([Sphere(2), Hyperbolic(2), SPD(2), Simplex(2)], Sphere(2), SPD(2)),
    ids=repr,
)
def test_probes_of_the_tangent_space_have_the_divergence_for_a_mean(manifold):
    x, t = points(manifold, 2), jnp.full(2, 0.3)
    trace = Hutchinson(20_000, "gaussian", chunk=20_000)
    probes = draw_probes(trace, KEY, x, manifold)
    assert probes.shape == (2, 20_000, manifold.dim)
    _, columns = velocity_and_divergence(net, x, t, None, trace, probes, manifold)
    _, exact = velocity_and_divergence(net, x, t, None, Exact(), manifold=manifold)
    error = jnp.std(columns, axis=1) / math.sqrt(20_000)
    assert np.all(jnp.abs(columns.mean(axis=1) - exact[:, 0]) < 4 * error)


@pytest.mark.slow
def test_an_estimated_density_has_its_error():
    x, source = Sphere(2).uniform(KEY, (6,)), UniformOn(Sphere(2))
    exact = log_likelihood(net, x, spec=on(Sphere(2)), source=source)
    found = log_likelihood(net, x, spec=on(Sphere(2)), source=source, trace=Hutchinson(64), key=KEY)
    assert np.all(found.std_error > 0)
    assert np.all(jnp.abs(found.log_p - exact.log_p) < 4.5 * found.std_error)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [UniformOn(Sphere(2)), UniformOn(SO3()), WrappedNormal(Hyperbolic(2)), WrappedNormal(SPD(2))],
    ids=repr,
)
def test_gradients_are_finite_and_right(source):
    manifold = source.manifold
    x = jnp.concatenate([points(manifold, 2), origins(manifold, 1, jnp.float32)])
    spec = solver_spec("rk4", 4, manifold=manifold, gradient="direct")

    @jax.jit
    def total(scale, x):
        def field(x, t, labels):
            return net(x, t, scale=scale)

        return jnp.sum(log_likelihood(field, x, spec=spec, source=source).log_p)

    scale = jnp.float32(0.5)
    slope, moves = jax.jit(jax.grad(total, argnums=(0, 1)))(scale, x)
    assert np.all(np.isfinite(moves))
    assert np.any(np.asarray(moves) != 0)
    difference = (total(scale + 0.004, x) - total(scale - 0.004, x)) / 0.008
    assert float(slope) == pytest.approx(float(difference), rel=2e-2)


@pytest.mark.slow
def test_a_flat_manifold_changes_no_bit():
    x = jax.random.normal(KEY, (6, 2, 2))
    for trace in (Exact(), Hutchinson(3)):
        plain, flat = (
            log_likelihood(net, x, spec=solver_spec("rk4", 5, manifold=m), trace=trace, key=KEY)
            for m in (None, Euclidean((2, 2)))
        )
        np.testing.assert_array_equal(plain.log_p, flat.log_p)
    t = jnp.full(6, 0.2)
    plain, flat = (
        velocity_and_divergence(net, x, t, None, Exact(), manifold=m)
        for m in (None, Euclidean((2, 2)))
    )
    np.testing.assert_array_equal(plain[1], flat[1])


@pytest.mark.nightly
def test_the_points_of_one_example_count_together():
    x, source = Sphere(2).uniform(KEY, (3, 4)), UniformOn(Sphere(2))

    def each(x, t, labels):
        flat = x.reshape(-1, 3)
        return net(flat, jnp.full(len(flat), 0.3)).reshape(x.shape)

    found = log_likelihood(each, x, spec=on(Sphere(2)), source=source)
    alone = log_likelihood(each, x.reshape(12, 1, 3), spec=on(Sphere(2)), source=source)
    np.testing.assert_allclose(found.log_p, alone.log_p.reshape(3, 4).sum(axis=1), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": None}, "give the source that the flow was trained from"),
        ({"source": UniformOn(Sphere(3))}, "the solver is on Sphere"),
        ({"spec": None}, "the solver in flat space"),
        ({"x1": jnp.ones((2, 3))}, "off by up to"),
        ({"x1": jnp.ones((2, 4))}, "must have shape"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    x = Sphere(2).uniform(KEY, (2,))
    given = {"x1": x, "spec": on(Sphere(2)), "source": UniformOn(Sphere(2))} | change
    if given["source"] is None:
        del given["source"]
    with pytest.raises(InputError, match=said):
        log_likelihood(net, **given)
