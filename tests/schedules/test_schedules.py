import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.schedules import (
    END,
    VP,
    Cosine,
    Custom,
    DiscreteVP,
    Linear,
    LinearVP,
    Polynomial,
    inverse_log_snr,
    log_snr,
)


def vp(t, low=0.1, high=20.0):
    """alpha = exp(-integral of beta / 2), the integral of a line by the trapezoid rule."""
    s = 1 - t
    alpha = np.exp(-0.25 * s * (low + low + s * (high - low)))
    return alpha, np.sqrt(1 - alpha**2)


def discrete(t, low=1e-4, high=0.02, steps=1000):
    """alpha^2 = prod (1 - beta_i), its logarithm by the formula of Euler and Maclaurin.

    The sum over i = 0, ..., k is the integral from -1/2 to k + 1/2, less 1/24 of the difference of
    the slopes at its ends; the next term is of order 1e-14.
    """
    slope = (high - low) / (steps - 1)
    ends = [low + slope * (k + 0.5) for k in (steps * (1 - t) - 1, -1.0)]
    integrals = [sum(b ** (n + 1) / (n * (n + 1)) for n in range(1, 9)) for b in ends]
    slopes = [1 / (1 - b) for b in ends]
    log = -(integrals[0] - integrals[1]) / slope + slope / 24 * (slopes[0] - slopes[1])
    return np.exp(0.5 * log), np.sqrt(-np.expm1(log))


def tanh_alpha(t):
    return jnp.tanh(2 * t) / jnp.tanh(2.0)


def linear_sigma(t):
    return 1 - t


# Each schedule with (alpha, sigma) written a second time, in numpy.
SCHEDULES = {
    "linear": (Linear(), lambda t: (t, 1 - t)),
    "linear_sigma_min": (Linear(1e-3), lambda t: (t, 1 - 0.999 * t)),
    "vp": (VP(), vp),
    "discrete_vp": (DiscreteVP(), discrete),
    "linear_vp": (LinearVP(), lambda t: (t, np.sqrt(1 - t**2))),
    "cosine": (Cosine(), lambda t: (np.sin(np.pi * t / 2), np.cos(np.pi * t / 2))),
    "polynomial_2": (Polynomial(2), lambda t: (t**2, 1 - t**2)),
    "polynomial_1.5": (Polynomial(1.5), lambda t: (t**1.5, 1 - t**1.5)),
    "polynomial_5": (Polynomial(5), lambda t: (t**5, 1 - t**5)),
    "custom": (
        Custom(tanh_alpha, lambda t: (1 - t) ** 2),
        lambda t: (np.tanh(2 * t) / np.tanh(2), (1 - t) ** 2),
    ),
    "custom_rooted": (
        Custom(lambda t: t**1.5, lambda t: jnp.sqrt(1 - t**3)),
        lambda t: (t**1.5, np.sqrt(1 - t**3)),
    ),
}
every_schedule = pytest.mark.parametrize("name", SCHEDULES)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

INNER = np.linspace(0.002, 0.998, 250)
# Both ends, times within reach of them, and the inside: one array, so that each pair of a schedule
# and a dtype compiles one program.
TIMES = np.concatenate([[0, 1e-9, 1e-6, 1e-4], INNER, [1 - 1e-4, 1 - 1e-6, 1 - 1e-9, 1]])


@functools.cache
def all_evaluated(dtype):
    """Everything about every schedule at TIMES, in numpy, by one program: name -> key -> values."""

    def slope(f, t):
        return jax.jvp(f, (t,), (jnp.ones_like(t),))[1]

    def gradient(f, t):
        return jax.grad(lambda t: jnp.sum(f(t)))(t)

    def everything(schedule, t):
        out = {"log_snr": log_snr(schedule, t)}
        inverse = functools.partial(inverse_log_snr, schedule)
        out |= {"t": inverse(out["log_snr"]), "t_slope": slope(inverse, out["log_snr"])}
        for key in ("alpha", "sigma", "d_alpha", "d_sigma"):
            f = getattr(schedule, key)
            out |= {key: f(t), "gradient of " + key: gradient(f, t)}
        return out

    @jax.jit
    def program(t):
        return {name: everything(schedule, t) for name, (schedule, _) in SCHEDULES.items()}

    with jax.enable_x64(dtype == "float64"):
        return jax.tree.map(np.asarray, program(jnp.asarray(TIMES, dtype)))


def evaluated(name, dtype):
    return all_evaluated(dtype)[name]


def inner(values):
    return values[4:-4]


@pytest.mark.slow
@every_schedule
def test_values_are_those_of_the_closed_form(name):
    schedule = evaluated(name, "float64")
    alpha, sigma = SCHEDULES[name][1](TIMES)
    np.testing.assert_allclose(schedule["alpha"], alpha, rtol=1e-12)
    np.testing.assert_allclose(schedule["sigma"], sigma, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(inner(schedule["sigma"]), inner(sigma), rtol=1e-12)


@every_schedule
def test_derivatives_are_those_of_finite_differences(name):
    # Central differences of the numpy twin: what the schedule declares to jax has no say in it.
    schedule, h = evaluated(name, "float64"), 1e-5
    after, before = SCHEDULES[name][1](INNER + h), SCHEDULES[name][1](INNER - h)
    for key, a, b in zip(("d_alpha", "d_sigma"), after, before, strict=True):
        np.testing.assert_allclose(
            inner(schedule[key]), (a - b) / (2 * h), rtol=2e-5, atol=1e-6, err_msg=key
        )


@every_schedule
@every_dtype
def test_derivatives_are_those_of_autodiff_and_finite_ends_included(name, dtype):
    schedule = evaluated(name, dtype)
    for key in ("alpha", "sigma"):
        derivative = schedule["gradient of " + key]
        np.testing.assert_allclose(schedule["d_" + key], derivative, rtol=1e-5, atol=1e-5)
    for key, value in schedule.items():
        if key not in ("log_snr", "t_slope"):  # the ratio itself is infinite at the ends
            assert np.all(np.isfinite(value)), key
            assert value.dtype == dtype, key


@every_schedule
@every_dtype
def test_a_schedule_begins_at_the_source_and_ends_at_the_data(name, dtype):
    schedule = evaluated(name, dtype)
    ends = [float(schedule[key][i]) for key in ("alpha", "sigma") for i in (0, -1)]
    left = {"vp": np.exp(-5.025), "discrete_vp": discrete(0.0)[0]}  # of the data, at t = 0
    if name in left:
        np.testing.assert_allclose(ends[::2], [left[name], np.sqrt(1 - left[name] ** 2)], rtol=1e-6)
        assert ends[1::2] == [1, 0]
    else:
        assert ends == [0, 1, 1, np.asarray(1e-3, dtype) if name == "linear_sigma_min" else 0]


@every_schedule
def test_the_signal_to_noise_ratio_increases(name):
    ratio = evaluated(name, "float64")["log_snr"]
    assert np.all(ratio[1:] > ratio[:-1])
    alpha, sigma = SCHEDULES[name][1](INNER)
    np.testing.assert_allclose(inner(ratio), 2 * np.log(alpha / sigma), rtol=1e-10, atol=1e-12)


@every_schedule
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-6), ("float64", 1e-10)])
def test_the_inverse_of_the_signal_to_noise_ratio(name, dtype, tolerance):
    schedule = evaluated(name, dtype)
    np.testing.assert_allclose(schedule["t"], TIMES.astype(dtype), rtol=0, atol=tolerance)
    assert schedule["t"][-1] == 1
    # Away from the ends, where the ratio is infinite, its derivative is that of an inverse.
    part = {key: inner(value).astype("float64") for key, value in schedule.items()}
    rate = 2 * (part["d_alpha"] / part["alpha"] - part["d_sigma"] / part["sigma"])
    rtol = {"float32": 2e-3, "float64": 1e-8}[dtype]
    np.testing.assert_allclose(part["t_slope"] * rate, 1, rtol=rtol)


def test_ratios_are_recovered_from_the_times_of_their_inverse():
    # The round trip the other way; t near 1 cannot resolve the largest ratios.
    @jax.jit
    def again(ratio):
        return [log_snr(s, inverse_log_snr(s, ratio)) for s, _ in SCHEDULES.values()]

    with jax.enable_x64(True):
        ratio = jnp.linspace(-9.0, 6.0, 40)  # VP begins at -10.05
        for name, value in zip(SCHEDULES, again(ratio), strict=True):
            np.testing.assert_allclose(value, ratio, rtol=1e-10, atol=1e-10, err_msg=name)


def test_ratios_a_schedule_never_takes_give_the_nearest_end():
    ratio = jnp.array([-jnp.inf, -1e4, 1e4, jnp.inf])
    times = jax.jit(lambda r: [inverse_log_snr(s, r) for s, _ in SCHEDULES.values()])(ratio)
    for name, value in zip(SCHEDULES, times, strict=True):
        np.testing.assert_allclose(value, [0, 0, 1, 1], atol=1e-6, err_msg=name)


def test_the_bounded_derivative_is_exact_up_to_the_last_moment():
    with jax.enable_x64(True):
        t = jnp.array([1 - 2 * END, 1 - END, 1 - END / 2, 1.0])
        d_sigma = np.asarray(LinearVP().d_sigma(t))
        exact = -t / np.sqrt(1 - t**2 + 1e-300)
        np.testing.assert_allclose(d_sigma[:2], exact[:2], rtol=1e-9)
        np.testing.assert_allclose(d_sigma[2:], d_sigma[1], rtol=1e-9)
        np.testing.assert_allclose(d_sigma[3], -223.6, rtol=1e-3)


def test_a_custom_schedule_equals_the_built_in_one_it_copies():
    with jax.enable_x64(True):
        t = jnp.asarray(INNER)
        custom = Custom(lambda t: t, lambda t: jnp.sqrt(1 - t**2))
        ours, theirs = jax.jit(
            lambda t: [[s.sigma(t), s.d_sigma(t)] for s in (custom, LinearVP())]
        )(t)
        np.testing.assert_allclose(ours, theirs, rtol=1e-11)


def test_a_custom_schedule_can_be_made_inside_a_program_and_compared():
    @jax.jit
    def value(t):
        return Custom(jnp.square, linear_sigma).alpha(t)

    assert value(0.5) == 0.25
    assert Custom(jnp.square, linear_sigma) == Custom(jnp.square, linear_sigma)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(-0.1), r"\[0, 1\)"),
        (lambda: Linear(1.0), r"\[0, 1\)"),
        (lambda: Linear(float("nan")), r"\[0, 1\)"),
        (lambda: VP(0.0, 20.0), "0 < beta_min <= beta_max"),
        (lambda: VP(2.0, 1.0), "beta_min=2.0 and beta_max=1.0"),
        (lambda: VP(0.1, float("inf")), "both finite"),
        (lambda: Polynomial(0.5), r"Polynomial must lie in \[1, inf\); got 0.5"),
        (lambda: Polynomial(float("nan")), r"\[1, inf\); got nan"),
        (lambda: Custom(lambda t: t, lambda t: 1.0 + t), r"sigma\(1\) = 2 instead of 0"),
        (lambda: Custom(lambda t: 1 - t, lambda t: t), r"alpha\(0\) = 1 instead of 0, alpha\(1\)"),
        (lambda: Custom(lambda t: t, lambda t: 1 - 0.9 * t), r"tolerance=0.01.*sigma\(1\) = 0.1"),
        (
            lambda: Custom(lambda t: t + 0.3 * jnp.sin(2 * jnp.pi * t), lambda t: 1 - t**9),
            "increase strictly.* t = 0.3[0-9]+ on",
        ),
        (
            lambda: Custom(lambda t: jnp.maximum(2 * t - 1, 0), lambda t: 1 - t**2),
            "increase strictly",
        ),
        (lambda: Custom(lambda t: 1.0, linear_sigma), "alpha_fn must return floats shaped as t"),
        (lambda: Custom(lambda t: jnp.log(t) + 1, linear_sigma), r"alpha\(0\) = -inf"),
        (lambda: Custom(lambda t: t, lambda t: 1 - 2 * t + t**3), "not negative"),
        (
            lambda: Custom(lambda t: t, lambda t: 1 - jnp.cbrt(2 * t - 1) / 2 - 0.5),
            r"derivative of sigma must be finite inside \(0, 1\); at 0.5 it is not",
        ),
    ],
)
def test_a_schedule_that_is_none_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_tolerance_of_a_custom_schedule_can_be_widened():
    assert Custom(lambda t: t, lambda t: 1 - 0.9 * t, tolerance=0.11).sigma(jnp.float32(1)) < 0.11
