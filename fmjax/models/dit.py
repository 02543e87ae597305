"""DiT: a transformer over image patches with adaLN-zero (Peebles and Xie, arXiv:2212.09748).

    c    = SiLU(embed(t) + embed(labels) + embed(w) + embed(t - s))        w and s if asked for
    h    = patches W + positions + sum_i patches_i W_i                     i: images to condition on
    h    = h + gate_1 * attention(modulate(norm(h), shift_1, scale_1))     in each block
    h    = h + gate_2 * mlp(modulate(norm(h), shift_2, scale_2))           in each block
    out  = unpatchify(modulate(norm(h), shift, scale) W')

with modulate(h, shift, scale) = h (1 + scale) + shift; shifts, scales and gates are linear in c.
Those linear maps start at zero, and so does W': each block starts as the identity, and a fresh
model outputs 0. Sequences are attended to in every block (`fmjax.models.transformer`), whose gate
starts at zero; images to condition on are put beside the channels of x, which is to add patches_i
W_i, and W_i starts at zero, as in arXiv:2211.09800. A network that gains either so begins as that
without it.

Differences from the paper: as many channels out as in, a learned variance being left out; any
rectangular image whose sides the patch divides; any conditions beside classes, or none; a guidance
scale and a second time as inputs. The fields `norm`, `mlp`, `qk_norm`, `rope`, `bottleneck` and
`label_tokens` are choices of later networks: LightningDiT (arXiv:2501.01423), JiT
(arXiv:2511.13720).
"""

import math
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Shaped

from fmjax.checks import (
    check_at_least,
    check_flag,
    check_multiple,
    check_name,
    check_positive,
)
from fmjax.conventions import Array, Output, Span
from fmjax.errors import InputError
from fmjax.models.context import Context, ContextEmbed, check_sides, image_sizes, images, summed
from fmjax.models.embedders import (
    MAX_PERIOD,
    TIME_SCALE,
    ConditionEmbed,
    HashableConditions,
    sincos_2d,
)
from fmjax.models.input_checks import (
    check_inputs,
    check_patches,
    check_rank,
    check_sizes,
    check_width,
)
from fmjax.models.parts import check_parts, parts_products, with_parts
from fmjax.models.presets import from_preset
from fmjax.models.rope import Rotation, axial_rotation, grid_positions, unturned
from fmjax.models.transformer import (
    FEED_FORWARDS,
    NORM_EPSILON,
    NORMS,
    SHARDING_RULES,
    Block,
    Modulation,
    block_products,
    check_computing,
    modulate,
    stacked,
)

_SIZES = {  # depth, width, heads: Table 1 of the paper
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
_PAPER: dict[str, dict[str, Any]] = {
    f"DiT-{size}/{patch}": {"patch_size": patch, "width": width, "depth": depth, "heads": heads}
    for size, (depth, width, heads) in _SIZES.items()
    for patch in (2, 4, 8)
}
_MODERN = {"norm": "rms", "mlp": "swiglu", "mlp_ratio": 8 / 3, "rope": True}
PRESETS: dict[str, dict[str, Any]] = {
    **_PAPER,
    # Yao et al., arXiv:2501.01423.
    "LightningDiT-XL/1": {**_PAPER["DiT-XL/2"], **_MODERN, "patch_size": 1},
    # Li and He, arXiv:2511.13720. They predict x1, of pixels.
    **{
        f"JiT-{size}/{patch}": {
            **dict(zip(("depth", "width", "heads", "bottleneck"), sizes, strict=True)),
            **_MODERN,
            "patch_size": patch,
            "qk_norm": True,
            "label_tokens": 32,
            "label_tokens_from": start,
        }
        for size, *sizes, start in (
            ("B", 12, 768, 12, 128, 4),
            ("L", 24, 1024, 16, 128, 8),
            ("H", 32, 1280, 16, 256, 10),
        )
        for patch in (16, 32)
    },
}


def patchify(x: Shaped[Array, "B H W C"], patch_size: int) -> Shaped[Array, "B patches numbers"]:
    """Cut images into patches, row by row.

    Args:
        x: shape (B, H, W, C), H and W multiples of `patch_size`.
        patch_size: side p of a patch.

    Returns:
        Shape (B, H W / p^2, p^2 C).
    """
    B, H, W, C = x.shape
    p = patch_size
    x = x.reshape(B, H // p, p, W // p, p, C).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(B, (H // p) * (W // p), p * p * C)


def unpatchify(
    patches: Shaped[Array, "B patches numbers"], patch_size: int, shape: tuple[int, ...]
) -> Shaped[Array, "B H W C"]:
    """Put patches back together: the inverse of `patchify`.

    Args:
        patches: shape (B, H W / p^2, p^2 C).
        patch_size: side p of a patch.
        shape: (B, H, W, C), the shape of the images.

    Returns:
        Shape (B, H, W, C).
    """
    B, H, W, C = shape
    p = patch_size
    x = patches.reshape(B, H // p, W // p, p, p, C).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(B, H, W, C)


class DiT(HashableConditions, nn.Module):
    """Velocity of an image at a time, and optionally given labels.

    Called as `model.apply({"params": params}, x, t, labels)`.

    Attributes:
        patch_size: side of a patch; it divides both sides of the image.
        width: size D of a token, a multiple of `heads` and of 4.
        depth: number of blocks.
        heads: number of attention heads.
        mlp_ratio: size of the hidden layer of a block over `width`.
        conditions: a condition such as ``ClassIds(10)``, or a dictionary of them, which the labels
            are; see `fmjax.conditions`. None: unconditional.
        dtype: dtype of the tokens and of the large matmuls, e.g. `jnp.bfloat16`. Parameters, time
            embedding, modulation, normalisation, softmax and output stay float32.
        guidance: whether the network takes a guidance scale w as an input, embedded and added to
            the condition; labels is then ``{"labels": labels, "guidance": w}``.
        attention: ``"xla"``, or ``"cudnn"`` for the fused kernel of NVIDIA GPUs, which has no
            forward-mode derivative.
        scan: whether the blocks are compiled once, as the body of a loop, or each by itself. A loop
            compiles many times faster and is a little slower to run; parameters are the same.
        remat: what each block keeps for its backward pass: a name of
            `fmjax.models.transformer.REMAT`.
        span: whether the network takes two times, ``Span(s, t)`` in the place of t, for the average
            velocity between them; see `fmjax.conventions.Span`. What t - s adds is zero at first.
        time_scale: what t is multiplied by first, so that the frequencies are those of 1000
            diffusion steps; 1 for weights of a network that was trained on t in [0, 1] as it is.
        max_period: of the features of times; see `fmjax.models.embedders.sinusoidal`.
        mlp_epsilon: what is added to the variance of a token by the norm before each feed-forward
            layer. Another value is for weights that were used with it.
        variance: whether the last layer has twice the channels, for weights of a network that
            learned a variance beside its prediction: the second half, which is left out.
        norm: a name of `fmjax.models.transformer.NORMS`, of every norm of tokens.
        mlp: a name of `fmjax.models.transformer.FEED_FORWARDS`. A gated one has three products, and
            as many parameters as the other at two thirds of its `mlp_ratio`.
        qk_norm: whether each head's queries and keys are normalised (arXiv:2010.04245).
        rope: whether queries and keys are turned by the row and the column of their patch, half a
            head each (`fmjax.models.rope`), beside the positions that are added.
        bottleneck: size of a linear layer before that which embeds patches, which then has fewer
            parameters (arXiv:2511.13720); None for none.
        label_tokens: how many tokens stand in front of those of the patches, each the sum of the
            embeddings of the labels and a learned vector of its own (in-context class tokens,
            arXiv:2511.13720). The labels act beside as without them.
        label_tokens_from: how many blocks are without them, the first ones. The parameters of
            those behind are called "later_blocks".
        parts: further outputs of a network of two times, names of `fmjax.models.parts.PARTS`, e.g.
            ``("divergence",)``, all zero at first: the diagonal is a second W', and the divergence
            a linear map of the mean over the tokens that W' reads.
        sharding_rules: which axis of a mesh splits which parameter; see `fmjax.training.sharding`.

    Example:
        >>> model = DiT(patch_size=2, width=64, depth=2, heads=4, conditions=ClassIds(10))
        >>> x, t, labels = jnp.zeros((4, 8, 8, 3)), jnp.zeros(4), jnp.arange(4)
        >>> params = jax.eval_shape(model.init, jax.random.key(0), x, t, labels)["params"]
        >>> jax.eval_shape(model.apply, {"params": params}, x, t, labels).shape
        (4, 8, 8, 3)
    """

    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    conditions: Any = None
    dtype: Any = jnp.float32
    guidance: bool = False
    attention: str = "xla"
    scan: bool = False
    remat: str = "none"
    span: bool = False
    time_scale: float = TIME_SCALE
    max_period: float = MAX_PERIOD
    mlp_epsilon: float = NORM_EPSILON
    variance: bool = False
    norm: str = "layer"
    mlp: str = "gelu"
    qk_norm: bool = False
    rope: bool = False
    bottleneck: int | None = None
    label_tokens: int = 0
    label_tokens_from: int = 0
    parts: tuple[str, ...] = ()
    sharding_rules: ClassVar = SHARDING_RULES

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], t: Float[Array, " B"] | Span, labels: Any = None
    ) -> Float[Array, "B H W C"] | Output:
        """Predict the velocity.

        Args:
            x: images, shape (B, H, W, C), any floating dtype.
            t: times in [0, 1], shape (B,), float32; with `span`, ``Span(s, t)`` of two such.
            labels: arrays with a leading axis B, built as `conditions` are; None exactly if that
                is None. With `guidance`, a dict of these and the scale w, shape (B,), floating.

        Returns:
            Shape of `x`, float32 (float64 if `dtype` is); with `parts` an `Output` that has this as
            ``velocity``, beside ``divergence`` (B,) and ``diagonal``, shaped as `x`.

        Raises:
            InputError: a field or an argument does not fit; see `fmjax.models.input_checks`. Raised
                while tracing, before any work on a device.
        """
        labels, w = self._check(x, t, labels)
        p = self.patch_size
        c, of_labels = self._embedding()(t, labels, w)
        c = nn.silu(c)
        h = self._tokens(x, images(self.conditions, labels))
        h = self._blocks(h, c, of_labels, self._context()(labels), self._rotation(x))
        learned = "norm" if self.norm == "rms" else None
        shift, scale = Modulation(2, name="adaln")(c)
        h = modulate(h, shift, scale, learned=learned)
        zeros = nn.initializers.zeros_init()

        def velocity(name: str) -> Array:
            channels = x.shape[-1] * (1 + self.variance)
            patches = nn.Dense(p * p * channels, kernel_init=zeros, name=name)(h)
            whole = unpatchify(patches, p, (*x.shape[:-1], channels))
            return whole[..., : x.shape[-1]]

        return with_parts(velocity, lambda: jnp.mean(h, axis=1), self.parts)

    def _tokens(self, x: Array, beside: dict[str, Array]) -> Array:
        p = self.patch_size
        patches = patchify(x, p)
        if self.bottleneck is not None:
            init = nn.initializers.xavier_uniform()
            narrow = partial(nn.Dense, kernel_init=init, use_bias=False, dtype=self.dtype)
            patches = narrow(self.bottleneck, name="bottleneck")(patches)
        h = nn.Dense(
            self.width, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype, name="patch"
        )(patches)
        zeros = nn.initializers.zeros_init()
        for name, image in beside.items():
            layer = nn.Dense(
                self.width,
                kernel_init=zeros,
                use_bias=False,
                dtype=self.dtype,
                name=f"patch_{name}",
            )
            h = h + layer(patchify(image, p))
        positions = sincos_2d(x.shape[1] // p, x.shape[2] // p, self.width)
        return h + jnp.asarray(positions, self.dtype)[None]

    def _rotation(self, x: Array) -> Rotation | None:
        """Of the patches of x, where they are turned."""
        if not self.rope:
            return None
        half = self.width // self.heads // 2
        rows, columns = x.shape[1] // self.patch_size, x.shape[2] // self.patch_size
        return axial_rotation(grid_positions(rows, columns), (half, half))

    def _blocks(
        self,
        h: Array,
        c: Array,
        of_labels: Array,
        context: Context | None,
        rotation: Rotation | None,
    ) -> Array:
        """All blocks one after another, the later ones with tokens of the labels in front."""
        n, first = self.label_tokens, self.label_tokens_from if self.label_tokens else self.depth
        if first:
            h = self._stack(first, "blocks")(h, c, context, rotation)[0]
        if not n:
            return h
        init = nn.initializers.normal(0.02)
        own = self.param("label_tokens", init, (n, self.width), jnp.float32)
        tokens = (of_labels[:, None] + own[None]).astype(h.dtype)
        rotation = None if rotation is None else unturned(n, rotation)
        h = jnp.concatenate([tokens, h], axis=1)
        return self._stack(self.depth - first, "later_blocks")(h, c, context, rotation)[0][:, n:]

    def _stack(self, length: int, name: str) -> nn.Module:
        """So many blocks, their parameters stacked along a leading axis."""
        return stacked(Block, length, self.scan, self.remat)(
            self.heads,
            self.mlp_ratio,
            self.dtype,
            self.attention,
            self.mlp_epsilon,
            self.norm,
            self.mlp,
            self.qk_norm,
            name=name,
        )

    @nn.nowrap
    def forward_flops(self, shape: tuple[int, ...]) -> int | None:
        """Operations of one forward pass over one example; see `fmjax.models.flops`.

        Args:
            shape: of the image, (H, W, C).

        Returns:
            The number; None where an embedding of a condition's own does not say.
        """
        height, width, channels = shape
        patch, D = self.patch_size**2 * channels, self.width
        T = height * width // self.patch_size**2
        last = T * D * patch * (1 + self.variance)
        narrow = self.bottleneck
        embedded = T * patch * D if narrow is None else T * narrow * (patch + D)
        ends = embedded + D * 2 * D + last
        ends += parts_products(self.parts, D, last) + image_sizes(self.conditions) * D
        embedding, context = self._embedding().forward_flops(), self._context()
        products = ends
        for i in range(self.depth):
            tokens = T + self.label_tokens if i >= self.label_tokens_from else T
            products += block_products(tokens, D, self.mlp_ratio, context.places(), self.mlp)
        return None if embedding is None else 2 * products + embedding + context.forward_flops()

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
            max_period=self.max_period,
            guidance=self.guidance,
            span=self.span,
            labels_apart=True,
            name="condition",
        )

    @nn.nowrap
    def _context(self) -> ContextEmbed:
        return ContextEmbed(self.width, self.conditions, name="context")

    def _check(self, x: Array, t: Any, labels: Any) -> tuple[Any, Array | None]:
        """The labels and the guidance scale, or None, once everything fits."""
        check_sizes(self, "patch_size", "width", "depth", "heads")
        for name in ("time_scale", "max_period", "mlp_epsilon"):
            check_positive(name, getattr(self, name))
        check_width(self.width, self.heads)
        if not 1 <= self.mlp_ratio * self.width < math.inf:
            raise InputError(f"mlp_ratio={self.mlp_ratio!r}: expected a positive number, e.g. 4.")
        check_computing(self.dtype, self.remat, self.attention, self.width // self.heads)
        check_name("norm", self.norm, NORMS)
        check_name("feed-forward layer", self.mlp, FEED_FORWARDS)
        check_flag("qk_norm", self.qk_norm)
        check_flag("rope", self.rope)
        if self.rope:
            check_multiple("width", self.width, 4 * self.heads, "pairs in each half of a head")
        if self.bottleneck is not None:
            check_at_least("bottleneck", self.bottleneck)
        self._check_label_tokens()
        check_parts(self.parts, self.span)
        check_rank(x, "(batch, height, width, channels)", 4, 4)
        check_patches(x, self.patch_size)
        checked = check_inputs(self, x, t, labels)
        check_sides(self.conditions, x)
        return checked

    def _check_label_tokens(self) -> None:
        check_at_least("label_tokens", self.label_tokens, 0)
        check_at_least("label_tokens_from", self.label_tokens_from, 0)
        if self.label_tokens_from >= self.depth or (
            self.label_tokens_from and not self.label_tokens
        ):
            raise InputError(
                f"label_tokens_from={self.label_tokens_from} says before which of depth="
                f"{self.depth} blocks the label_tokens={self.label_tokens} come in: give fewer "
                "than depth, and 0 where there are no such tokens."
            )
        if self.label_tokens and summed(self.conditions) is None:
            raise InputError(
                f"label_tokens={self.label_tokens} are made of the embeddings of the labels, and "
                "there is no condition that is embedded as a vector: give conditions="
                "ClassIds(1000), say, or label_tokens=0 and label_tokens_from=0."
            )


def preset(name: str, **overrides: Any) -> DiT:
    """A published DiT by name, e.g. `preset("DiT-XL/2", conditions=ClassIds(1000))`.

    Args:
        name: one of `PRESETS`: of the paper, size S, B, L or XL and patch size 2, 4 or 8; or a
            later one with other blocks.
        **overrides: fields of `DiT` to set or to change.

    Returns:
        The module.

    Raises:
        InputError: there is no such preset or no such field.

    Example:
        >>> model = preset("DiT-S/8", remat="full")
        >>> model.width, model.depth, model.patch_size
        (384, 12, 8)
    """
    return from_preset(DiT, PRESETS, name, overrides)
