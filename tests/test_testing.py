import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
from fmjax.samplers.ode import solve, solver_spec
from fmjax.schedules import VP, Cosine, Linear, LinearVP, Polynomial
from fmjax.testing import FiniteDataFlow, GaussianFlow, MixtureFlow

COV = np.array([[1.0, 0.6], [0.6, 0.5]])
CENTERS = np.array([[-2.0, 0.5], [1.0, 1.0], [0.5, -2.0]])
MIXTURE = MixtureFlow([0.5, 0.3, 0.2], CENTERS, np.stack([0.2 * COV, COV, 0.5 * COV]))
IMAGES = GaussianFlow(np.linspace(-1, 1, 192).reshape(3, 8, 8), 0.5)
FLOWS = {
    "a number": GaussianFlow(1.5, 0.5, Cosine()),
    "a vector": GaussianFlow([1.0, -2.0], [0.5, 2.0], VP()),
    "a covariance": GaussianFlow([1.0, -2.0], COV, Polynomial(2)),
    "images": IMAGES,
    "numbers": MixtureFlow([1, 3], [-1.0, 2.0], [0.5, 1.0]),
    "vectors": MixtureFlow([1, 3], [[-1.0, 0.0], [2.0, 1.0]], 0.5, LinearVP()),
    "covariances": MIXTURE,
    "data": FiniteDataFlow(np.array([[0.0, 1.0], [2.0, 0.5], [-1.0, -1.0]]), Linear(0.01)),
}
flows = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)


def points(flow, n=6, t=None, dtype=np.float64):
    rng = np.random.default_rng(0)
    t = np.linspace(0.1, 0.9, n) if t is None else np.full(n, t)
    return jnp.asarray(rng.normal(size=(n, *flow.shape)), dtype), jnp.asarray(t, dtype)


@flows
def test_density_score_and_velocity_agree(flow):
    """score = grad log p, and the continuity equation d/dt log p + div u + u . grad log p = 0."""

    def one(x, t):
        u, log_p = (
            lambda x, t, f=f: f(x[None], t[None])[0] for f in (flow.velocity, flow.log_density)
        )
        divergence = jnp.trace(jax.jacfwd(u)(x, t).reshape(x.size, x.size))
        gradient, slope = jax.grad(log_p, (0, 1))(x, t)
        return gradient, slope + divergence + jnp.sum(u(x, t) * gradient)

    with jax.enable_x64(True):
        x, t = points(flow, 3)
        gradient, residual = jax.jit(jax.vmap(one))(x, t)
        np.testing.assert_allclose(flow.score(x, t), gradient, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(residual, np.zeros(3), atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@flows
def test_the_ends_are_finite_and_the_dtype_is_that_of_x(flow, dtype):
    with jax.enable_x64(dtype is np.float64):
        x, _ = points(flow, 2, dtype=dtype)
        both = jax.jit(lambda *at: (flow.velocity(*at), flow.score(*at), flow.log_density(*at)))
        found = both(x, jnp.array([0, 1], dtype))
        assert [f.dtype for f in found] == [dtype] * 3
        assert [f.shape for f in found] == [x.shape, x.shape, (2,)]
        assert all(np.all(np.isfinite(f)) for f in found)


@pytest.mark.parametrize("name", ["a covariance", "vectors", "covariances"])
def test_samples_have_the_stated_mean_and_covariance(name):
    flow, n = FLOWS[name], 100_000
    draw = jax.jit(lambda t: flow.sample(jax.random.key(1), n, t))
    for t in (0.0, 0.4, 1.0):
        apart = np.asarray(draw(t)) - np.asarray(flow.mean(jnp.float32(t)))
        products = apart[:, :, None] * apart[:, None]
        for values, expected in ((apart, 0), (products, np.asarray(flow.cov(jnp.float32(t))))):
            error = 4.5 * values.std(axis=0) / np.sqrt(n)
            assert np.all(np.abs(values.mean(axis=0) - expected) < error)


def test_moments_have_the_axes_of_t_first():
    t = jnp.linspace(0, 1, 5)
    assert IMAGES.mean(t).shape == (5, 3, 8, 8)
    assert IMAGES.cov(t).shape == (5, 192, 192)
    np.testing.assert_allclose(IMAGES.mean(t)[3], 0.75 * IMAGES.center, rtol=1e-6)
    np.testing.assert_allclose(IMAGES.cov(t)[3], (0.375**2 + 0.25**2) * np.eye(192), rtol=1e-6)


@pytest.mark.parametrize("name", ["a number", "a vector", "a covariance"])
def test_the_flow_lines_of_a_gaussian_solve_its_ode(name):
    flow = FLOWS[name]
    with jax.enable_x64(True):
        x, _ = points(flow)
        # On a part of [0, 1]: towards t = 1 the derivative of VP is not smooth.
        x1 = solve(flow.velocity, x, spec=solver_spec("dopri8", 20), t0=0.1, t1=0.8).x1
        np.testing.assert_allclose(flow.carry(x, 0.1, 0.8), x1, atol=1e-8)
        np.testing.assert_allclose(flow.carry(x1, 0.8, 0.1), x, atol=1e-8)


def test_the_flow_lines_of_a_straight_gaussian_end_at_m_plus_s_x():
    flow = GaussianFlow(2.0, 0.5)
    x = jnp.linspace(-2, 2, 9)
    np.testing.assert_allclose(flow.carry(x), 2 + 0.5 * x, rtol=1e-6)


def test_the_velocity_of_a_mixture_is_the_expected_velocity_of_its_pairs():
    """By importance weights: E[u | x_t = x] over the pairs that could have led to x."""
    flow, n, t = FLOWS["vectors"], 400_000, 0.4
    x1 = flow.sample(jax.random.key(2), n)
    x = jnp.array([[0.3, 0.2]])
    alpha, sigma = flow.schedule.alpha(t), flow.schedule.sigma(jnp.float32(t))
    x0 = (x - alpha * x1) / sigma
    weights = jax.nn.softmax(-0.5 * jnp.sum(x0**2, axis=1))
    u = flow.schedule.d_alpha(t) * x1 + flow.schedule.d_sigma(jnp.float32(t)) * x0
    mean = weights @ u
    error = 4.5 * jnp.sqrt(weights**2 @ (u - mean[None]) ** 2)
    assert jnp.all(jnp.abs(flow.velocity(x, jnp.array([t]))[0] - mean) < error)


def test_labels_choose_the_components_of_a_mixture_and_a_label_of_none_all_of_them():
    x, t = points(MIXTURE, 5, dtype=np.float32)
    labels = jnp.array([0, 1, 2, 3, -1])
    for name in ("velocity", "score", "log_density"):
        got = jax.jit(getattr(MIXTURE, name))(x, t, labels)
        for k in range(3):
            single = GaussianFlow(CENTERS[k], MIXTURE.spreads[k])
            expected = getattr(single, name)(x, t)[k]
            np.testing.assert_allclose(got[k], expected, rtol=1e-4, atol=1e-5)
            alone = getattr(MIXTURE.given(k), name)(x, t)[k]
            np.testing.assert_allclose(got[k], alone, rtol=1e-4, atol=1e-5)
        whole = getattr(MIXTURE, name)(x, t)
        np.testing.assert_allclose(got[3:], whole[3:], rtol=1e-5, atol=1e-6)


def test_the_guided_velocity_of_a_mixture_has_a_closed_form():
    x, t = points(MIXTURE, dtype=np.float32)
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    guided = classifier_free(MIXTURE.velocity, null_labels=3)
    expected = -MIXTURE.velocity(x, t) + 2 * MIXTURE.velocity(x, t, labels)
    np.testing.assert_allclose(guided(x, t, Guided(labels, 2.0)), expected, rtol=1e-5, atol=1e-5)


def test_samples_of_a_class_come_from_its_component():
    x = MIXTURE.sample(jax.random.key(0), 20_000, labels=jnp.full(20_000, 1))
    np.testing.assert_allclose(x.mean(axis=0), CENTERS[1], atol=0.04)
    np.testing.assert_allclose(np.cov(np.asarray(x).T), COV, atol=0.06)


DATA = np.array([[0.0, 1.0], [2.0, 0.5], [-1.0, -1.0]])


def test_the_flow_to_a_finite_data_set_is_the_limit_of_narrow_mixtures():
    data, narrow = FiniteDataFlow(DATA), MixtureFlow([1, 1, 1], DATA, 1e-4)
    x, t = points(data, dtype=np.float32)
    for f in ("velocity", "score", "log_density"):
        expected = getattr(narrow, f)(x, t)
        np.testing.assert_allclose(getattr(data, f)(x, t), expected, rtol=1e-3, atol=1e-3)


def test_the_flow_to_a_finite_data_set_ends_in_it():
    flow = FiniteDataFlow(DATA)
    x0 = jax.random.normal(jax.random.key(0), (64, 2))
    x1 = solve(flow.velocity, x0, spec=solver_spec("euler")).x1
    distance = jnp.linalg.norm(x1[:, None] - jnp.asarray(DATA, jnp.float32)[None], axis=2)
    assert float(distance.min(axis=1).max()) < 1e-6
    assert set(distance.argmin(axis=1).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), LinearVP()])
def test_near_the_end_the_expected_point_is_the_nearest(schedule):
    flow, data = FiniteDataFlow(DATA, schedule), jnp.asarray(DATA, jnp.float32)
    for t in (0.999, 0.99999, 1.0):
        times = jnp.full(3, t)
        np.testing.assert_allclose(flow.expected_x1(data + 0.1, times), DATA, atol=1e-6)
        assert jnp.all(jnp.isfinite(flow.velocity(data + 0.1, times)))


def test_samples_of_a_finite_data_set_are_its_points_and_noisy_before_the_end():
    flow = FiniteDataFlow(DATA)
    x = flow.sample(jax.random.key(0), 3000)
    assert {tuple(row) for row in x.tolist()} == {tuple(row) for row in DATA.tolist()}
    noisy = flow.sample(jax.random.key(0), 20_000, 0.5)
    np.testing.assert_allclose(noisy.mean(axis=0), 0.5 * DATA.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(
        np.cov(np.asarray(noisy).T), 0.25 * np.cov(DATA.T, bias=True) + 0.25 * np.eye(2), atol=0.03
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianFlow(0.0, 0.0), "positive"),
        (lambda: GaussianFlow([0.0, 0.0], -np.eye(2)), "positive definite"),
        (lambda: GaussianFlow([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (lambda: MixtureFlow([1.0, -1.0], [0.0, 1.0], 1.0), "positive numbers"),
        (lambda: MixtureFlow([1.0, 1.0], [0.0, 1.0, 2.0], 1.0), "2 components"),
        (lambda: MixtureFlow([1.0, 1.0], np.zeros((2, 3)), np.ones((2, 2))), "spreads"),
        (lambda: FiniteDataFlow(np.zeros((0, 2))), "at least one"),
        (lambda: FiniteDataFlow(3.0), "at least one"),
        (lambda: FiniteDataFlow([[np.nan]]), "finite"),
        (lambda: IMAGES.velocity(jnp.zeros((2, 3)), jnp.zeros(2)), "takes x"),
        (lambda: MIXTURE.score(jnp.zeros((2, 2)), jnp.float32(0.5)), "takes x"),
        (lambda: FLOWS["data"].score(jnp.zeros((2, 2)), jnp.zeros(3)), "takes x"),
    ],
)
def test_a_flow_that_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
