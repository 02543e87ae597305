import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.data.pixels import BIN_WIDTH, dequantize, to_pixels, to_unit
from fmjax.errors import InputError

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_every_level_survives_the_round_trip(wrap):
    unit = wrap(to_unit)(LEVELS)
    assert unit.dtype == jnp.float32
    np.testing.assert_array_equal(wrap(to_pixels)(unit), LEVELS)


def test_levels_cover_the_interval_evenly():
    unit = np.asarray(to_unit(LEVELS), np.float64)
    assert (unit[0], unit[-1]) == (-1, 1)
    np.testing.assert_allclose(np.diff(unit), 2 / 255, rtol=1e-4)


def test_a_value_goes_to_the_nearest_level():
    values = np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32)
    distance = np.abs(np.asarray(to_unit(to_pixels(values))) - values)
    assert distance.max() <= 1 / 255 + 1e-6


def test_what_lies_outside_is_clipped():
    pixels = to_pixels(np.array([-9.0, -1.001, 1.001, 9.0, np.inf, -np.inf], np.float32))
    np.testing.assert_array_equal(pixels, [0, 0, 255, 255, 255, 0])


def test_floats_pass_through_unchanged():
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.array([-3.0, 0.5], dtype)
        assert to_unit(x).dtype == dtype
        np.testing.assert_array_equal(to_unit(x), x)


def test_bfloat16_is_rounded_in_float32():
    x = to_unit(LEVELS).astype(jnp.bfloat16)
    expected = to_pixels(x.astype(jnp.float32))
    np.testing.assert_array_equal(to_pixels(x), expected)


def test_dequantised_levels_fill_their_bins_evenly_and_no_others():
    keys = jax.random.split(jax.random.key(0), 200)
    levels = np.broadcast_to(LEVELS.reshape(1, 16, 16), (200, 16, 16))
    x = np.asarray(jax.jit(dequantize)(keys, levels), np.float64)
    # The edge of a bin is rounded to either side in float32.
    assert np.mean(np.asarray(to_pixels(x)) != levels) < 1e-3
    w = (x - np.asarray(to_unit(levels), np.float64)) / (2 / 255)
    assert np.abs(w).max() < 0.5 + 1e-5
    counts = np.histogram(w, bins=10, range=(-0.5, 0.5))[0]
    np.testing.assert_allclose(counts, w.size / 10, atol=5 * np.sqrt(w.size / 10))
    assert pytest.approx(float(np.diff(np.asarray(to_unit(LEVELS)))[7]), rel=1e-4) == BIN_WIDTH


@pytest.mark.slow
def test_the_noise_of_an_example_is_a_function_of_its_key():
    keys, levels = jax.random.split(jax.random.key(0), 4), np.zeros((4, 3), np.uint8)
    x = dequantize(keys, levels)
    np.testing.assert_array_equal(dequantize(keys[2:], levels[2:]), x[2:])
    assert len(np.unique(x)) == 12


def test_floats_have_no_bins_to_fill():
    with pytest.raises(InputError, match="only uint8 pixels can be dequantised; got float32"):
        dequantize(jax.random.split(jax.random.key(0), 2), np.zeros((2, 3), np.float32))


def test_other_dtypes_are_refused():
    with pytest.raises(InputError, match="int32"):
        to_unit(np.arange(3, dtype=np.int32))
    with pytest.raises(InputError, match="uint8"):
        to_pixels(LEVELS)


def test_numpy_stays_numpy_off_the_device():
    assert isinstance(to_unit(LEVELS), np.ndarray)
    assert isinstance(to_unit(jnp.asarray(LEVELS)), jax.Array)
