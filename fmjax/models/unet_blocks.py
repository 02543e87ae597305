"""The blocks of a U-Net: residual convolutions, attention between pixels, resampling.

    h'  = conv_0(resample(SiLU(norm_0(h))))
    out = skip(resample(h)) + conv_1(SiLU(norm_1(h') (1 + scale) + shift))      a residual block
    out = skip(resample(h)) + conv_1(SiLU(norm_1(h' + shift)))                  without scales
    out = h + W attention(norm(h))                                              an attention block
    out = h + W' cross_attention(norm'(h), context)                             if there is one

as in ADM (arXiv:2105.05233). Convolutions are 3x3; skip is the identity, or a 1x1 convolution where
the channels change; scale and shift are linear in the condition; each norm is over the pixels and
the channels of one group (arXiv:1803.08494). conv_1, W and W' start at zero, so that a fresh block
without resampling is skip.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from fmjax.axes import FSDP, TENSOR, split_rows
from fmjax.conventions import Array
from fmjax.models import transformer
from fmjax.models.context import Context
from fmjax.models.transformer import Attention, CrossAttention

RESAMPLING = ("conv", "pool", "residual")
"""How the sides are halved and doubled: by a convolution of stride 2, and one after copying each
pixel to 2x2; by the mean of 2x2 and by copying alone; by a residual block that does so inside."""


def _convolution(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name == "conv_general_dilated"


REMAT = {
    **transformer.REMAT,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        transformer.REMAT["dots"], _convolution
    ),
}
"""What a block keeps for its backward pass, as in `fmjax.models.transformer`; a convolution counts
as a dense layer does."""

SHARDING_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # Of each pair of layers the first is split by its columns and the second by its rows: see
    # fmjax.models.transformer.
    (r"conv_0/kernel$", (None, None, FSDP, TENSOR)),
    (r"conv_0/bias$", (TENSOR,)),
    (r"conv_1/kernel$", (None, None, TENSOR, FSDP)),
    (r"attention/(qkv|q|kv)/kernel$", (FSDP, TENSOR)),
    (r"attention/(qkv|q|kv)/bias$", (TENSOR,)),
    (r"attention/out/kernel$", (TENSOR, FSDP)),
)
"""Of residual and attention blocks; see `fmjax.training.sharding`."""

_zeros = nn.initializers.zeros_init()


def _mean_of_squares(h: Array) -> Array:
    B, H, W, C = h.shape
    return h.reshape(B, H // 2, 2, W // 2, 2, C).mean(axis=(2, 4))


def _copied(h: Array) -> Array:
    return jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)


_RESAMPLE: dict[str, Callable[[Array], Array]] = {
    "": lambda h: h,
    "down": _mean_of_squares,
    "up": _copied,
}


def convolution(channels: int, size: int = 3, stride: int = 1, **fields: Any) -> nn.Conv:
    """A convolution whose images keep their sides, but for the stride.

    Padding is equal on both sides, as PyTorch's; with a stride of 2, Flax's "SAME" pads one.

    Args:
        channels: that come out.
        size: the side of the kernel, odd.
        stride: between the places it is laid at.
        **fields: of `flax.linen.Conv`.
    """
    return nn.Conv(channels, (size, size), strides=stride, padding=size // 2, **fields)


def group_norm(h: Float[Array, "B H W C"], groups: int, name: str) -> Float[Array, "B H W C"]:
    """Normalises images in groups of channels, in a module's compact method.

    Args:
        h: shape (B, H, W, C).
        groups: how many of C / groups channels each.
        name: of its parameters.

    Returns:
        Shape of h, float32 (float64 if h is).
    """
    dtype = jnp.promote_types(h.dtype, jnp.float32)
    return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, name=name)(h)


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip.

    Attributes:
        channels: that come out.
        groups: of each norm.
        scale_shift: whether the condition gives a scale beside the shift.
        dtype: of the convolutions and of what comes out.
        resample: ``"down"`` or ``"up"`` to halve or double the sides; "" to leave them.
    """

    channels: int
    groups: int
    scale_shift: bool
    dtype: Any
    resample: str = ""

    @nn.compact
    def __call__(
        self, h: Float[Array, "B H W C"], c: Float[Array, "B E"]
    ) -> Float[Array, "B H2 W2 D"]:
        """Transform images h (B, H, W, C) under the condition c (B, E)."""
        resample = _RESAMPLE[self.resample]
        skip, h = resample(h), resample(nn.silu(group_norm(h, self.groups, "norm_0")))
        h = convolution(self.channels, dtype=self.dtype, name="conv_0")(h)
        # In float32: one row for an example, beside the pixels of the convolutions.
        vectors = nn.Dense(self.channels * (1 + self.scale_shift), name="condition")(c)
        vectors = vectors[:, None, None, :]
        if self.scale_shift:
            scale, shift = jnp.split(vectors, 2, axis=-1)
            h = group_norm(h, self.groups, "norm_1") * (1 + scale) + shift
        else:
            h = group_norm(h + vectors, self.groups, "norm_1")
        h = convolution(self.channels, kernel_init=_zeros, dtype=self.dtype, name="conv_1")(
            nn.silu(h)
        )
        if skip.shape[-1] != self.channels:
            skip = convolution(self.channels, size=1, dtype=self.dtype, name="skip")(skip)
        return skip + h


class AttentionBlock(nn.Module):
    """Attention of all pixels to one another, and to a context where there is one.

    Attributes:
        heads: how many, a divisor of the channels.
        groups: of the norm.
        dtype: of the products and of what comes out.
        kernel: of attention; see `fmjax.models.attention`.
    """

    heads: int
    groups: int
    dtype: Any
    kernel: str

    @nn.compact
    def __call__(
        self, h: Float[Array, "B H W C"], context: Context | None
    ) -> Float[Array, "B H W C"]:
        """Transform images h (B, H, W, C); shaped as h."""
        attention = Attention(
            self.heads, self.dtype, self.kernel, out_init=_zeros, name="attention"
        )
        h = h + attention(self._tokens(h, "norm")).reshape(h.shape)
        if context is None:
            return h
        cross = CrossAttention(self.heads, self.dtype, _zeros, name="cross_attention")
        return h + cross(self._tokens(h, "norm_context"), context).reshape(h.shape)

    def _tokens(self, h: Array, name: str) -> Array:
        B, H, W, C = h.shape
        return group_norm(h, self.groups, name).reshape(B, H * W, C)


class Place(NamedTuple):
    """One place of a U-Net: what lies between two of its skips.

    Attributes:
        name: of its parameters.
        inputs: channels that come in, those of a skip among them.
        outputs: channels that come out.
        level: how often the sides were halved before it.
        residual: whether it has a residual block.
        heads: of the attention block after that; 0: there is none.
        resample: ``"down"`` or ``"up"``, what it does to the sides at its end; "": nothing.
    """

    name: str
    inputs: int
    outputs: int
    level: int
    residual: bool = True
    heads: int = 0
    resample: str = ""


class Stage(nn.Module):
    """The blocks of one place, in the order of its fields.

    Attributes:
        place: which blocks.
        groups: of each norm.
        scale_shift: whether the condition gives scales; see `ResidualBlock`.
        resampling: a name of `RESAMPLING`.
        dtype: of the large products and of what comes out.
        kernel: of attention.
    """

    place: Place
    groups: int
    scale_shift: bool
    resampling: str
    dtype: Any
    kernel: str

    @nn.compact
    def __call__(
        self, h: Float[Array, "B H W C"], c: Float[Array, "B E"], context: Context | None
    ) -> Float[Array, "B h w D"]:
        """Transform images h (B, H, W, C) under the condition c (B, E) and a context."""
        h, place = split_rows(h), self.place
        residual = partial(ResidualBlock, place.outputs, self.groups, self.scale_shift, self.dtype)
        if place.residual:
            h = residual(name="residual")(h, c)
        if place.heads:
            attention = AttentionBlock(
                place.heads, self.groups, self.dtype, self.kernel, name="attention"
            )
            h = attention(h, context)
        if not place.resample:
            return h
        if self.resampling == "residual":
            return residual(place.resample, name="resample")(h, c)
        return self._resampled(h)

    def _resampled(self, h: Array) -> Array:
        """Images of halved or doubled sides, by a convolution or without."""
        down, fields = self.place.resample == "down", {"dtype": self.dtype, "name": "resample"}
        if self.resampling == "conv" and down:
            return convolution(self.place.outputs, stride=2, **fields)(h)
        h = _RESAMPLE[self.place.resample](h)
        return convolution(self.place.outputs, **fields)(h) if self.resampling == "conv" else h

    @nn.nowrap
    def products(self, pixels: int, embedding: int, context: int) -> int:
        """Multiply-adds of one example.

        Args:
            pixels: of the images that come in.
            embedding: E, the features of the condition, and of each token of a context.
            context: how many tokens a context has; 0: there is none.
        """
        place, total = self.place, 0
        if place.residual:
            total += self._residual_products(place.inputs, pixels, embedding)
        if place.heads:
            total += _attention_products(pixels, place.outputs, embedding, context)
        out = {"": pixels, "down": pixels // 4, "up": 4 * pixels}[place.resample]
        if place.resample and self.resampling == "residual":
            total += self._residual_products(place.outputs, out, embedding)
        if place.resample and self.resampling == "conv":
            total += 9 * out * place.outputs**2
        return total

    @nn.nowrap
    def _residual_products(self, inputs: int, pixels: int, embedding: int) -> int:
        outputs = self.place.outputs
        skip = pixels * inputs * outputs if inputs != outputs else 0
        condition = embedding * outputs * (1 + self.scale_shift)
        return 9 * pixels * (inputs + outputs) * outputs + condition + skip


def _attention_products(pixels: int, channels: int, embedding: int, context: int) -> int:
    P, C, L = pixels, channels, context
    own = P * 3 * C * C + 2 * P * P * C + P * C * C  # q, k and v; all pairs, twice; out
    # q; k and v; all pairs, twice; out
    cross = P * C * C + L * embedding * 2 * C + 2 * P * L * C + P * C * C if L else 0
    return own + cross
