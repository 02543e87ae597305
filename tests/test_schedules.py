import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.paths import AffinePath
from fmjax.schedules import Linear
from fmjax.times import LogitNormal, Uniform

T = jnp.linspace(0, 1, 101)


@pytest.mark.parametrize("sigma_min", [0.0, 1e-4, 0.1])
def test_derivatives_are_those_of_autodiff(sigma_min):
    s = Linear(sigma_min)
    for f, df in ((s.alpha, s.d_alpha), (s.sigma, s.d_sigma)):
        _, expected = jax.jvp(f, (T,), (jnp.ones_like(T),))
        np.testing.assert_allclose(df(T), expected, rtol=1e-6)


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
def test_a_schedule_begins_at_the_source_and_ends_at_the_data(sigma_min):
    s = Linear(sigma_min)
    assert (s.alpha(T[0]), s.sigma(T[0]), s.alpha(T[-1])) == (0, 1, 1)
    np.testing.assert_allclose(s.sigma(T[-1]), sigma_min, atol=1e-7)
    snr = s.alpha(T[:-1]) / s.sigma(T[:-1])
    assert jnp.all(jnp.diff(snr) > 0)


def test_the_velocity_is_the_time_derivative_of_the_path():
    path = AffinePath(Linear(0.05))
    x0, x1 = jax.random.normal(jax.random.key(0), (2, 5, 3))
    t = jnp.linspace(0, 1, 5)
    _, expected = jax.jvp(lambda t: path.sample(x0, x1, t).x_t, (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(path.sample(x0, x1, t).u_t, expected, rtol=1e-5, atol=1e-6)


def test_the_path_is_float32_from_bfloat16_inputs():
    # In bfloat16, t = 1 - 1/1000 is 1 and the noise would vanish early.
    x0, x1 = jnp.ones((1, 2), jnp.bfloat16), jnp.zeros((1, 2), jnp.bfloat16)
    x_t, u_t = AffinePath(Linear()).sample(x0, x1, jnp.array([0.999]))
    assert x_t.dtype == u_t.dtype == jnp.float32
    np.testing.assert_allclose(x_t, 0.001, rtol=1e-3)


@pytest.mark.parametrize("sigma_min", [-0.1, 1.0, float("nan")])
def test_sigma_min_outside_its_interval_is_refused(sigma_min):
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        Linear(sigma_min)


@pytest.mark.parametrize("law", [Uniform(), LogitNormal(), LogitNormal(-0.8, 0.6)])
def test_quantile_and_density_of_a_time_law_are_inverse(law):
    # F(quantile(u)) = u, so density(quantile(u)) * quantile'(u) = 1.
    u = jnp.linspace(0.01, 0.99, 99)
    t, slope = jax.jvp(law.quantile, (u,), (jnp.ones_like(u),))
    np.testing.assert_allclose(law.density(t) * slope, 1, rtol=1e-4)


@pytest.mark.parametrize("law", [Uniform(), LogitNormal(), LogitNormal(0.5, 0.7)])
def test_the_density_integrates_to_one_and_is_finite_at_the_ends(law):
    t = jnp.linspace(0, 1, 20_001)
    assert jnp.all(jnp.isfinite(law.density(t)))
    np.testing.assert_allclose(jnp.trapezoid(law.density(t), t), 1, rtol=1e-3)
    ends = law.quantile(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(ends, [0, 1])


def test_the_density_has_a_finite_gradient_at_the_ends():
    assert jnp.all(jnp.isfinite(jax.vmap(jax.grad(LogitNormal().density))(jnp.array([0.0, 1.0]))))


def test_a_logit_normal_law_needs_a_positive_std():
    with pytest.raises(InputError, match="positive"):
        LogitNormal(0.0, 0.0)
