"""The geodesic random walk: on the manifold, with the law of the SDE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.manifolds import SO3, Euclidean, Hyperbolic, Product, Sphere, Torus, WrappedNormal
from fmjax.paths import AffinePath, GeodesicPath
from fmjax.samplers import sde_spec, solve_sde
from tests.conftest import nightly_but

SPHERE = Sphere(2)
PATH = GeodesicPath(SPHERE)
N = 8192
KEYS = jax.random.split(jax.random.key(0), N)
K = 3.0
NORTH = jnp.asarray([0.0, 0.0, 1.0])


def still(x, t, labels):
    return jnp.zeros_like(x)


def walk(steps, **more):
    settings = {"path": PATH, "diffusion": "constant", "denoise_last": False}
    return sde_spec("euler_maruyama", steps, **settings | more)


@pytest.mark.slow
def test_from_one_point_it_spreads_as_heat_does():
    """E z = exp(-g^2 t) on the sphere, the first eigenvalue of whose Laplacian is 2."""
    x0 = jnp.broadcast_to(NORTH, (N, 3))
    found = solve_sde(still, x0, KEYS, None, walk(40, scale=0.8), score=still, save_at=(0.5, 1.0))
    for state, t in zip(found.trajectory, (0.5, 1.0), strict=True):
        np.testing.assert_allclose(jnp.mean(state[:, 2]), np.exp(-0.8 * t), atol=0.02)
        np.testing.assert_allclose(jnp.linalg.norm(state, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(jnp.mean(state[:, :2], axis=0), 0, atol=0.03)


@pytest.mark.slow
def test_the_score_keeps_the_density_that_it_is_the_score_of():
    """exp(K z) on the sphere, of mean coth K - 1 / K, is left as it is."""

    def score(x, t, labels):
        return K * SPHERE.to_tangent(x, jnp.broadcast_to(NORTH, x.shape))

    z, angle = np.random.default_rng(0).uniform(size=(2, N))
    z = 1 + np.log(z + (1 - z) * np.exp(-2 * K)) / K
    radius, angle = np.sqrt(1 - z**2), 2 * np.pi * angle
    x0 = jnp.asarray(np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1), jnp.float32)
    found = solve_sde(still, x0, KEYS, None, walk(40), score=score).x1
    np.testing.assert_allclose(jnp.mean(found[:, 2]), 1 / np.tanh(K) - 1 / K, atol=0.015)
    np.testing.assert_allclose(jnp.var(found[:, 2]), 1 / K**2 - 1 / np.sinh(K) ** 2, atol=0.01)
    assert float(jnp.mean(SPHERE.dist(found, x0))) > 0.5  # and yet every point has moved


@pytest.mark.nightly
@pytest.mark.parametrize(
    "manifold", nightly_but([Torus(3), SO3(), Hyperbolic(2)], Hyperbolic(2)), ids=str
)
def test_a_short_walk_is_a_normal_step_in_the_metric(manifold):
    x0 = WrappedNormal(manifold).sample(jax.random.key(1), jnp.arange(N), manifold.shape)
    spec = walk(4, scale=0.01, path=GeodesicPath(manifold))
    found = solve_sde(still, x0, KEYS, None, spec, score=still).x1
    square = jnp.mean(manifold.dist(x0, found) ** 2)
    np.testing.assert_allclose(square, 0.01 * manifold.dim, rtol=0.05)
    assert float(jnp.max(manifold._off(found))) < 1e-6


@pytest.mark.slow
def test_an_example_depends_on_its_own_key():
    x0 = jnp.broadcast_to(NORTH, (4, 3))
    both = solve_sde(still, x0, KEYS[:4], None, walk(3), score=still).x1
    one = solve_sde(still, x0[:1], KEYS[2:3], None, walk(3), score=still).x1
    np.testing.assert_allclose(both[2:3], one, atol=1e-6)


POSE = Product({"position": Euclidean(3), "rotation": SO3()})
X0 = jnp.broadcast_to(NORTH, (4, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sde_spec(path=PATH, diffusion="constant"),
            "stochastic_heun has no step on Sphere",
        ),
        (
            lambda: sde_spec("churn", path=PATH, diffusion="constant"),
            "churn goes back along an affi",
        ),
        (lambda: sde_spec("euler_maruyama", path=PATH), "GeodesicPath has no sigma_t"),
        (lambda: sde_spec().on_path(PATH), "which the velocity on a GeodesicPath does not give"),
        (lambda: solve_sde(still, X0, KEYS[:4], None, walk(3)), "the score does not follow"),
        (
            lambda: solve_sde(still, 2 * X0, KEYS[:4], None, walk(3), score=still),
            "x0 must be points of Sphere",
        ),
        (
            lambda: solve_sde(
                still,
                jax.tree.map(lambda one: jnp.stack([one] * 4), POSE.origin),
                KEYS[:4],
                None,
                walk(3, path=GeodesicPath(POSE)),
                score=still,
            ),
            "takes one array",
        ),
        (lambda: walk(3).on_path(GeodesicPath(Torus(2))), "does not give"),
    ],
)
def test_what_does_not_fit_the_manifold_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_flat_space_is_as_before():
    spec = sde_spec("euler_maruyama", 3)
    assert spec.ode.manifold is None
    assert spec.on_path(AffinePath()).ode.solver == "euler"
