import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.paths import AffinePath, BrownianBridge, NoisyStraight, sde_drifts
from fmjax.schedules import VP, Cosine, Custom, Linear, LinearVP, Polynomial

T = np.concatenate([[0, 1e-6, 1e-3], np.linspace(0.02, 0.98, 25), [1 - 1e-3, 1 - 1e-6, 1]])
RNG = np.random.default_rng(0)
X0, X1, Z = RNG.normal(size=(3, len(T), 2))

PATHS = {
    "linear": AffinePath(Linear(0.05)),
    "vp": AffinePath(VP()),
    "linear_vp": AffinePath(LinearVP()),
    "cosine": AffinePath(Cosine()),
    "polynomial": AffinePath(Polynomial(2)),
    "custom": AffinePath(Custom(jnp.square, lambda t: jnp.sqrt(1 - t**4))),
    "bridge": BrownianBridge(0.7),
    "bridge_sharp": BrownianBridge(2.0, 1e-4),
    "noisy": NoisyStraight(0.3),
}


def noise_of(path, z):
    return {"z": z} if path.noise else {}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_velocity_is_the_time_derivative_of_every_path_ends_included(dtype):
    @jax.jit
    def both(x0, x1, z, t):
        out = {}
        for name, path in PATHS.items():
            at = functools.partial(path.sample, x0, x1, noise=noise_of(path, z))
            x_dot = jax.jvp(lambda t: at(t).x_t, (t,), (jnp.ones_like(t),))[1]  # noqa: B023
            u_dot = jax.grad(lambda t: jnp.sum(at(t).target))(t)  # noqa: B023
            out[name] = at(t), x_dot, u_dot
        # Of those with noise, the score too, which is finite at the ends, as is its derivative.
        scores = {}
        for name in ("bridge", "noisy"):
            score = PATHS[name].score
            total = lambda t: jnp.sum(score(x0, x1, t, {"z": z}))  # noqa: B023, E731
            scores[name] = jax.value_and_grad(total)(t)
        return out, scores

    with jax.enable_x64(dtype == "float64"):
        rtol = {"float32": 1e-4, "float64": 1e-9}[dtype]
        points, scores = both(*(a.astype(dtype) for a in (X0, X1, Z, T)))
        for name, (point, x_dot, u_dot) in points.items():
            np.testing.assert_allclose(point.target, x_dot, rtol=rtol, atol=rtol, err_msg=name)
            assert np.all(np.isfinite(u_dot)), name
            assert point.x_t.dtype == point.target.dtype == dtype, name
        for name, value_and_gradient in scores.items():
            assert all(np.all(np.isfinite(a)) for a in value_and_gradient), name


@pytest.mark.parametrize("name", ["linear", "linear_vp", "cosine", "bridge", "bridge_sharp"])
def test_a_path_begins_at_the_source_and_ends_at_the_data(name):
    path = AffinePath() if name == "linear" else PATHS[name]
    x_t = jax.jit(path.sample)(X0, X1, T.astype("float32"), noise_of(path, Z)).x_t
    x_t = np.asarray(x_t)
    np.testing.assert_array_equal(x_t[0], X0[0].astype("float32"))
    np.testing.assert_array_equal(x_t[-1], X1[-1].astype("float32"))


def test_the_bridge_by_finite_differences_of_its_equation():
    with jax.enable_x64(True):
        path, h, e, t = BrownianBridge(0.7, 0.02), 1e-6, 0.02, np.linspace(0.001, 0.999, 200)

        def std(t):
            return 0.7 * t * (1 - t) / np.sqrt(t * (1 - t) + 4 * e**2)

        np.testing.assert_allclose(path.std(t), std(t), rtol=1e-13)
        slope = (std(t + h) - std(t - h)) / (2 * h)
        np.testing.assert_allclose(path.d_std(t), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("e", [1e-1, 1e-2, 1e-3])
def test_the_rounded_bridge_is_bounded_and_close_to_the_brownian_one(e):
    # The closed forms of TorchCFM's SchrodingerBridgeConditionalFlowMatcher, sigma sqrt(t (1 - t))
    # and its derivative, to order e^2; the slope bounded as stated.
    sigma, path = 0.5, BrownianBridge(0.5, e)
    everywhere = np.linspace(0, 1, 10_001)
    with jax.enable_x64(True):
        slopes = np.asarray(path.d_std(jnp.asarray(everywhere)))
        t = np.linspace(0.1, 0.9, 81)
        q = t * (1 - t)
        std, d_std = np.asarray(path.std(t)), np.asarray(path.d_std(t))
    np.testing.assert_allclose(np.abs(slopes).max(), sigma / (2 * e), rtol=1e-9)
    share = 1 - std / (sigma * np.sqrt(q))
    assert np.all((share > 0) & (share < 2 * e**2 / q))
    difference = np.abs(d_std - sigma * (1 - 2 * t) / (2 * np.sqrt(q)))
    assert np.all(difference <= sigma * e**2 * np.abs(1 - 2 * t) / q**1.5 + 1e-12)


def test_the_marginal_of_the_bridge_has_its_mean_and_standard_deviation():
    # x0 and x1 fixed: over z, x_t has mean t x1 + (1 - t) x0 and deviation sigma sqrt(t (1 - t)).
    n, times, sigma = 40_000, np.array([0.0, 0.1, 0.5, 0.8, 1.0]), 0.7
    z = RNG.normal(size=(len(times), n))
    x0, x1 = np.full_like(z, -1.0), np.full_like(z, 2.0)
    x_t = jax.jit(BrownianBridge(sigma).sample)(x0, x1, times, {"z": z}).x_t
    np.testing.assert_allclose(np.mean(x_t, axis=1), 3 * times - 1, atol=5 * 0.35 / n**0.5)
    expected = sigma * np.sqrt(times * (1 - times))
    np.testing.assert_allclose(np.std(x_t, axis=1), expected, rtol=5 / (2 * n) ** 0.5, atol=1e-6)


@pytest.mark.parametrize("name", ["bridge", "noisy"])
def test_the_score_is_the_gradient_of_the_log_density(name):
    path, t = PATHS[name], T[2:-2]
    x0, x1, z = (a[2:-2] for a in (X0, X1, Z))

    @jax.jit
    def program(x0, x1, z, t):
        std = path.std(t)[:, None]

        def log_density(x):
            mean = t[:, None] * x1 + (1 - t[:, None]) * x0
            return -0.5 * jnp.sum(((x - mean) / std) ** 2)

        at = x0, x1, t, {"z": z}
        score = path.score(*at)
        weighted = path.score_weight(t)[:, None] * score
        return score, jax.grad(log_density)(path.sample(*at).x_t), weighted

    with jax.enable_x64(True):
        score, gradient, weighted = program(x0, x1, z, t)
        np.testing.assert_allclose(score, gradient, rtol=1e-8)
        np.testing.assert_allclose(weighted, -z, rtol=1e-12)


def test_the_drifts_of_the_brownian_bridge_are_those_of_the_pinned_diffusion():
    # Pinned at x1 the bridge drifts by (x1 - x) / (1 - t); in reversed time, by (x - x0) / t.
    sigma, t = 0.6, np.linspace(0.1, 0.9, 9)
    x0, x1, z = (a[:9] for a in (X0, X1, Z))
    with jax.enable_x64(True):
        path = BrownianBridge(sigma, 1e-6)
        program = jax.jit(lambda *at: (*path.sample(*at), path.score(*at)))
        x_t, u_t, score = (np.asarray(a) for a in program(x0, x1, t, {"z": z}))
    forward, backward = sde_drifts(u_t, score, sigma)
    np.testing.assert_allclose(forward, (x1 - x_t) / (1 - t[:, None]), rtol=1e-8)
    np.testing.assert_allclose(backward, (x_t - x0) / t[:, None], rtol=1e-8)


def test_paths_are_float32_from_bfloat16_inputs():
    # In bfloat16, t = 1 - 1/1000 is 1 and the noise would vanish early.
    x0, x1 = np.ones((1, 2), jnp.bfloat16), np.zeros((1, 2), jnp.bfloat16)
    t = np.array([0.999], np.float32)
    for path in (AffinePath(Linear()), BrownianBridge(1e-3), NoisyStraight(1e-3)):
        x_t, u_t = jax.jit(path.sample)(x0, x1, t, noise_of(path, x1))
        assert x_t.dtype == u_t.dtype == jnp.float32
        np.testing.assert_allclose(x_t, 0.001, rtol=1e-3)


@pytest.mark.parametrize("path", [BrownianBridge(), NoisyStraight()])
def test_a_stochastic_path_needs_its_noise(path):
    x, t = np.zeros((3, 2)), jnp.zeros(3)
    for call in (path.sample, path.score):
        with pytest.raises(InputError, match=r"takes the noise z; got none.*noise=path.noise"):
            call(x, x, t)
        with pytest.raises(InputError, match="takes the noise z; got w, z"):
            call(x, x, t, {"w": x, "z": x})
    with pytest.raises(InputError, match=r"shaped as x0, \(3, 2\); got \(3, 1\)"):
        path.sample(x, x, t, {"z": np.zeros((3, 1))})


def test_a_deterministic_path_takes_no_noise():
    x = np.zeros((3, 2))
    with pytest.raises(InputError, match="AffinePath takes no noise; got z"):
        AffinePath().sample(x, x, jnp.zeros(3), {"z": x})


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_sigma_must_be_positive(sigma):
    for make in (BrownianBridge, NoisyStraight):
        with pytest.raises(InputError, match=f"sigma of {make.__name__} must be a positive number"):
            make(sigma)


@pytest.mark.parametrize("softening", [0.0, -1e-3, 1.0, float("nan")])
def test_the_softening_must_be_positive(softening):
    with pytest.raises(InputError, match=r"softening of BrownianBridge must lie in \(0, 1\)"):
        BrownianBridge(1.0, softening)
