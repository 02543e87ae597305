"""Solving on a manifold: never off it, of the declared order, forwards and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
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
    WrappedNormal,
)
from fmjax.paths import AffinePath, BrownianBridge, GeodesicPath, Joint
from fmjax.samplers import SOLVERS, invert, solve, solver_spec
from fmjax.samplers.time_grids import GRIDS
from tests.conftest import nightly_but

SPHERE = Sphere(2)
POSE = Product({"position": Euclidean(3), "rotation": SO3()})
MANIFOLDS = {
    "sphere": SPHERE,
    "torus": Torus(3),
    "so3": SO3(),
    "hyperbolic": Hyperbolic(2),
    "spd": SPD(2),
    "simplex": Simplex(2),
    "pose": POSE,
    "flat pose": FlatProduct((Euclidean(3), SO3())),
}
X0 = SPHERE.uniform(jax.random.key(0), (3,))
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def points(manifold, seed, scale=0.7):
    source = WrappedNormal(manifold, scale=scale)
    return source.sample(jax.random.key(seed), jnp.arange(4), manifold.shape)


# A rotation around e3 at a rate that changes in time, together with a flow towards e3 that does not
# follow geodesics at constant speed: z' = (1 - z^2) cos(3 t), whose solution is a tanh.


def flow(x, t, labels=None):
    rate = (2 + jnp.sin(3 * t))[:, None]
    turn = rate * jnp.stack([-x[:, 1], x[:, 0], 0 * x[:, 0]], axis=1)
    pull = jnp.cos(3 * t)[:, None] * (jnp.asarray([[0, 0, 1.0]]) - x[:, 2:] * x)
    return turn + pull


def flowed(x, t0, t1):
    x = np.asarray(x, np.float64)
    angle = 2 * (t1 - t0) - (np.cos(3 * t1) - np.cos(3 * t0)) / 3
    z = np.tanh(np.arctanh(x[:, 2]) + (np.sin(3 * t1) - np.sin(3 * t0)) / 3)
    phase = np.arctan2(x[:, 1], x[:, 0]) + angle
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(phase), radius * np.sin(phase), z], axis=1)


def error(solution, expected):
    return float(np.abs(np.asarray(solution, np.float64) - expected).max())


QUICK = {"geodesic_euler", "geodesic_heun", "tsit5"}
ON = [name for name, method in sorted(SOLVERS.items()) if not method.log_snr]
EVERY = nightly_but(ON, *sorted(QUICK))


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_the_order_on_the_sphere_is_the_declared_one_forwards_and_back(name):
    coarse = {1: 64, 2: 16, 3: 8}.get(SOLVERS[name].order, 4)
    for t0, t1 in ((0.0, 1.0), (0.9, 0.2)):
        errors = [
            error(
                solve(flow, X0, None, solver_spec(name, n, manifold=SPHERE), t0=t0, t1=t1).x1,
                flowed(X0, t0, t1),
            )
            for n in (coarse, 2 * coarse)
        ]
        order = np.log2(errors[0] / errors[1])
        assert order > SOLVERS[name].order - 0.3 or errors[1] < 2e-6, (name, t0, errors)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_states_never_leave_the_sphere(name):
    for steps in (3, 200):
        spec = solver_spec(name, steps, manifold=SPHERE)
        found = solve(flow, X0, None, spec, save_at=np.linspace(0, 1, 17))
        every = jnp.concatenate([found.trajectory.reshape(-1, 3), found.x1])
        radius = np.linalg.norm(np.asarray(every, np.float64), axis=1)
        np.testing.assert_allclose(radius, 1, atol=1e-6)


def towards(manifold, end):
    """A velocity that is not tangent everywhere, and carries points towards an end."""

    def velocity(x, t, labels):
        u = manifold.log(x, end)
        return jax.tree.map(lambda u, x: 2 * u + 0.3 * x, u, x)

    return velocity


def off(manifold, x):
    return float(jnp.max(manifold._off(x)))


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", MANIFOLDS)
@pytest.mark.parametrize("solver", nightly_but(["geodesic_euler", "geodesic_heun", "heun"], "heun"))
def test_states_never_leave_any_manifold_whatever_the_velocity(name, solver):
    manifold = MANIFOLDS[name]
    x0, end = points(manifold, 0), points(manifold, 1)
    spec = solver_spec(solver, 6, manifold=manifold)
    found = solve(towards(manifold, end), x0, None, spec, save_at=(0.0, 0.4, 0.77, 1.0))
    assert bool(found.success.all())
    assert off(manifold, found.x1) < 1e-6
    assert off(manifold, found.trajectory) < 1e-6
    assert bool((manifold.dist(found.x1, end) < manifold.dist(x0, end)).all())


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("control", ["batch", "sample"])
@pytest.mark.parametrize("name", ["tsit5", "geodesic_heun"])
def test_adaptive_solves_meet_their_tolerance_at_every_time(control, name):
    spec = solver_spec(name, control=control, manifold=SPHERE, **EXACT)
    found = solve(flow, X0, None, spec, t0=0.9, t1=0.1, save_at=(0.9, 0.53, 0.1))
    for state, t in zip(found.trajectory, (0.9, 0.53, 0.1), strict=True):
        assert error(state, flowed(X0, 0.9, t)) < 3e-4
        np.testing.assert_allclose(jnp.linalg.norm(state, axis=-1), 1, atol=1e-6)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["geodesic_euler", "geodesic_heun", "heun", "tsit5"])
def test_a_geodesic_is_followed_by_geodesic_steps_exactly_and_by_others_to_their_order(name):
    x0, x1 = X0, SPHERE.uniform(jax.random.key(1), (3,))
    u = SPHERE.log(x0, x1)

    def along(x, t, labels):
        return SPHERE.transport(x0, x, u)

    spec = solver_spec(name, 4, manifold=SPHERE)
    found = solve(along, x0, None, spec, save_at=(0.3, 0.6))
    atol = 2e-6 if SOLVERS[name].geodesic else 0.05
    np.testing.assert_allclose(found.x1, x1, atol=atol)
    for state, t in zip(found.trajectory, (0.3, 0.6), strict=True):
        np.testing.assert_allclose(state, SPHERE.exp(x0, t * u), atol=max(atol, 0.05))
        if SOLVERS[name].geodesic:
            np.testing.assert_allclose(state, SPHERE.exp(x0, t * u), atol=atol)


@pytest.mark.slow
def test_states_between_steps_do_not_cross_the_torus_where_an_angle_jumps():
    torus, x0 = Torus(1), jnp.asarray([[3.0]])

    def turn(x, t, labels):
        return jnp.ones_like(x)

    for name in ("heun", "geodesic_euler", "euler"):
        spec = solver_spec(name, 2, manifold=torus)
        found = solve(turn, x0, None, spec, save_at=(0.1, 0.2, 0.3))
        expected = torus.project(3.0 + jnp.asarray([[0.1], [0.2], [0.3]]))
        np.testing.assert_allclose(found.trajectory[:, 0], expected, atol=1e-6)


@pytest.mark.slow
def test_an_inversion_comes_back():
    spec = solver_spec("tsit5", manifold=SPHERE, **EXACT)
    ends = solve(flow, X0, None, spec).x1
    np.testing.assert_allclose(invert(flow, ends, None, spec).x1, X0, atol=5e-4)


@pytest.mark.slow
def test_the_velocity_is_evaluated_on_the_manifold_alone_and_as_often_as_is_reported():
    seen = []

    def watched(x, t, labels):
        jax.debug.callback(lambda x: seen.append(np.linalg.norm(x, axis=1)), x)
        return flow(x, t)

    for name in ("heun", "geodesic_heun", "geodesic_euler", "dopri5"):
        seen.clear()
        found = solve(watched, X0, None, solver_spec(name, 3, manifold=SPHERE))
        jax.effects_barrier()
        np.testing.assert_allclose(np.stack(seen), 1, atol=1e-6)
        assert len(seen) == int(found.nfe[0]), name
        times = solver_spec(name, 3, manifold=SPHERE).evaluation_times()
        assert len(times) == len(seen)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("spec", [("heun", 7), ("tsit5", 3), ("ab2", 5)])
def test_flat_space_costs_nothing(spec):
    """The same program, and so the same bits."""
    x0 = jax.random.normal(jax.random.key(0), (5, 3))

    def velocity(x, t, labels):
        return jnp.sin(x) * t[:, None]

    plain, flat = solver_spec(*spec), solver_spec(*spec, manifold=Euclidean(3))
    programs = [
        jax.jit(lambda x, spec=s: solve(velocity, x, None, spec, save_at=(0.5,))).lower(x0)
        for s in (plain, flat)
    ]
    assert programs[0].as_text() == programs[1].as_text()


@pytest.mark.slow
def test_geodesic_steps_in_flat_space_are_those_of_euler_and_heun():
    x0 = jax.random.normal(jax.random.key(0), (5, 3))

    def velocity(x, t, labels):
        return jnp.sin(x) * t[:, None]

    for name in ("euler", "heun"):
        flat = solve(velocity, x0, None, solver_spec(name, 6)).x1
        geodesic = solver_spec(f"geodesic_{name}", 6, manifold=Euclidean(3))
        np.testing.assert_allclose(solve(velocity, x0, None, geodesic).x1, flat, atol=1e-6)


@pytest.mark.slow
def test_guidance_goes_through_and_stays():
    def velocity(x, t, labels):
        return jnp.stack([labels.astype(x.dtype)] * 3, axis=1)

    guided = classifier_free(velocity, 0)
    spec = solver_spec("geodesic_heun", 5, manifold=SPHERE)
    found = solve(guided, X0, Guided(jnp.arange(3), 2.0), spec)
    np.testing.assert_allclose(jnp.linalg.norm(found.x1, axis=1), 1, atol=1e-6)
    twice = solve(lambda x, t, c: 2 * velocity(x, t, c), X0, jnp.arange(3), spec)
    np.testing.assert_allclose(found.x1, twice.x1, atol=1e-6)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["checkpointed", "direct"])
def test_gradients_go_through_a_solve(gradient):
    spec = solver_spec("geodesic_heun", 4, manifold=SPHERE, gradient=gradient)

    def end(scale):
        return jnp.sum(solve(lambda x, t, c: scale * flow(x, t), X0, None, spec).x1[:, 0])

    difference = (end(1.01) - end(0.99)) / 0.02
    np.testing.assert_allclose(jax.grad(end)(1.0), difference, rtol=1e-2)


def test_a_solver_takes_the_manifold_of_a_path_and_says_so():
    path = GeodesicPath(SPHERE)
    spec = solver_spec("geodesic_heun", 5).on_path(path)
    assert spec.manifold == SPHERE
    assert spec.describe()["manifold"] == "Sphere(n=2)"
    assert "manifold" not in solver_spec().describe()
    joint = Joint({"position": GeodesicPath(Euclidean(3)), "rotation": GeodesicPath(SO3())})
    assert solver_spec().on_path(joint).manifold.shape == POSE.shape
    assert hash(spec) == hash(solver_spec("geodesic_heun", 5, manifold=Sphere(2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: solver_spec("unipc", 5, manifold=SPHERE), "unipc steps in the signal-to-noise"),
        (lambda: solver_spec("dpmpp_2m", 5).on_path(GeodesicPath(SPHERE)), "dpmpp_2m steps in the"),
        (lambda: solver_spec("heun", 5, manifold=Sphere), "manifold is the class Sphere"),
        (lambda: solver_spec("heun", 5, manifold="sphere"), "the manifold must be an object"),
        (lambda: solver_spec(manifold=SPHERE).on_path(AffinePath()), "the solver is on Sphere"),
        (lambda: solver_spec(manifold=SPHERE).on_path(BrownianBridge()), "the solver is on Sphere"),
        (
            lambda: solver_spec(manifold=SPHERE).on_path(GeodesicPath(Torus(2))),
            "on Sphere.*path is GeodesicPath",
        ),
        (
            lambda: solve(flow, X0, None, solver_spec("geodesic_heun")),
            "write solver_spec",
        ),
        (lambda: solver_spec("geodesic_euler", rtol=1e-3, manifold=SPHERE), "no error estimate"),
    ],
)
def test_what_does_not_fit_the_manifold_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("grid", sorted(GRIDS))
def test_grids_in_the_signal_to_noise_ratio_are_refused_and_others_are_not(grid):
    in_ratio = grid.partition("_")[0] in ("edm", "exponential")
    for make in (
        lambda: solver_spec("heun", 5, grid=grid, manifold=SPHERE),
        lambda: solver_spec("heun", 5, grid=grid).on_path(GeodesicPath(SPHERE)),
    ):
        if in_ratio:
            with pytest.raises(InputError, match="lies in the signal-to-noise ratio"):
                make()
        else:
            assert make().grid is not None


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("manifold", "x0", "message"),
    [
        (SPHERE, 1.1 * X0, r"x0 must be points of Sphere.*off by up to 0.1"),
        (SPHERE, X0[:, :2], r"x0 must have shape \(..., 3\)"),
        (POSE, X0, "x0 must be built as the product is"),
        (SPD(2), -points(SPD(2), 0), "positive definite"),
        (Torus(2), jnp.full((3, 2), 90.0), "deg2rad"),
    ],
)
def test_a_start_off_the_manifold_is_refused(manifold, x0, message):
    for traced in (False, True):
        if traced and "shape" not in message and "built" not in message:
            continue  # a traced program has no values

        def run(x):
            return solve(flow, x, None, solver_spec("heun", 3, manifold=manifold))

        with pytest.raises(InputError, match=message):
            (jax.jit(run) if traced else run)(x0)
