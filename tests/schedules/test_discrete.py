"""The diffusion of discrete steps: exact at each of them, and asked there by its number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.schedules import DiscreteVP

K = 1000
STEPS = np.arange(K)
TIMES = 1 - (STEPS + 1) / K


def test_alpha_and_sigma_at_every_step_are_those_of_the_products():
    products = np.cumprod(1 - np.linspace(1e-4, 0.02, K))
    with jax.enable_x64(True):
        t, schedule = jnp.asarray(TIMES), DiscreteVP()
        np.testing.assert_allclose(schedule.alpha(t), np.sqrt(products), rtol=1e-12)
        np.testing.assert_allclose(schedule.sigma(t), np.sqrt(1 - products), rtol=1e-11)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("steps", [2, 3, 7])
def test_few_steps_are_exact_too(steps):
    products = np.cumprod(1 - np.linspace(1e-3, 0.1, steps))
    with jax.enable_x64(True):
        t = jnp.asarray(1 - (np.arange(steps) + 1) / steps)
        alpha = DiscreteVP(1e-3, 0.1, steps).alpha(t)
    np.testing.assert_allclose(alpha, np.sqrt(products), rtol=1e-12)


def test_the_data_lie_one_step_before_the_first():
    ends = jnp.asarray([1.0])
    assert DiscreteVP().alpha(ends) == 1
    assert DiscreteVP().sigma(ends) == 0


def test_the_step_at_its_time_is_whole_to_the_last_bit():
    step = DiscreteVP().step(jnp.asarray(TIMES, jnp.float32))
    np.testing.assert_array_equal(step, STEPS)


def test_between_steps_the_number_is_a_fraction_and_stays_within():
    t = jnp.asarray([0.0, 0.4985, 0.9995, 1.0], jnp.float32)
    np.testing.assert_allclose(DiscreteVP().step(t), [999, 500.5, 0, 0], atol=1e-4)
    slopes = jax.vmap(jax.grad(DiscreteVP().step))(t[:2])
    np.testing.assert_array_equal(slopes, [-1000, -1000])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta_min": 0.0}, "0 < beta_min <= beta_max <= 0.1; got beta_min=0.0"),
        ({"beta_min": 0.03}, "got beta_min=0.03 and beta_max=0.02"),
        ({"beta_max": 0.5}, "beta_max=0.5"),
        ({"beta_max": float("nan")}, "beta_max=nan"),
        ({"steps": 1}, "number of steps of DiscreteVP"),
        ({"steps": 10.5}, "number of steps of DiscreteVP"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        DiscreteVP(**arguments)
