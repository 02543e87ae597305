"""The autoencoder of latent diffusion (Rombach et al., arXiv:2112.10752), as diffusers has it.

    block(x) = shortcut(x) + conv(silu(norm(conv(silu(norm(x))))))

Stages of such blocks halve the sides on the way in and double them on the way out; between them
lie two blocks with one head of attention over all pixels. Of Stable Diffusion (4 channels, with
pointwise layers around the latents), SD3 and FLUX.1 (16 channels, without).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.models.attention import attend
from fmjax.models.autoencoders.latent import Latent, check_images, check_latents
from fmjax.models.autoencoders.tiny import conv, upsample
from fmjax.models.input_checks import check_sizes

_LOGVAR = (-30.0, 20.0)


def _norm(groups: int, name: str) -> nn.GroupNorm:
    return nn.GroupNorm(groups, epsilon=1e-6, dtype=jnp.float32, use_fast_variance=False, name=name)


class ResidualBlock(nn.Module):
    """Two convolutions with a way around them.

    Attributes:
        width: channels out.
        groups: of the norms.
        dtype: what the convolutions compute in.
    """

    width: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W width"]:
        """Transform (B, H, W, C) to (B, H, W, width)."""
        h = conv(self.width, "conv1", self.dtype)(nn.silu(_norm(self.groups, "norm1")(x)))
        h = conv(self.width, "conv2", self.dtype)(nn.silu(_norm(self.groups, "norm2")(h)))
        if x.shape[-1] != self.width:
            x = nn.Dense(self.width, dtype=self.dtype, name="shortcut")(x)
        return x + h


class PixelAttention(nn.Module):
    """One head of attention over all pixels, added to what came in; fields as `ResidualBlock`."""

    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Let the pixels of (B, H, W, C) attend to one another; same shape out."""
        B, H, W, C = x.shape
        h = _norm(self.groups, "norm")(x).reshape(B, H * W, C)
        q, k, v = (nn.Dense(C, dtype=self.dtype, name=name)(h)[:, :, None] for name in "qkv")
        h = nn.Dense(C, dtype=self.dtype, name="out")(attend(q, k, v)[:, :, 0])
        return x + h.reshape(x.shape)


class Middle(nn.Module):
    """Two residual blocks, and attention between them unless it is left out."""

    attention: bool
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Transform (B, H, W, C); same shape out."""
        x = ResidualBlock(x.shape[-1], self.groups, self.dtype, name="resnet_0")(x)
        if self.attention:
            x = PixelAttention(self.groups, self.dtype, name="attention")(x)
        return ResidualBlock(x.shape[-1], self.groups, self.dtype, name="resnet_1")(x)


class Stage(nn.Module):
    """Some residual blocks, and a change of size after them.

    Attributes:
        width: channels out.
        blocks: how many.
        change: ``"down"``, ``"up"`` or ``"none"``.
        groups: of the norms.
        dtype: what the convolutions compute in.
    """

    width: int
    blocks: int
    change: str
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w width"]:
        """Transform (B, H, W, C) to (B, H', W', width)."""
        for i in range(self.blocks):
            x = ResidualBlock(self.width, self.groups, self.dtype, name=f"resnet_{i}")(x)
        if self.change == "down":
            # A row of zeros after the image and none before it.
            padding = ((0, 1), (0, 1))
            down = nn.Conv(self.width, (3, 3), 2, padding=padding, dtype=self.dtype, name="down")
            return down(x)
        if self.change == "up":
            return conv(self.width, "up", self.dtype)(upsample(x))
        return x


class Encoder(nn.Module):
    """Images to means and logarithms of variances; fields as those of `AutoencoderKL`."""

    widths: tuple[int, ...]
    blocks: int
    latent_channels: int
    attention: bool
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w moments"]:
        """Encode (B, H, W, channels) to (B, h, w, 2 latent channels)."""
        x = conv(self.widths[0], "conv_in", self.dtype)(x)
        for i, width in enumerate(self.widths):
            change = "down" if i < len(self.widths) - 1 else "none"
            stage = Stage(width, self.blocks, change, self.groups, self.dtype, name=f"down_{i}")
            x = stage(x)
        x = Middle(self.attention, self.groups, self.dtype, name="middle")(x)
        x = nn.silu(_norm(self.groups, "norm_out")(x))
        return conv(2 * self.latent_channels, "conv_out", self.dtype)(x)


class Decoder(nn.Module):
    """Latents to images; fields as those of `AutoencoderKL`."""

    widths: tuple[int, ...]
    blocks: int
    channels: int
    attention: bool
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, z: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        """Decode (B, h, w, latent channels) to (B, H, W, channels)."""
        x = conv(self.widths[-1], "conv_in", self.dtype)(z)
        x = Middle(self.attention, self.groups, self.dtype, name="middle")(x)
        for i, width in enumerate(reversed(self.widths)):
            change = "up" if i < len(self.widths) - 1 else "none"
            stage = Stage(width, self.blocks + 1, change, self.groups, self.dtype, name=f"up_{i}")
            x = stage(x)
        x = nn.silu(_norm(self.groups, "norm_out")(x))
        return conv(self.channels, "conv_out", self.dtype)(x)


class AutoencoderKL(nn.Module):
    """The autoencoder of latent diffusion.

    Called as ``model.apply({"params": params}, x, method="encode")``.

    Attributes:
        latent_channels: 4 of Stable Diffusion, 16 of SD3 and FLUX.1.
        channels: of an image.
        widths: channels of each stage, multiples of `groups`; all stages but one change the size.
        blocks: residual blocks of a stage of the encoder; the decoder's have one more.
        quant: whether a pointwise layer follows the encoder.
        post_quant: whether one comes before the decoder.
        attention: whether the middle has attention.
        groups: of the norms.
        dtype: what the layers compute in; normalisation is float32, and so is what it gives.

    Example:
        >>> model = AutoencoderKL(widths=(8, 16), blocks=1, groups=4)
        >>> x = jnp.zeros((1, 16, 16, 3))
        >>> params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
        >>> encode = lambda variables, x: model.apply(variables, x, method="encode")
        >>> jax.eval_shape(encode, {"params": params}, x).mean.shape
        (1, 8, 8, 4)
    """

    latent_channels: int = 4
    channels: int = 3
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    quant: bool = True
    post_quant: bool = True
    attention: bool = True
    groups: int = 32
    dtype: Any = jnp.float32

    @property
    def factor(self) -> int:
        """How many times smaller the sides of a latent are than those of its image."""
        return 2 ** (len(self.widths) - 1)

    def setup(self):
        """The two halves, and the layers around the latents."""
        check_sizes(self, "latent_channels", "channels", "blocks", "groups")
        if any(width % self.groups for width in self.widths):
            raise InputError(
                f"widths={self.widths} are not multiples of groups={self.groups}, into which the "
                "norms divide them: choose such widths, or another number of groups."
            )
        common = {"attention": self.attention, "groups": self.groups, "dtype": self.dtype}
        self.encoder = Encoder(self.widths, self.blocks, self.latent_channels, **common)
        self.decoder = Decoder(self.widths, self.blocks, self.channels, **common)
        if self.quant:
            self.quant_layer = nn.Dense(2 * self.latent_channels, dtype=self.dtype)
        if self.post_quant:
            self.post_quant_layer = nn.Dense(self.latent_channels, dtype=self.dtype)

    def encode(self, x: Float[Array, "B H W C"]) -> Latent:
        """Encode images.

        Args:
            x: (B, H, W, channels) in [-1, 1], H and W multiples of `factor`.

        Returns:
            Mean and logarithm of the variance, each (B, H / factor, W / factor, latent_channels),
            float32; the logarithm lies in [-30, 20].

        Raises:
            InputError: the images do not fit.
        """
        check_images(x, self.channels, self.factor)
        moments = self.encoder(x.astype(self.dtype))
        if self.quant:
            moments = self.quant_layer(moments)
        mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return Latent(mean, jnp.clip(logvar, *_LOGVAR))

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
        z = z.astype(self.dtype)
        if self.post_quant:
            z = self.post_quant_layer(z)
        return self.decoder(z).astype(jnp.float32)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Encode and decode, which `init` needs."""
        return self.decode(self.encode(x).mean)
