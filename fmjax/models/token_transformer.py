"""A transformer for sequences of tokens, from the blocks of DiT: every token sees every other.

    c      = SiLU(embed(t) + embed(labels) + embed(w))                     w if it is asked for
    h      = E[x]                                                          a row for each token
    h      = h + gate_1 * attention(modulate(norm(h), shift_1, scale_1))   in each block
    h      = h + gate_2 * mlp(modulate(norm(h), shift_2, scale_2))         in each block
    logits = modulate(norm(h), shift, scale) W

Shifts, scales and gates are linear in c and zero at first, as is W: a fresh network gives every
token the same probability. The norm is RMSNorm, of each head's queries and keys too, and positions
are told by turning these (`fmjax.models.rope`) and by nothing else. Such networks are those of SEDD
(arXiv:2310.16834) and MDLM (arXiv:2406.07524), whose small one has the size B, the medium one L.
"""

import math
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Integer

from fmjax.checks import check_flag, check_multiple, check_name, check_positive
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.models.context import ContextEmbed, image_sizes, summed
from fmjax.models.embedders import MAX_PERIOD, TIME_SCALE, ConditionEmbed, HashableConditions
from fmjax.models.input_checks import check_conditioning, check_rank, check_sizes
from fmjax.models.presets import from_preset
from fmjax.models.rope import axial_rotation
from fmjax.models.tokens import TokenEmbed, check_tokens, check_vocabulary
from fmjax.models.transformer import (
    FEED_FORWARDS,
    NORM_EPSILON,
    SHARDING_RULES,
    Block,
    Modulation,
    block_products,
    check_computing,
    modulate,
    stacked,
)

PRESETS: dict[str, dict[str, int]] = {
    f"TokenTransformer-{size}": {"width": width, "depth": depth, "heads": heads}
    for size, (depth, width, heads) in {
        "XS": (6, 192, 3),
        "S": (12, 384, 6),
        "B": (12, 768, 12),
        "L": (24, 1024, 16),
    }.items()
}
_zeros = nn.initializers.zeros_init()


class TokenTransformer(HashableConditions, nn.Module):
    """Logits of the data token at every place of a sequence, given all of it and the time.

    Called as `model.apply({"params": params}, x, t, labels)`.

    Attributes:
        vocabulary: K, how many data tokens there are, numbered from 0; K more is the masked one.
        width: size D of a place's features, a multiple of 2 times `heads`.
        depth: number of blocks.
        heads: number of attention heads.
        mlp_ratio: size of the hidden layer of a block over `width`.
        conditions: a condition such as ``ClassIds(10)``, or a dictionary of them, which the labels
            are; see `fmjax.conditions`. None: unconditional. Images are none that it takes.
        dtype: dtype of the features and of the large matmuls, e.g. `jnp.bfloat16`. Parameters, time
            embedding, modulation, normalisation, softmax and logits stay float32.
        guidance: whether the network takes a guidance scale w as an input, embedded and added to
            the condition; labels is then ``{"labels": labels, "guidance": w}``.
        tied: whether W is the table that embeds tokens, and no matrix of its own.
        attention: ``"xla"``, or ``"cudnn"`` for the fused kernel of NVIDIA GPUs.
        scan: whether the blocks are compiled once, as the body of a loop, or each by itself.
        remat: what each block keeps for its backward pass: a name of
            `fmjax.models.transformer.REMAT`.
        mlp: a name of `fmjax.models.transformer.FEED_FORWARDS`.
        time_scale: what t is multiplied by first; see `fmjax.models.embedders.sinusoidal`.
        sharding_rules: which axis of a mesh splits which parameter; see `fmjax.training.sharding`.

    Example:
        >>> model = TokenTransformer(vocabulary=27, width=32, depth=2, heads=2)
        >>> x, t = jnp.zeros((4, 16), int), jnp.zeros(4)
        >>> params = jax.eval_shape(model.init, jax.random.key(0), x, t)["params"]
        >>> jax.eval_shape(model.apply, {"params": params}, x, t).shape
        (4, 16, 27)
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    conditions: Any = None
    dtype: Any = jnp.float32
    guidance: bool = False
    tied: bool = False
    attention: str = "xla"
    scan: bool = False
    remat: str = "none"
    mlp: str = "gelu"
    time_scale: float = TIME_SCALE
    sharding_rules: ClassVar = SHARDING_RULES

    @nn.compact
    def __call__(
        self, x: Integer[Array, "B T"], t: Float[Array, " B"], labels: Any = None
    ) -> Float[Array, "B T {self.vocabulary}"]:
        """Guess the data.

        Args:
            x: tokens, integers (B, T) from 0 to K; any other number becomes NaN.
            t: times in [0, 1], shape (B,), float32.
            labels: arrays with a leading axis B, built as `conditions` are; None exactly if that
                is None. With `guidance`, a dict of these and the scale w, shape (B,), floating.

        Returns:
            Logits (B, T, K), float32.

        Raises:
            InputError: a field or an argument does not fit. Raised while tracing, before any work
                on a device.
        """
        labels, w = self._check(x, t, labels)
        embed = self._tokens()
        c = nn.silu(self._embedding()(t, labels, w))
        head = self.width // self.heads
        rotation = axial_rotation(np.arange(x.shape[1])[:, None], (head,))
        h = self._blocks()(embed(x), c, self._context()(labels), rotation)[0]
        shift, scale = Modulation(2, name="adaln")(c)
        h = modulate(h, shift, scale, learned="norm")
        if self.tied:
            return embed.logits(h)
        rows = h.reshape(-1, self.width)  # see `fmjax.models.transformer.Attention`
        return nn.Dense(self.vocabulary, kernel_init=_zeros, name="out")(rows).reshape(
            *x.shape, self.vocabulary
        )

    def _blocks(self) -> nn.Module:
        """All blocks one after another, their parameters stacked along a leading axis."""
        return stacked(Block, self.depth, self.scan, self.remat)(
            self.heads,
            self.mlp_ratio,
            self.dtype,
            self.attention,
            NORM_EPSILON,
            "rms",
            self.mlp,
            True,
            name="blocks",
        )

    @nn.nowrap
    def forward_flops(self, shape: tuple[int, ...]) -> int | None:
        """Operations of one forward pass over one example; see `fmjax.models.flops`.

        Args:
            shape: of the sequence, (T,).

        Returns:
            The number; None where an embedding of a condition's own does not say.
        """
        (T,), D = shape, self.width
        embedding, context = self._embedding().forward_flops(), self._context()
        block = block_products(T, D, self.mlp_ratio, context.places(), self.mlp)
        products = self.depth * block + D * 2 * D + T * D * self.vocabulary
        other = self._tokens().forward_flops(T) + context.forward_flops()
        return None if embedding is None else 2 * products + embedding + other

    @nn.nowrap
    def head_sizes(self) -> set[int]:
        """The channels of a head, wherever there is attention."""
        return {self.width // max(self.heads, 1)}

    @nn.nowrap
    def _embedding(self) -> ConditionEmbed:
        return ConditionEmbed(
            self.width,
            summed(self.conditions),
            time_scale=self.time_scale,
            max_period=MAX_PERIOD,
            guidance=self.guidance,
            name="condition",
        )

    @nn.nowrap
    def _tokens(self) -> TokenEmbed:
        return TokenEmbed(self.vocabulary, self.width, self.dtype, name="tokens")

    @nn.nowrap
    def _context(self) -> ContextEmbed:
        return ContextEmbed(self.width, self.conditions, name="context")

    def _check(self, x: Array, t: Any, labels: Any) -> tuple[Any, Array | None]:
        """The labels and the guidance scale, or None, once everything fits."""
        check_vocabulary(self.vocabulary)
        check_sizes(self, "width", "depth", "heads")
        check_positive("time_scale", self.time_scale)
        check_multiple("width", self.width, 2 * self.heads, "pairs in each head")
        if not 1 <= self.mlp_ratio * self.width < math.inf:
            raise InputError(f"mlp_ratio={self.mlp_ratio!r}: expected a positive number, e.g. 4.")
        check_computing(self.dtype, self.remat, self.attention, self.width // self.heads)
        check_name("feed-forward layer", self.mlp, FEED_FORWARDS)
        check_flag("tied", self.tied)
        check_rank(x, "(batch, places)", 2, 2)
        check_tokens(x)
        if image_sizes(self.conditions):
            raise InputError(
                "a transformer for sequences takes no images for a condition, which stand beside "
                "the pixels of x: leave them out, or take a DiT on token images."
            )
        return check_conditioning(self, x.shape[0], t, labels)


def preset(name: str, **overrides: Any) -> TokenTransformer:
    """A transformer by the name of its size, e.g. `preset("TokenTransformer-S", vocabulary=65)`.

    Args:
        name: one of `PRESETS`.
        **overrides: fields of `TokenTransformer` to set or to change; `vocabulary` is needed.

    Returns:
        The module.

    Raises:
        InputError: there is no such preset or no such field.

    Example:
        >>> preset("TokenTransformer-S", vocabulary=65).width
        384
    """
    return from_preset(TokenTransformer, PRESETS, name, overrides)
