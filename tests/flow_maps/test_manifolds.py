"""Flow maps on manifolds: known maps obey every identity there, wrong ones none, and jumps land."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conventions import Output, Span
from fmjax.errors import InputError
from fmjax.flow_maps import (
    AlphaFlow,
    Consistency,
    DivergenceHead,
    Jumps,
    Lagrangian,
    MeanFlow,
    Semigroup,
    few_step_log_likelihood,
    make_flow_map_loss_fn,
)
from fmjax.manifolds import SO3, SPD, Euclidean, Hyperbolic, Sphere, Torus, UniformOn
from fmjax.paths import AffinePath, GeodesicPath
from fmjax.samplers import solve
from tests.conftest import nightly_but

KEY = jax.random.key(0)
AXIS = np.array([0.0, 0.6, 0.8])


# Each flow but that of the torus turns as well, so that no line of it is a geodesic.


def sphere_map(x, duration):
    """The flow of the gradient of z = a . x, and a turn around a by the angle t."""
    tau, z = duration[:, None], x @ AXIS[:, None]
    low, high = jnp.cosh(tau) + z * jnp.sinh(tau), jnp.sinh(tau) + z * jnp.cosh(tau)
    across = x - z * AXIS[None]
    turned = jnp.cos(tau) * across + jnp.sin(tau) * jnp.cross(AXIS[None], across)
    return (turned + high * AXIS[None]) / low


def torus_map(x, duration):
    return 2 * jnp.arctan(jnp.exp(duration[:, None]) * jnp.tan(x / 2))


def wider(manifold):
    """Distances from the origin grow as exp(t), while all turns around it by the angle t."""

    def carried(x, duration):
        origin = jnp.broadcast_to(manifold.origin, x.shape).astype(x.dtype)
        c, s = jnp.cos(duration), jnp.sin(duration)
        turn = jnp.stack([c, -s, s, c], axis=1).reshape(-1, 2, 2)
        way = manifold.log(origin, x)
        if way.ndim == 3:
            way = turn @ way @ jnp.swapaxes(turn, 1, 2)
        else:
            way = (turn @ way[..., None])[..., 0]
        return manifold.exp(origin, jnp.exp(duration).reshape(-1, *(1,) * (x.ndim - 1)) * way)

    return carried


def turned(x, duration):
    w = jnp.asarray([[0.0, -0.9, 0.4], [0.9, 0.0, -0.2], [-0.4, 0.2, 0.0]], x.dtype)
    return jax.vmap(lambda h: jax.scipy.linalg.expm(h * w))(duration) @ x


MAPS = {
    Sphere(2): sphere_map,
    Torus(2): torus_map,
    Hyperbolic(2): wider(Hyperbolic(2)),
    SPD(2): wider(SPD(2)),
    SO3(): turned,
}
CURVED = [Sphere(2), Torus(2), Hyperbolic(2), SPD(2)]


def velocity_of(manifold):
    def velocity(x, t, labels=None):
        return jax.jvp(lambda h: MAPS[manifold](x, h), (jnp.zeros_like(t),), (jnp.ones_like(t),))[1]

    return velocity


def network(manifold):
    """The average velocity of the known map, plus `wrong` times another tangent vector."""

    def apply_fn(params, x, span, labels=None):
        duration = span.t - span.s
        none = duration == 0
        way = manifold.log(x, MAPS[manifold](x, jnp.where(none, 1.0, duration)))
        safe = jnp.where(none, 1.0, duration).reshape(-1, *(1,) * (x.ndim - 1))
        here = none.reshape(safe.shape)
        u = jnp.where(here, velocity_of(manifold)(x, span.s), way / safe)
        bent = manifold.to_tangent(x, jnp.sin(3 * x + span.t.reshape(safe.shape)))
        return u + params["wrong"] * bent

    return apply_fn


def draws(manifold, n=6, scale=0.5):
    """Pairs of points and spans, some of them backwards, in float64."""
    keys = jax.random.split(KEY, 3)
    origin = jnp.broadcast_to(manifold.origin, (n, *manifold.shape)).astype(float)
    x0, x1 = (manifold.wrapped_normal(key, origin, scale) for key in keys[:2])
    s, t = jax.random.uniform(keys[2], (2, n), float)
    return x0, x1, Span(s, t)


def losses(manifold, identity, **more):
    """The loss of the known map, and of two wrong ones."""
    with jax.enable_x64(True):
        x0, x1, span = draws(manifold)
        if isinstance(identity, Consistency):
            span = Span(span.s, jnp.ones_like(span.t))
        more = {"teacher": velocity_of(manifold)} | more
        path = GeodesicPath(manifold)
        loss_fn = make_flow_map_loss_fn(network(manifold), identity, path, **more)
        noise = {"split": jnp.linspace(0.1, 0.9, len(x0))} if "split" in loss_fn.noise else {}
        value = jax.jit(lambda p: loss_fn(p, x0, x1, span, None, noise=noise))
        return [float(value({"wrong": jnp.asarray(w)})) for w in (0.0, 0.05, 0.2)]


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("manifold", nightly_but(CURVED, CURVED[0]), ids=repr)
@pytest.mark.parametrize(
    "identity",
    [MeanFlow(), MeanFlow(tangent="network", normalise=0.5), Lagrangian(), Semigroup(split=None)],
    ids=["Eulerian", "Eulerian of the network", "Lagrangian", "semigroup"],
)
def test_the_map_of_a_flow_obeys_the_identity_and_another_does_not(manifold, identity):
    right, near, far = losses(manifold, identity)
    assert right < 1e-22
    assert 1e-6 < near < far


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("identity", [AlphaFlow(0.5), AlphaFlow(0.0), Consistency(0.3)], ids=repr)
def test_a_map_along_geodesics_obeys_those_that_follow_the_pair(identity):
    right, near, far = losses(SO3(), identity)
    assert right < 1e-22
    assert 1e-6 < near < far


@pytest.mark.slow
@pytest.mark.parametrize("identity", [Lagrangian(), Semigroup()], ids=repr)
def test_without_a_teacher_the_diagonal_is_the_velocity(identity):
    assert losses(Sphere(2), identity, teacher=None)[0] < 1e-22


@pytest.mark.slow
@pytest.mark.parametrize("identity", [MeanFlow(derivative="fd"), Lagrangian("fd")], ids=repr)
def test_a_finite_difference_serves_as_well(identity):
    right, near, _ = losses(Sphere(2), identity)
    assert right < 1e-8 < near


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(
    "identity",
    [MeanFlow(normalise=0.1), Lagrangian(), Semigroup(0.3), AlphaFlow(0.4), Consistency(0.3)],
    ids=repr,
)
def test_on_a_flat_manifold_the_losses_are_those_of_the_straight_path(identity):
    def apply_fn(params, x, span, labels):
        return params * jnp.sin(x + span.s[:, None]) * (1 + span.t[:, None] ** 2)

    with jax.enable_x64(True):
        x0, x1, span = draws(Euclidean(2))
        if isinstance(identity, Consistency):
            span = Span(span.s, jnp.ones_like(span.t))
        found = [
            jax.value_and_grad(make_flow_map_loss_fn(apply_fn, identity, path))(
                1.3, x0, x1, span, None
            )
            for path in (None, GeodesicPath(Euclidean(2)), AffinePath())
        ]
        np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("manifold", [*CURVED, SO3()], ids=repr)
def test_a_network_that_begins_at_zero_has_finite_gradients(manifold):
    """Its jumps end where they start, on and off the diagonal."""
    x0, x1, _ = draws(manifold)
    x0, x1 = (x.astype(jnp.float32) for x in (x0, x1))
    s = jnp.asarray([0.0, 0.2, 0.5, 0.5, 0.7, 1.0])
    span = Span(s, jnp.asarray([1.0, 0.9, 0.5, 0.6, 0.2, 1.0]))

    def apply_fn(params, x, span, labels):
        return params * (x + span.t.reshape(-1, *(1,) * (x.ndim - 1)))

    path = GeodesicPath(manifold)
    x_s, v = path.sample(x0, x1, s)
    for identity in (MeanFlow(), Lagrangian(), Semigroup()):
        loss_fn = make_flow_map_loss_fn(apply_fn, identity, path)
        value, slope = jax.jit(jax.value_and_grad(loss_fn))(0.0, x0, x1, span, None)
        assert np.isfinite(value)
        assert np.isfinite(slope)
        if isinstance(identity, MeanFlow):  # at u = 0 it is flow matching
            expected = jnp.mean(path.distance(jnp.zeros_like(v), v, x_s, s))
            assert float(value) == pytest.approx(float(expected), rel=1e-4)


def with_divergence(params, x, span, labels=None):
    """The sphere's average velocity and the average of its divergence, -2 z, over 2."""
    tau = span.t - span.s
    grown = -2 * jnp.log(jnp.cosh(tau) + (x @ AXIS) * jnp.sinh(tau))
    safe = jnp.where(tau == 0, 1, tau)
    average = jnp.where(tau == 0, -2 * (x @ AXIS), grown / safe) / 2
    u = network(Sphere(2))({"wrong": params["wrong"]}, x, span)
    return Output(velocity=u, divergence=average + params["wrong"] * x[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("identity", [MeanFlow(), Lagrangian(), Semigroup()], ids=repr)
def test_the_average_divergence_obeys_them_too(identity):
    with jax.enable_x64(True):
        x0, x1, span = draws(Sphere(2))
        loss_fn = make_flow_map_loss_fn(
            with_divergence,
            identity,
            GeodesicPath(Sphere(2)),
            teacher=velocity_of(Sphere(2)),
            divergence=DivergenceHead(scale=2.0, trace="exact"),
        )
        value = jax.jit(lambda p: loss_fn(p, x0, x1, span, None))
        assert value({"wrong": 0.0}) < 1e-22
        assert value({"wrong": 0.1}) > 1e-5


@pytest.mark.slow
def test_probes_of_the_divergence_are_in_the_tangent_space():
    head, x = DivergenceHead(scale=2.0), Sphere(2).uniform(KEY, (4000,))
    x = jnp.broadcast_to(x[:1], x.shape)
    noise = {"probe": jax.random.normal(KEY, x.shape)}
    field = velocity_of(Sphere(2))
    found = head.averages(field, x, jnp.zeros(len(x)), noise, Sphere(2))["divergence"]
    assert float(found.mean()) == pytest.approx(
        float(-x[0] @ AXIS), abs=4 * float(found.std()) / 63
    )


def test_the_likelihood_in_a_few_jumps():
    x = Sphere(2).uniform(KEY, (20,))

    def average(x, span, labels):
        return with_divergence({"wrong": 0.0}, x, span)

    found = few_step_log_likelihood(
        average, x, scale=2.0, steps=3, source=UniformOn(Sphere(2)), manifold=Sphere(2)
    )
    z = np.asarray(x @ AXIS, np.float64)
    z0 = np.tanh(np.arctanh(z) - 1)
    expected = np.log((1 - z0**2) / (1 - z**2)) - math.log(4 * math.pi)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("manifold", [*CURVED, SO3()], ids=repr)
def test_jumps_land_where_the_flow_does_in_one_or_in_several(manifold):
    x0 = draws(manifold)[0].astype(jnp.float32)
    apply_fn = network(manifold)

    def velocity(x, span, labels):
        return apply_fn({"wrong": 0.0}, x, span)

    expected = MAPS[manifold](x0, jnp.ones(len(x0)))
    for steps in (1, 4):
        found = solve(velocity, x0, spec=Jumps(steps, manifold=manifold), save_at=[0.3, 1.0])
        assert float(jnp.max(manifold.dist(found.x1, expected))) < 1e-4
        manifold.check("x1", found.x1)
        early = MAPS[manifold](x0, jnp.full(len(x0), 0.3))
        assert float(jnp.max(manifold.dist(found.trajectory[0], early))) < 1e-4
    back = solve(velocity, found.x1, spec=Jumps(2, manifold=manifold), t0=1.0, t1=0.0)
    assert float(jnp.max(manifold.dist(back.x1, x0))) < 1e-3


@pytest.mark.slow
def test_a_network_that_leaves_the_tangent_space_jumps_on_the_manifold():
    x0 = Sphere(2).uniform(KEY, (5,))
    found = solve(lambda x, span, labels: 3 * x + 1, x0, spec=Jumps(2, manifold=Sphere(2)))
    np.testing.assert_allclose(jnp.linalg.norm(found.x1, axis=1), 1, atol=1e-6)


def test_jumps_take_the_manifold_of_the_path():
    jumps = Jumps(2).on_path(GeodesicPath(Sphere(2)))
    assert jumps.manifold == Sphere(2)
    assert jumps.describe()["manifold"] == "Sphere(n=2)"
    assert "manifold" not in Jumps(2).describe()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Jumps(2, renoise=0.5, manifold=Sphere(2)), "write renoise=0"),
        (lambda: Jumps(2, grid="edm", manifold=Sphere(2)), "signal-to-noise ratio"),
        (lambda: Jumps(2, manifold=Sphere), "the manifold is the class Sphere"),
        (lambda: Jumps(2, manifold=Sphere(2)).on_path(AffinePath()), "leave the manifold of"),
        (lambda: Jumps(2, renoise=0.5).on_path(GeodesicPath(Sphere(2))), "write renoise=0"),
        (
            lambda: solve(lambda x, t, y: x, jnp.ones((2, 3)), spec=Jumps(manifold=Sphere(2))),
            "off by up to",
        ),
        (
            lambda: few_step_log_likelihood(
                with_divergence,
                jnp.ones((2, 3)),
                scale=1.0,
                steps=2,
                source=UniformOn(Sphere(2)),
                manifold=Sphere(2),
            ),
            "off by up to",
        ),
    ],
)
def test_what_a_manifold_has_not_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
