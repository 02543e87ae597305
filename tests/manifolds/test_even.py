"""Functions of a length that are smooth in its square: their series, and where these end."""

from fractions import Fraction
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.manifolds import even

TERMS = 7


def times(a, b):
    return [sum(a[i] * b[k - i] for i in range(k + 1)) for k in range(TERMS)]


def inverse(a):
    found = [1 / a[0]]
    for k in range(1, TERMS):
        found.append(-sum(a[i] * found[k - i] for i in range(1, k + 1)) / a[0])
    return found


def log(a):
    """Of a series that begins with 1: the integral of a' / a."""
    slope = [*((k + 1) * a[k + 1] for k in range(TERMS - 1)), Fraction(0)]
    return [Fraction(0), *(c / (k + 1) for k, c in enumerate(times(slope, inverse(a))))][:TERMS]


K = range(TERMS)
COS, SIN = ([Fraction((-1) ** k, factorial(2 * k + j)) for k in K] for j in (0, 1))
COSH, SINH = [[abs(c) for c in series] for series in (COS, SIN)]
TANH = times(SINH, inverse(COSH))
ARCSINE = [Fraction(factorial(2 * k), 4**k * factorial(k) ** 2 * (2 * k + 1)) for k in K]
ARCTANGENT = [Fraction((-1) ** k, 2 * k + 1) for k in K]
# Each with its power series in s = r^2, and itself as a function of r.
FUNCTIONS = {
    "cos": (even.cos, COS, np.cos),
    "sin_over": (even.sin_over, SIN, lambda r: np.sin(r) / r),
    "versine_over": (
        even.versine_over,
        [-c for c in COS[1:]],
        lambda r: 2 * (np.sin(r / 2) / r) ** 2,
    ),
    "log_sin_over": (
        lambda s: even.log_sin_over(s, 1e-9),
        log(SIN),
        lambda r: np.log(np.sin(r) / r),
    ),
    "tanh_over": (even.tanh_over, TANH, lambda r: np.tanh(r) / r),
    "sech_squared": (even.sech_squared, inverse(times(COSH, COSH)), lambda r: np.cosh(r) ** -2.0),
    "asinh_over": (
        even.asinh_over,
        [(-1) ** k * c for k, c in enumerate(ARCSINE)],
        lambda r: np.arcsinh(r) / r,
    ),
    "atanh_over": (
        even.atanh_over,
        [Fraction(1, 2 * k + 1) for k in K],
        lambda r: np.arctanh(r) / r,
    ),
    "log_sinh_over": (even.log_sinh_over, log(SINH), lambda r: np.log(np.sinh(r) / r)),
    "angle_over_sine": (
        lambda s: even.angle_over_sine(s, jnp.sqrt(1 - s)),
        ARCSINE,
        lambda r: np.arcsin(r) / r,
    ),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


@every_function
def test_the_coefficients_are_those_of_the_series(name, monkeypatch):
    seen = []
    monkeypatch.setattr(even, "_series", lambda s, series: seen.append(series) or s)
    FUNCTIONS[name][0](jnp.zeros(()))
    expected = ARCTANGENT if name == "angle_over_sine" else FUNCTIONS[name][1]
    ((*found,),) = seen
    assert len(found) >= 5
    np.testing.assert_allclose(found, [float(c) for c in expected[: len(found)]], rtol=1e-15)


@every_function
def test_the_series_meets_the_function_to_the_last_digits(name):
    function, _, exact = FUNCTIONS[name]
    r = np.concatenate([np.linspace(1e-3, 0.2, 41), np.linspace(0.2, 0.9, 15)])
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(function)(jnp.asarray(r**2)))
    expected = exact(r.astype(np.longdouble)).astype(np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)


def test_large_lengths_neither_overflow_nor_cancel():
    r = np.array([5.0, 20.0, 400.0, 1e4], np.float32)
    s = jnp.asarray(r**2)
    np.testing.assert_allclose(even.log_sinh_over(s), r - np.log(2 * r), rtol=1e-4)
    np.testing.assert_allclose(even.sech_squared(s[:2]), 4 * np.exp(-2 * r[:2]), rtol=1e-3)
    np.testing.assert_array_equal(even.sech_squared(s[2:]), 0)
    np.testing.assert_allclose(even.tanh_over(s), 1 / r, rtol=1e-3)


def test_the_root_has_no_derivative_at_zero():
    s = jnp.array([0.0, 4.0])
    np.testing.assert_array_equal(even.root(s), [0, 2])
    np.testing.assert_array_equal(jax.grad(lambda s: jnp.sum(even.root(s)))(s), [0, 0.25])
