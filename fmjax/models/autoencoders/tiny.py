"""The tiny autoencoders of Ollin Boer Bohan (madebyollin/taesd): TAESD, TAESD3, TAEF1, TAEF2.

Encoder and decoder are sequences of convolutions and of residual blocks,

    block(x) = relu(conv(relu(conv(relu(conv(x))))) + x)

distilled from the autoencoders of Stable Diffusion, SD3, FLUX.1 and FLUX.2. Their latents are in
the scale that the flow works in: scale 1, shift 0. They have no variance.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from fmjax.conventions import Array
from fmjax.models.autoencoders.latent import Latent, check_images, check_latents
from fmjax.models.input_checks import check_sizes


def conv(width: int, name: str, dtype: Any, *, stride: int = 1, use_bias: bool = True) -> nn.Conv:
    """A 3x3 convolution with a row of zeros around the image, as PyTorch's padding=1."""
    padding = ((1, 1), (1, 1))
    return nn.Conv(
        width, (3, 3), stride, padding=padding, use_bias=use_bias, dtype=dtype, name=name
    )


def upsample(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Each pixel four times: (B, H, W, C) to (B, 2 H, 2 W, C)."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class TinyBlock(nn.Module):
    """Three convolutions with a way around them.

    Attributes:
        width: number of channels.
        pooled: whether x + pointwise(relu(norm(pointwise(x)))) of four times the channels is before
            them.
        dtype: what it computes in.
    """

    width: int
    pooled: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W width"]:
        """Transform images (B, H, W, width); same shape out."""
        if self.pooled:
            x = x + self._pool(x)
        h = nn.relu(conv(self.width, "conv_0", self.dtype)(x))
        h = nn.relu(conv(self.width, "conv_2", self.dtype)(h))
        return nn.relu(conv(self.width, "conv_4", self.dtype)(h) + x)

    def _pool(self, x: Array) -> Array:
        wide = 4 * self.width
        h = nn.Dense(wide, use_bias=False, dtype=self.dtype, name="pool_0")(x)
        exact: dict[str, Any] = {"dtype": jnp.float32, "use_fast_variance": False}
        h = nn.relu(nn.GroupNorm(4, epsilon=1e-5, name="norm", **exact)(h)).astype(self.dtype)
        return nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="pool_3")(h)


class TinyEncoder(nn.Module):
    """Images in [0, 1] to latents; fields as those of `TinyAutoencoder`."""

    width: int
    blocks: tuple[int, ...]
    latent_channels: int
    pooled: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """Encode (B, H, W, channels); layers are numbered as in TAESD."""
        x = conv(self.width, "layer_0", self.dtype)(x)
        i = 1
        for stage, count in enumerate(self.blocks):
            if stage:
                down = conv(self.width, f"layer_{i}", self.dtype, stride=2, use_bias=False)
                x, i = down(x), i + 1
            pooled = self.pooled and stage == len(self.blocks) - 1
            for _ in range(count):
                x = TinyBlock(self.width, pooled, self.dtype, name=f"layer_{i}")(x)
                i += 1
        return conv(self.latent_channels, f"layer_{i}", self.dtype)(x)


class TinyDecoder(nn.Module):
    """Latents to images in [0, 1]; fields as those of `TinyAutoencoder`."""

    width: int
    blocks: tuple[int, ...]
    channels: int
    pooled: bool
    dtype: Any

    @nn.compact
    def __call__(self, z: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        """Decode (B, h, w, latent channels); layers are numbered as in TAESD, whose 0 is a tanh."""
        x = conv(self.width, "layer_1", self.dtype)(3 * jnp.tanh(z / 3))
        x, i = nn.relu(x), 3
        for stage, count in enumerate(self.blocks):
            for _ in range(count):
                pooled = self.pooled and stage == 0
                x = TinyBlock(self.width, pooled, self.dtype, name=f"layer_{i}")(x)
                i += 1
            if stage < len(self.blocks) - 1:
                up = conv(self.width, f"layer_{i + 1}", self.dtype, use_bias=False)
                x, i = up(upsample(x)), i + 2
        return conv(self.channels, f"layer_{i}", self.dtype)(x)


class TinyAutoencoder(nn.Module):
    """TAESD and its kin. Called as ``model.apply({"params": params}, x, method="encode")``.

    Attributes:
        latent_channels: 4 of TAESD, 16 of TAESD3 and TAEF1, 32 of TAEF2.
        channels: of an image.
        width: channels between the layers.
        encoder_blocks: blocks of each stage of the encoder; all but the first begin by halving the
            sides.
        decoder_blocks: blocks of each stage of the decoder; all but the last end by doubling the
            sides.
        pooled: whether the blocks of the smallest images have a wide pointwise part, as in TAEF2.
        dtype: what it computes in; normalisation is float32, and so is what it gives.

    Example:
        >>> model = TinyAutoencoder(width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
        >>> z = jnp.zeros((1, 4, 4, 4))
        >>> images = jnp.zeros((1, 8, 8, 3))
        >>> params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        >>> decode = lambda variables, z: model.apply(variables, z, method="decode")
        >>> jax.eval_shape(decode, {"params": params}, z).shape
        (1, 8, 8, 3)
    """

    latent_channels: int = 4
    channels: int = 3
    width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    pooled: bool = False
    dtype: Any = jnp.float32

    @property
    def factor(self) -> int:
        """How many times smaller the sides of a latent are than those of its image."""
        return 2 ** (len(self.encoder_blocks) - 1)

    def setup(self):
        """The two halves."""
        check_sizes(self, "latent_channels", "channels", "width")
        self.encoder = TinyEncoder(
            self.width, self.encoder_blocks, self.latent_channels, self.pooled, self.dtype
        )
        self.decoder = TinyDecoder(
            self.width, self.decoder_blocks, self.channels, self.pooled, self.dtype
        )

    def encode(self, x: Float[Array, "B H W C"]) -> Latent:
        """Encode images.

        Args:
            x: (B, H, W, channels) in [-1, 1], H and W multiples of `factor`.

        Returns:
            The mean (B, H / factor, W / factor, latent_channels), float32; no variance.

        Raises:
            InputError: the images do not fit.
        """
        check_images(x, self.channels, self.factor)
        mean = self.encoder((x.astype(jnp.float32) + 1) / 2)
        return Latent(mean.astype(jnp.float32), None)

    def decode(self, z: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        """Decode latents.

        Args:
            z: (B, h, w, latent_channels), unscaled.

        Returns:
            Images (B, factor h, factor w, channels), float32, in [-1, 1] and a little beyond: clip
            them for a picture.

        Raises:
            InputError: the latents do not fit.
        """
        check_latents(z, self.latent_channels)
        return 2 * self.decoder(z.astype(jnp.float32)).astype(jnp.float32) - 1

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Encode and decode, which `init` needs."""
        return self.decode(self.encode(x).mean)
