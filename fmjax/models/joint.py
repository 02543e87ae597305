"""What the networks of images and texts share: two streams of tokens that attend as one.

In a joint block (MM-DiT, arXiv:2403.03206) the tokens h of the image and y of the text have each
their own weights and their own modulation, and meet in attention alone:

    h', y' = attention of both to both, from modulate(norm(h), ...) and modulate(norm(y), ...)
    h      = h + gate_1 * W h'           y = y + gate_1 * V y'
    h      = h + gate_3 * attention of h to h                               with `dual`
    h      = h + gate_2 * mlp(...)       y = y + gate_2 * mlp(...)

Places of the text that only fill it up are attended by none where there is a mask.

The last block of some networks only reads the text: it has no V and no second mlp (`last`).
Dual attention is that of SD3.5 medium.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from fmjax.axes import FSDP, TENSOR, split_rows
from fmjax.conventions import Array
from fmjax.models.attention import attend
from fmjax.models.rope import Rotation, rotate
from fmjax.models.transformer import FeedForward, Modulation, modulate, rms_norm

MLP_RATIO = 4
"""Size of the hidden layer of a block over the width, in every network of this kind."""

Rules = tuple[tuple[str, tuple[str | None, ...]], ...]
_dense = partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())


def sharding_rules(blocks: str, stacked: bool = True) -> Rules:
    """Which axis of a mesh splits which parameter of blocks of this name.

    The products are split as those of `fmjax.models.transformer.SHARDING_RULES`: the first of a
    pair by its columns, the second by its rows.

    Args:
        blocks: the name.
        stacked: whether there are several, so that dimension 0 is their number.
    """
    at = rf"(^|/){blocks}/(.*/)?"
    rules: Rules = (
        (rf"{at}(q|k|v|up)/kernel$", (FSDP, TENSOR)),
        (rf"{at}(q|k|v|up)/bias$", (TENSOR,)),
        (rf"{at}(image_out|text_out|out|down)/kernel$", (TENSOR, FSDP)),
        (rf"{at}(\w+_)?adaln/dense/kernel$", (FSDP, None)),
    )
    return tuple((pattern, (None, *axes) if stacked else axes) for pattern, axes in rules)


class Heads(nn.Module):
    """Queries, keys and values of one stream, each of its own product.

    Attributes:
        heads: number of heads, a divisor of D.
        norm: whether each head's queries and keys are divided by their root mean square and
            multiplied by a learned scale (arXiv:2010.04245).
        dtype: what it computes in.
    """

    heads: int
    norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, h: Float[Array, "B T D"]) -> tuple[Float[Array, "B T heads d"], ...]:
        """Map tokens h (B, T, D) to three arrays (B, T, heads, D / heads)."""
        B, T, D = h.shape
        rows = h.reshape(B * T, D)  # see `fmjax.models.transformer.Attention`

        def product(name: str, norm: bool) -> Array:
            x = _dense(D, dtype=self.dtype, name=name)(rows)
            x = x.reshape(B, T, self.heads, D // self.heads)
            return rms_norm(x, f"{name}_norm").astype(self.dtype) if norm else x

        return product("q", self.norm), product("k", self.norm), product("v", False)


class JointAttention(nn.Module):
    """Attention of the tokens of two streams to all of both.

    Attributes:
        heads: number of heads.
        norm: as in `Heads`.
        dtype: what it computes in; softmax is float32.
        kernel: ``"xla"`` or ``"cudnn"``; see `fmjax.models.attention`.
        last: whether the text is only read.
    """

    heads: int
    norm: bool
    dtype: Any
    kernel: str
    last: bool = False

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "B T D"],
        y: Float[Array, "B L D"],
        rotation: Rotation | None,
        mask: Bool[Array, "B 1 1 L+T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B L D"] | None]:
        """Let tokens h (B, T, D) and y (B, L, D) attend.

        Args:
            h: of the image.
            y: of the text.
            rotation: of all L + T tokens, those of the text first.
            mask: which of all are attended, bool (B, 1, 1, L + T); None for every one.

        Returns:
            What each has seen, shaped as h and y; None in the place of the text's if `last`.
        """
        streams = {"text": y, "image": h}
        parts = [
            Heads(self.heads, self.norm, self.dtype, name=name)(x) for name, x in streams.items()
        ]
        q, k, v = (jnp.concatenate(pair, axis=1) for pair in zip(*parts, strict=True))
        seen = attend_turned(q, k, v, rotation, self.kernel, mask)
        text, image = seen[:, : y.shape[1]], seen[:, y.shape[1] :]
        image = rowwise(image, h.shape[-1], self.dtype, "image_out")
        return image, None if self.last else rowwise(text, y.shape[-1], self.dtype, "text_out")


def attend_turned(
    q: Float[Array, "B T heads d"],
    k: Float[Array, "B L heads d"],
    v: Float[Array, "B L heads d"],
    rotation: Rotation | None,
    kernel: str,
    mask: Bool[Array, "..."] | None = None,
) -> Float[Array, "B T heads*d"]:
    """Attention of queries and keys (B, T, heads, d) that are turned first: (B, T, heads d)."""
    if rotation is not None:
        q, k = rotate(q, rotation), rotate(k, rotation)
    # The fused kernel takes a mask in a few shapes only, and a table of T x T numbers for it.
    seen = attend(q, k, v, kernel if mask is None else "xla", mask)
    return seen.reshape(*seen.shape[:2], -1)


def rowwise(
    h: Float[Array, "B T D"], width: int, dtype: Any, name: str
) -> Float[Array, "B T {width}"]:
    """A product on each token of h (B, T, D): (B, T, width); called in a compact method."""
    B, T, D = h.shape
    return _dense(width, dtype=dtype, name=name)(h.reshape(B * T, D)).reshape(B, T, width)


class SelfAttention(nn.Module):
    """Attention of the tokens of one stream to one another; fields as in `JointAttention`."""

    heads: int
    norm: bool
    dtype: Any
    kernel: str

    @nn.compact
    def __call__(self, h: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Let tokens h (B, T, D) attend; same shape out."""
        q, k, v = Heads(self.heads, self.norm, self.dtype, name="image")(h)
        seen = attend_turned(q, k, v, None, self.kernel)
        return rowwise(seen, h.shape[-1], self.dtype, "image_out")


class JointBlock(nn.Module):
    """One joint block.

    Attributes:
        heads: number of heads.
        norm: as in `Heads`.
        dtype: dtype of the tokens and of the large products.
        kernel: of attention.
        dual: whether the image's tokens attend to one another once more.
        last: whether the text is only read, and nothing of it comes out.
    """

    heads: int
    norm: bool
    dtype: Any
    kernel: str
    dual: bool = False
    last: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: tuple[Float[Array, "B T D"], Float[Array, "B L D"]],
        c: Float[Array, "B D"],
        rotation: Rotation | None,
        mask: Bool[Array, "..."] | None = None,
    ) -> tuple[tuple[Float[Array, "B T D"], Float[Array, "B L D"] | None], None]:
        """Transform the tokens of image and text under the condition c (B, D).

        Args:
            tokens: h (B, T, D) and y (B, L, D).
            c: (B, D).
            rotation: as in `JointAttention`.
            mask: as in `JointAttention`.

        Returns:
            The tokens, of the same shapes and dtype, None in the place of the text's if `last`;
            and None.
        """
        h, y = map(split_rows, tokens)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2, *second = Modulation(
            9 if self.dual else 6, name="image_adaln"
        )(c)
        text = Modulation(2 if self.last else 6, name="text_adaln")(c)
        # The published weights hold the scale first where there are two, the shift where six.
        y_scale, y_shift = text if self.last else (text[1], text[0])
        normed = modulate(h, shift_1, scale_1)
        joint = JointAttention(
            self.heads, self.norm, self.dtype, self.kernel, self.last, name="attention"
        )
        image_seen, text_seen = joint(normed, modulate(y, y_shift, y_scale), rotation, mask)
        again = modulate(h, second[0], second[1]) if self.dual else h
        h = (h + gate_1 * image_seen).astype(self.dtype)
        if self.dual:
            own = SelfAttention(self.heads, self.norm, self.dtype, self.kernel, name="attention_2")
            h = (h + second[2] * own(again)).astype(self.dtype)
        h = self._feed_forward(h, shift_2, scale_2, gate_2, "image_mlp")
        if self.last or text_seen is None:
            return (h, None), None
        y = (y + text[2] * text_seen).astype(self.dtype)
        return (h, self._feed_forward(y, text[3], text[4], text[5], "text_mlp")), None

    def _feed_forward(self, h: Array, shift: Array, scale: Array, gate: Array, name: str) -> Array:
        mlp = FeedForward(MLP_RATIO * h.shape[-1], self.dtype, name=name)
        return (h + gate * mlp(modulate(h, shift, scale))).astype(self.dtype)


def joint_block_products(image: int, text: int, width: int, dual: bool, last: bool) -> int:
    """Multiply-adds of one `JointBlock` on the tokens of one example."""
    T, L, D = image, text, width
    stream = 3 * D * D + D * D + 2 * D * MLP_RATIO * D  # q, k and v; out; mlp: for each token
    total = T * stream + L * (3 * D * D if last else stream) + 2 * (T + L) ** 2 * D
    total += (T * 4 * D * D + 2 * T * T * D) if dual else 0
    return total + D * D * ((9 if dual else 6) + (2 if last else 6))
