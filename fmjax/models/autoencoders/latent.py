"""Encoded images: a normal distribution for each, and draws from it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.models.input_checks import check_rank


class Latent(NamedTuple):
    """What an encoder gives: a normal distribution with independent numbers.

    Attributes:
        mean: (batch, height, width, channels), unscaled.
        logvar: the logarithm of the variance, shaped as the mean; None of an encoder that has none.
    """

    mean: Float[Array, "B h w c"]
    logvar: Float[Array, "B h w c"] | None


def sample(latent: Latent, key: PRNGKeyArray) -> Float[Array, "B h w c"]:
    """Draws latents: mean + exp(logvar / 2) z, with z standard normal.

    Args:
        latent: of the encoder.
        key: of the draw.

    Returns:
        Shaped as the mean; the mean itself where there is no variance.
    """
    if latent.logvar is None:
        return latent.mean
    noise = jax.random.normal(key, latent.mean.shape, latent.mean.dtype)
    return latent.mean + jnp.exp(0.5 * latent.logvar) * noise


def check_images(x: Float[Array, "B H W {channels}"], channels: int, factor: int) -> None:
    """Refuses what is no batch of images that can be encoded.

    Args:
        x: what came in.
        channels: how many the encoder takes.
        factor: how many times smaller the sides of a latent are.

    Raises:
        InputError: it does not fit. Raised while tracing.
    """
    _check_array(x, "images", channels, "scale them to [-1, 1], x.astype(jnp.float32) / 127.5 - 1")
    if x.shape[1] % factor or x.shape[2] % factor:
        raise InputError(
            f"images of {x.shape[1]}x{x.shape[2]} cannot be encoded to sides {factor} times "
            f"smaller: crop or pad both sides to multiples of {factor}."
        )


def check_latents(z: Float[Array, "B h w {channels}"], channels: int) -> None:
    """Refuses what is no batch of latents.

    Args:
        z: what came in.
        channels: how many the decoder takes.

    Raises:
        InputError: it does not fit. Raised while tracing.
    """
    _check_array(z, "latents", channels, "write z.astype(jnp.float32)")


def _check_array(x: Array, what: str, channels: int, advice: str) -> None:
    check_rank(x, "(batch, height, width, channels)", 4, 4)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{what} have dtype {x.dtype}, expected a floating dtype: {advice}.")
    if x.shape[-1] != channels:
        raise InputError(
            f"{what} have shape {x.shape}, expected {channels} channels along the last axis."
        )
