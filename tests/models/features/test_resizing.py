"""Resizing against the formulas of torch and of TensorFlow 1, written out pixel by pixel."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.models.features.resizing import as_colour, resize_half_pixel, resize_tf1

RNG = np.random.default_rng(0)


def bilinear(image, size, place):
    """One image (h, w, c); `place(i, scale)` is where output i lies in the input."""
    out = np.zeros((size, size, image.shape[-1]))
    last = [n - 1 for n in image.shape[:2]]
    for i in range(size):
        for j in range(size):
            y, x = (
                np.clip(place(k, n / size), 0, None)
                for k, n in zip((i, j), image.shape[:2], strict=True)
            )
            low = [min(int(at), end) for at, end in zip((y, x), last, strict=True)]
            high = [min(k + 1, end) for k, end in zip(low, last, strict=True)]
            dy, dx = y - low[0], x - low[1]
            top = (1 - dx) * image[low[0], low[1]] + dx * image[low[0], high[1]]
            bottom = (1 - dx) * image[high[0], low[1]] + dx * image[high[0], high[1]]
            out[i, j] = (1 - dy) * top + dy * bottom
    return out


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("shape", "size"), [((5, 7, 2), 11), ((12, 9, 1), 4), ((6, 6, 1), 6)])
def test_both_conventions_equal_their_formulas(shape, size):
    image = RNG.uniform(0, 255, shape).astype(np.float32)
    torch = bilinear(image, size, lambda i, scale: (i + 0.5) * scale - 0.5)
    tensorflow = bilinear(image, size, lambda i, scale: i * scale)
    half = resize_half_pixel(jnp.asarray(image)[None], size, antialias=False)[0]
    np.testing.assert_allclose(half, torch, atol=1e-3)
    np.testing.assert_allclose(resize_tf1(jnp.asarray(image)[None], size)[0], tensorflow, atol=1e-3)


def test_an_antialiased_smaller_image_keeps_the_mean():
    image = jnp.asarray(RNG.uniform(size=(1, 64, 64, 1)))
    small = resize_half_pixel(image, 8, antialias=True)
    assert abs(float(small.mean() - image.mean())) < 0.005
    assert float(small.std()) < 0.2 * float(image.std())


def test_grey_becomes_three_equal_channels():
    grey = RNG.integers(0, 256, (2, 3, 3, 1), np.uint8)
    colour = as_colour(jnp.asarray(grey))
    assert colour.shape == (2, 3, 3, 3)
    assert np.array_equal(colour, np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 2), np.uint8), np.zeros((2, 4), np.uint8)],
    ids=["floats", "two channels", "rows"],
)
def test_other_arrays_are_refused(images):
    with pytest.raises(InputError, match=r"takes images of uint8 \(n, h, w, 1\) or .*; got"):
        as_colour(jnp.asarray(images))
