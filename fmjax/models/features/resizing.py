"""Images of any size as the input of a network: three channels, one square size, floats."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from fmjax.conventions import Array
from fmjax.errors import InputError

_CHANNELS = 3


def as_colour(images: UInt8[Array, "n h w c"]) -> Float[Array, "n h w 3"]:
    """Images of uint8 ``(n, h, w, 1 or 3)`` as float32 ``(n, h, w, 3)``, from 0 to 255.

    Raises:
        InputError: they have another shape or dtype.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, _CHANNELS) or images.dtype != jnp.uint8:
        raise InputError(
            "a network of features takes images of uint8 (n, h, w, 1) or (n, h, w, 3); got "
            f"{images.dtype} of shape {images.shape}."
        )
    return jnp.broadcast_to(images, (*images.shape[:3], _CHANNELS)).astype(jnp.float32)


def resize_half_pixel(
    images: Float[Array, "n h w c"], size: int, *, antialias: bool
) -> Float[Array, "n {size} {size} c"]:
    """Bilinear, a pixel's centre at its middle: output i lies at (i + 1/2) scale - 1/2.

    Without antialiasing this is torch's ``interpolate(mode="bilinear", align_corners=False)``.

    Args:
        images: floats ``(n, h, w, c)``.
        size: of the square that comes out.
        antialias: whether a smaller output averages over all pixels that it covers.
    """
    shape = (images.shape[0], size, size, images.shape[-1])
    return jax.image.resize(images, shape, "bilinear", antialias=antialias)


def resize_tf1(images: Float[Array, "n h w c"], size: int) -> Float[Array, "n {size} {size} c"]:
    """Bilinear as in TensorFlow 1, without antialiasing: output i lies at i times the scale.

    Args:
        images: floats ``(n, h, w, c)``.
        size: of the square that comes out.
    """
    down, across = (jnp.asarray(_tf1_weights(n, size)) for n in images.shape[1:3])
    high = jax.lax.Precision.HIGHEST  # a TPU would multiply in bfloat16
    return jnp.einsum("ih,jw,nhwc->nijc", down, across, images, precision=high)


def _tf1_weights(before: int, after: int) -> np.ndarray:
    """What each input counts in each output, ``(after, before)``."""
    place = np.arange(after, dtype=np.float32) * np.float32(before / after)
    low = np.minimum(place.astype(int), before - 1)
    high = np.minimum(low + 1, before - 1)
    weights = np.zeros((after, before), np.float32)
    rows = np.arange(after)
    np.add.at(weights, (rows, low), 1 - (place - low))
    np.add.at(weights, (rows, high), place - low)
    return weights
