import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.numerics.inversion import invert_increasing


def cube_root(y):
    """x^3 + x = y by Cardano's formula."""
    s = np.sqrt(y**2 / 4 + 1 / 27)
    return np.cbrt(y / 2 + s) + np.cbrt(y / 2 - s)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-15)])
def test_the_root_is_that_of_the_closed_form(dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        y = np.linspace(0, 2, 12, dtype=dtype).reshape(3, 4)
        x = jax.jit(lambda y: invert_increasing(lambda x: x**3 + x, y))(y)
        assert x.dtype == dtype
        np.testing.assert_allclose(x, cube_root(y.astype("float64")), atol=tolerance)


@pytest.mark.slow
def test_small_roots_keep_their_relative_precision_and_other_brackets_work():
    with jax.enable_x64(True):
        y = jnp.log(jnp.array([1e-20, 1e-10, 1e-3, 0.5]))
        np.testing.assert_allclose(invert_increasing(jnp.log, y), jnp.exp(y), rtol=1e-11)
        roots = np.linspace(-3, 5, 9)
        x = invert_increasing(lambda x: x**3 + x, jnp.asarray(roots**3 + roots), -3.0, 5.0)
        np.testing.assert_allclose(x, roots, atol=1e-14)


def test_a_root_in_float32_is_right_to_its_last_digit_down_to_a_hundred_millionth():
    y = np.random.default_rng(0).uniform(1, 2, 1000).astype("float32") * np.float32(2.0**-30)
    assert np.abs(invert_increasing(lambda x: x, y) - y).max() <= 2.0**-48


def test_values_at_and_beyond_the_ends_give_the_ends_and_nan_stays():
    y = jnp.array([-jnp.inf, -1.0, 0.0, 1.0, 2.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(invert_increasing(lambda x: x**2, y), [0, 0, 0, 1, 1, 1, np.nan])


def test_a_function_that_is_infinite_at_its_ends_is_inverted_there_too():
    y = jnp.array([-jnp.inf, 0.0, jnp.inf])
    x = invert_increasing(lambda x: jnp.log(x / (1 - x)), y)
    np.testing.assert_array_equal(x, [0, 0.5, 1])


def test_derivatives_follow_the_implicit_function_theorem():
    # x = sqrt(y / a): dx/dy = 1 / 2 a x, d2x/dy2 = -1 / 4 a^2 x^3, dx/da = -x / 2 a.
    def x(y, a):
        return invert_increasing(lambda x: a * x**2, y)

    with jax.enable_x64(True):
        at = jnp.float64(0.3), jnp.float64(1.7)
        root = np.sqrt(0.3 / 1.7)
        first, second = jax.jit(lambda *a: (jax.grad(x, (0, 1))(*a), jax.grad(jax.grad(x))(*a)))(
            *at
        )
        np.testing.assert_allclose(first, [1 / (3.4 * root), -root / 3.4], rtol=1e-12)
        np.testing.assert_allclose(second, -1 / (4 * 1.7**2 * root**3), rtol=1e-12)
        forward = jax.jit(lambda *a: jax.jvp(x, a, (1.0, 0.0))[1])(*at)
        np.testing.assert_allclose(forward, first[0], rtol=1e-14)


def test_the_gradient_is_finite_where_the_slope_is_zero_or_infinite():
    functions = (jnp.square, jnp.sqrt, lambda x: jnp.log(x / (1 - x)))

    @jax.jit
    def slopes(x):
        inverses = [functools.partial(invert_increasing, f) for f in functions]
        pairs = [(inverse, f(x)) for inverse, f in zip(inverses, functions, strict=True)]
        backward = [jax.grad(lambda y, g=g: jnp.sum(g(y)))(y) for g, y in pairs]
        return backward, [jax.jvp(g, (y,), (jnp.ones_like(y),))[1] for g, y in pairs]

    for slope in jax.tree.leaves(slopes(jnp.array([0.0, 1.0]))):
        assert jnp.all(jnp.isfinite(slope)), slope
