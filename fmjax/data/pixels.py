"""Between the 256 levels of a pixel and the interval [-1, 1] in which flows are learned."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real, Shaped, UInt8

from fmjax.conventions import AnyArray, Array
from fmjax.errors import InputError

BIN_WIDTH = 2 / 255
"""The distance of two neighbouring levels in [-1, 1]."""


def to_unit(x: Real[AnyArray, "*shape"]) -> Float[AnyArray, "*shape"]:
    """Pixels to [-1, 1]; floats pass through unchanged.

    Args:
        x: uint8 levels 0 to 255, or floats, of any shape.

    Returns:
        float32 ``x / 127.5 - 1`` for uint8, `x` itself for floats.

    Raises:
        InputError: for any other dtype.
    """
    if not isinstance(x, np.ndarray):  # numpy stays numpy: data threads stay off the device
        x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if x.dtype != jnp.uint8:
        raise InputError(f"pixels must be uint8 (0 to 255) or floats, got {x.dtype}.")
    return x.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def dequantize(
    keys: Shaped[Array, "batch ..."], pixels: UInt8[Array, " batch *shape"]
) -> Float[Array, " batch *shape"]:
    """Pixels spread evenly over their bins: ``to_unit(pixels) + BIN_WIDTH * (w - 1/2)``.

    With w uniform on [0, 1), independent for each number, the 256 levels become a density: what
    discrete images are worth under a continuous model is then bounded by it. The ends of the range
    move half a bin out, to -1 - 1/255 and 1 + 1/255. Source: Theis et al., arXiv:1511.01844.

    Args:
        keys: one random key per example (batch,).
        pixels: uint8 levels (batch, ...).

    Returns:
        float32, shaped as pixels; `to_pixels` gives the pixels back, but for rounding at the edge
        of a bin.

    Raises:
        InputError: pixels are not uint8: floats have no bins to spread over.
    """
    pixels = jnp.asarray(pixels)
    if pixels.dtype != jnp.uint8:
        raise InputError(f"only uint8 pixels can be dequantised; got {pixels.dtype}.")
    w = jax.vmap(lambda key: jax.random.uniform(key, pixels.shape[1:]))(keys)
    return to_unit(pixels) + BIN_WIDTH * (w - 0.5)


def to_pixels(x: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    """[-1, 1] to the nearest of 256 levels; what lies outside is clipped.

    ``to_pixels(to_unit(p)) == p`` for every level p.

    Args:
        x: floats of any shape.

    Returns:
        uint8 of the same shape.

    Raises:
        InputError: for a dtype that is not floating.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"values in [-1, 1] must be floats, got {x.dtype}.")
    # In bfloat16 neighbouring levels near 255 coincide, so the arithmetic is float32.
    levels = jnp.round((x.astype(jnp.float32) + 1.0) * 127.5)
    return jnp.clip(levels, 0, 255).astype(jnp.uint8)
