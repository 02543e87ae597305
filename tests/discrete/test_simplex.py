"""Tokens as points of the simplex: the velocity of the logits, and the law that it reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fmjax import Draw, InputError, make_loss_fn, solve, solver_spec
from fmjax.discrete import (
    CosineKappa,
    DirichletPoints,
    SimplexPath,
    corners,
    nearest_corners,
    simplex_velocity,
)
from fmjax.manifolds import Simplex
from fmjax.paths import AffinePath, GeodesicPath
from fmjax.schedules import Linear, Polynomial

P = np.array([0.5, 0.2, 0.3])
GEOMETRY = pytest.mark.parametrize("geometry", ["linear", "fisher"])


@pytest.mark.day_cases(2)
@pytest.mark.slow
@GEOMETRY
@pytest.mark.parametrize("kappa", [Linear(), Polynomial(2), CosineKappa()], ids=repr)
def test_the_velocity_of_a_sure_guess_is_that_of_the_path(geometry, kappa):
    with jax.enable_x64(True):
        path = SimplexPath(4, geometry, kappa)
        x0 = path.source.sample(jax.random.key(0), jnp.arange(5), (2, 4)).astype(jnp.float64)
        x0 = x0 / x0.sum(-1, keepdims=True)
        x1 = corners(jnp.arange(10).reshape(5, 2) % 4, 4).astype(jnp.float64)
        t = jnp.linspace(0.1, 0.9, 5)
        plain = (
            GeodesicPath(Simplex(3), kappa) if geometry == "fisher" else AffinePath(kappa)
        ).sample(x0, x1, t)
        found = path.sample(x0, x1, t)
        np.testing.assert_allclose(found.x_t, plain.x_t)
        velocity = simplex_velocity(lambda x, t, labels: 80 * x1, path)
        np.testing.assert_allclose(velocity(found.x_t, t, None), plain.target, atol=1e-6)


@pytest.mark.quick_cases(1)
@GEOMETRY
def test_the_velocity_is_the_mean_over_the_corners(geometry):
    path = SimplexPath(3, geometry)
    x = path.source.sample(jax.random.key(1), jnp.arange(6), (3,))
    t = jnp.full(6, 0.3)
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(P, jnp.float32)), x.shape)
    found = simplex_velocity(lambda x, t, labels: logits, path)(x, t, None)
    expected = 0
    for y in range(3):
        end = jnp.broadcast_to(jax.nn.one_hot(y, 3), x.shape)
        to = Simplex(2).log(x, end) if geometry == "fisher" else end - x
        expected = expected + P[y] * to / 0.7
    np.testing.assert_allclose(found, expected, atol=2e-5)


def posterior_logits(path, n=200_000, key=0):
    """log p(x1 | x_t) of the path by its density: the source is uniform, the corners have P."""

    def of(x, t, labels):
        t = t[:, None]

        def one(y):
            e = jnp.broadcast_to(jax.nn.one_hot(y, 3), x.shape)
            if path.geometry == "linear":
                x0 = (x - t * e) / (1 - t)
                inside = jnp.all(x0 >= -1e-6, axis=-1)
                return jnp.where(inside, 0.0, -1e9)
            # Along the great circle from the corner: the density of polar coordinates around it.
            z = jnp.sqrt(jnp.maximum(x, 0))
            angle = jnp.arccos(jnp.clip(z[:, y], 0, 1 - 1e-6))
            start = angle / (1 - t[:, 0])
            inside = _inside(z, y, start)
            ratio = jnp.sin(start) / jnp.sin(angle) / (1 - t[:, 0])
            return jnp.where(inside, jnp.log(ratio), -1e9)

        logs = jnp.stack([one(y) for y in range(3)], axis=-1)
        return logs + jnp.log(jnp.asarray(P, jnp.float32))[None]

    return of


def _inside(z, y, angle):
    """Whether the point at this angle from the corner, in the direction of z, is in the orthant."""
    del z
    return angle <= jnp.pi / 2


@pytest.mark.nightly
@GEOMETRY
def test_the_exact_posterior_reaches_the_law_of_the_data(geometry):
    path, n = SimplexPath(3, geometry), 20_000
    x0 = path.source.sample(jax.random.key(0), jnp.arange(n), (3,))
    velocity = simplex_velocity(posterior_logits(path), path)
    if geometry == "fisher":
        solver = solver_spec("geodesic_euler", 400, manifold=path.manifold)
    else:
        solver = solver_spec("euler", 400)
    solver = solver.on_path(path)
    x1 = jax.jit(lambda x: solve(velocity, x, None, solver).x1)(x0)
    found = np.bincount(nearest_corners(x1), minlength=3)
    np.testing.assert_allclose(found / n, P, atol=0.015)
    assert np.mean(np.max(x1, axis=-1) > 0.95) > 0.98


@pytest.mark.day_cases(2)
@pytest.mark.slow
@GEOMETRY
def test_the_loss_is_the_cross_entropy(geometry):
    path = SimplexPath(3, geometry)
    x1 = corners(jnp.asarray([[0, 1], [2, 2]]), 3)
    logits = jax.random.normal(jax.random.key(0), (2, 2, 3))
    loss_fn = make_loss_fn(lambda params, x, t, labels: params, path)
    args = Draw(source=path.source, noise=loss_fn.noise)(jax.random.key(1), jnp.arange(2), x1)
    loss, grad = jax.value_and_grad(loss_fn)(logits, *args)
    expected = -np.mean(np.sum(x1 * jax.nn.log_softmax(logits), axis=-1))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert np.all(np.isfinite(grad))


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("concentration", [0.5, 1.0, 2.0])
def test_points_of_the_dirichlet_distribution(concentration):
    source = DirichletPoints(3, concentration)
    x = source.sample(jax.random.key(0), jnp.arange(20_000), (3,))
    assert np.all(np.asarray(x) > 0)
    np.testing.assert_allclose(x.sum(-1), 1, atol=1e-5)
    # Each probability has a beta distribution.
    for i in range(3):
        law = stats.beta(concentration, 2 * concentration)
        assert stats.kstest(np.asarray(x[:, i], np.float64), law.cdf).pvalue > 1e-3
    assert np.corrcoef(np.asarray(x), rowvar=False)[0, 1] == pytest.approx(-0.5, abs=0.02)
    point = np.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(
        source.log_prob(jnp.asarray(point)[None])[0],
        stats.dirichlet.logpdf(point, [concentration] * 3),
        rtol=1e-5,
    )
    alone = source.sample(jax.random.key(0), jnp.arange(5, 7), (3,))
    np.testing.assert_allclose(x[5:7], alone, rtol=1e-6)


def test_tokens_become_corners_and_come_back():
    tokens = jnp.asarray([[0, 3], [2, 1]])
    x = corners(tokens, 4, smoothing=0.1)
    np.testing.assert_allclose(x.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(nearest_corners(x), tokens)
    np.testing.assert_allclose(x[0, 0], [0.925, 0.025, 0.025, 0.025])


PATH = SimplexPath(3)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: SimplexPath(3, "round"), "unknown geometry of the simplex 'round'"),
        (lambda: SimplexPath(1), "the vocabulary, the number of tokens,"),
        (lambda: DirichletPoints(3, 0), "the concentration must be a positive number"),
        (
            lambda: DirichletPoints(3).sample(jax.random.key(0), jnp.arange(2), (4,)),
            "points of this simplex have shape (..., 3)",
        ),
        (lambda: corners(jnp.ones(3), 4), "tokens must be tokens, integers"),
        (lambda: corners(jnp.ones(3, int), 4, 1.0), "smoothing must lie in"),
        (lambda: simplex_velocity(lambda x, t, y: x, AffinePath()), "takes a SimplexPath"),
        (
            lambda: simplex_velocity(lambda x, t, y: x[:, :2], PATH)(
                jnp.ones((2, 3)) / 3, jnp.ones(2) / 2, None
            ),
            "the network must return floats shaped as x",
        ),
        (
            lambda: PATH.sample(jnp.ones((2, 4)) / 4, jnp.ones((2, 4)) / 4, jnp.ones(2) / 2),
            "x1 must be shaped as points of the simplex",
        ),
    ],
)
def test_what_is_wrong_is_said(wrong, sentence):
    with pytest.raises(InputError) as caught:
        wrong()
    assert sentence in str(caught.value), str(caught.value)
