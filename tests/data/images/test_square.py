"""Squares: the centre of an image, scaled as ADM's data were."""

import numpy as np
import pytest
from PIL import Image

from fmjax.data.images.square import to_square

RNG = np.random.default_rng(0)


def by_adm(image, side):
    """The function of guided-diffusion's image_datasets.py, as it stands there."""
    while min(*image.size) >= 2 * side:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = side / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    arr = np.array(image)
    crop_y = (arr.shape[0] - side) // 2
    crop_x = (arr.shape[1] - side) // 2
    return arr[crop_y : crop_y + side, crop_x : crop_x + side]


@pytest.mark.parametrize("size", [(8, 8), (20, 9), (9, 40), (67, 33), (5, 7), (16, 16), (17, 33)])
@pytest.mark.parametrize("channels", [1, 3])
def test_squares_are_those_of_adm(size, channels):
    pixels = RNG.integers(0, 256, (size[1], size[0], channels), np.uint8)
    image = Image.fromarray(pixels.squeeze() if channels == 1 else pixels)
    np.testing.assert_array_equal(np.array(to_square(image, 8)), by_adm(image, 8))


def test_an_image_of_the_size_keeps_its_pixels():
    pixels = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(np.array(to_square(Image.fromarray(pixels), 8)), pixels)
