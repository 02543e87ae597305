"""DiT: a transformer over image patches with adaLN-zero (Peebles and Xie, arXiv:2212.09748).

    c    = SiLU(embed(t) + embed(label) + embed(w))                        w if asked for
    h    = patches W + positions
    h    = h + gate_1 * attention(modulate(norm(h), shift_1, scale_1))     in each block
    h    = h + gate_2 * mlp(modulate(norm(h), shift_2, scale_2))           in each block
    out  = unpatchify(modulate(norm(h), shift, scale) W')

with modulate(h, shift, scale) = h (1 + scale) + shift; shifts, scales and gates are linear in c.
Those linear maps start at zero, and so does W': each block starts as the identity, and a fresh
model outputs 0.

Differences from the paper: no learned variance, so there are as many channels out as in; any
rectangular image whose sides the patch divides; `num_classes=None` gives an unconditional model.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fmjax.axes import split_rows
from fmjax.errors import InputError, unknown_name
from fmjax.models.attention import attend, check_attention
from fmjax.models.embedders import Condition, sincos_2d
from fmjax.models.input_checks import (
    check_batch,
    check_labels,
    check_rank,
    check_sizes,
    split_guidance,
)

_SIZES = {  # depth, width, heads: Table 1 of the paper
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
PRESETS: dict[str, dict[str, int]] = {
    f"DiT-{size}/{patch}": {"patch_size": patch, "width": width, "depth": depth, "heads": heads}
    for size, (depth, width, heads) in _SIZES.items()
    for patch in (2, 4, 8)
}

_KEEP = jax.checkpoint_policies
REMAT = {
    "none": _KEEP.everything_saveable,
    "dots": _KEEP.dots_with_no_batch_dims_saveable,
    "full": _KEEP.nothing_saveable,
}
"""What a block keeps for its backward pass, the rest being computed again: everything; what comes
out of its dense layers, but nothing of attention; nothing but its input."""

_xavier = nn.initializers.xavier_uniform()
_zeros = nn.initializers.zeros_init()


def patchify(x: jax.Array, patch_size: int) -> jax.Array:
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


def unpatchify(patches: jax.Array, patch_size: int, shape: tuple[int, ...]) -> jax.Array:
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


def modulate(h: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """Normalise tokens and modulate them: norm(h) (1 + scale) + shift.

    The norm has no learned scale or offset of its own: those of the condition take their place.

    Args:
        h: tokens, shape (B, T, D).
        shift: shape (B, 1, D).
        scale: shape (B, 1, D).

    Returns:
        Shape (B, T, D), float32 (float64 if `h` is).
    """
    dtype = jnp.promote_types(h.dtype, jnp.float32)
    norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype)
    return norm(h) * (1 + scale) + shift


class Modulation(nn.Module):
    """The shifts, scales and gates of one block: one linear map of the condition, zero at first.

    Computed in float32: it acts on B rows where the tokens have B T, so it costs next to nothing,
    and a gate rounded to bfloat16 would not move while it is small beside 1.

    Attributes:
        parts: number of vectors.
    """

    parts: int

    @nn.compact
    def __call__(self, c: jax.Array) -> list[jax.Array]:
        """Map c of shape (B, D) to `parts` arrays of shape (B, 1, D), of the dtype of c."""
        vectors = nn.Dense(self.parts * c.shape[-1], kernel_init=_zeros, name="dense")(c)
        return jnp.split(vectors[:, None, :], self.parts, axis=-1)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values.

    Attributes:
        heads: number of heads, a divisor of D.
        dtype: what it computes in; softmax is float32.
        kernel: ``"xla"`` or ``"cudnn"``; see `fmjax.models.attention`.
    """

    heads: int
    dtype: Any
    kernel: str

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """Let tokens h of shape (B, T, D) attend to one another; same shape out."""
        B, T, D = h.shape
        # Every Dense of the block sees rows, (B T, D). From (B, T, D) it computes the same, but on
        # CPU XLA then copies the operands of the weight gradient, which contracts over B and T,
        # into a transposed layout: a training step took 1.3 times as long.
        rows = h.reshape(B * T, D)
        qkv = nn.Dense(3 * D, kernel_init=_xavier, dtype=self.dtype, name="qkv")(rows)
        # Heads outermost: a shard of the columns over a tensor axis then holds whole heads.
        q, k, v = jnp.split(qkv.reshape(B, T, self.heads, 3 * (D // self.heads)), 3, axis=-1)
        h = attend(q, k, v, self.kernel)
        h = nn.Dense(D, kernel_init=_xavier, dtype=self.dtype, name="out")(h.reshape(B * T, D))
        return h.reshape(B, T, D)


class FeedForward(nn.Module):
    """Dense, tanh-GELU, Dense on each token.

    Attributes:
        hidden: size between the two.
        dtype: what it computes in.
    """

    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """Map tokens h of shape (B, T, D) one by one; same shape out."""
        B, T, D = h.shape
        rows = h.reshape(B * T, D)  # see Attention
        rows = nn.Dense(self.hidden, kernel_init=_xavier, dtype=self.dtype, name="up")(rows)
        rows = nn.gelu(rows, approximate=True)
        rows = nn.Dense(D, kernel_init=_xavier, dtype=self.dtype, name="down")(rows)
        return rows.reshape(B, T, D)


class Block(nn.Module):
    """One adaLN-zero block: attention and feed-forward, each modulated and gated.

    Attributes:
        heads: number of attention heads.
        mlp_ratio: size of the hidden layer over D.
        dtype: dtype of the tokens and of the large matmuls.
        kernel: of attention.
    """

    heads: int
    mlp_ratio: float
    dtype: Any
    kernel: str

    @nn.compact
    def __call__(self, h: jax.Array, c: jax.Array) -> tuple[jax.Array, None]:
        """Transform tokens h (B, T, D) under the condition c (B, D); same shape and dtype out."""
        h = split_rows(h)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = Modulation(6, name="adaln")(c)
        attention = Attention(self.heads, self.dtype, self.kernel, name="attention")
        mlp = FeedForward(int(self.mlp_ratio * h.shape[-1]), self.dtype, name="mlp")
        # Sums and products with float32 vectors are float32 and rounded once; only the matmuls and
        # the tokens between the lines are of the compute dtype.
        h = (h + gate_1 * attention(modulate(h, shift_1, scale_1))).astype(self.dtype)
        return (h + gate_2 * mlp(modulate(h, shift_2, scale_2))).astype(self.dtype), None


class DiT(nn.Module):
    """Velocity of an image at a time, and optionally given its class.

    Called as `model.apply({"params": params}, x, t, labels)`.

    Attributes:
        patch_size: side of a patch; it divides both sides of the image.
        width: size D of a token, a multiple of `heads` and of 4.
        depth: number of blocks.
        heads: number of attention heads.
        mlp_ratio: size of the hidden layer of a block over `width`.
        num_classes: number of classes; the null class is index `num_classes`. None: unconditional.
        dtype: dtype of the tokens and of the large matmuls, e.g. `jnp.bfloat16`. Parameters, time
            embedding, modulation, normalisation, softmax and output stay float32.
        guidance: whether the network takes a guidance scale w as an input, embedded and added to
            the condition; labels is then ``{"labels": labels, "guidance": w}``.
        attention: ``"xla"``, or ``"cudnn"`` for the fused kernel of NVIDIA GPUs, which has no
            forward-mode derivative.
        scan: whether the blocks are compiled once, as the body of a loop, or each by itself. A loop
            compiles many times faster and is a little slower to run; parameters are the same.
        remat: what each block keeps for its backward pass: a name of `REMAT`.
    """

    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    num_classes: int | None = None
    dtype: Any = jnp.float32
    guidance: bool = False
    attention: str = "xla"
    scan: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, labels: Any = None) -> jax.Array:
        """Predict the velocity.

        Args:
            x: images, shape (B, H, W, C), any floating dtype.
            t: times in [0, 1], shape (B,), float32.
            labels: class ids, shape (B,), integer, or weights over the classes and the null class,
                (B, num_classes + 1), floating; None exactly if `num_classes` is None. With
                `guidance`, a dict of these and the scale w, shape (B,), floating.

        Returns:
            Shape of `x`, float32 (float64 if `dtype` is).

        Raises:
            InputError: a field or an argument does not fit; see `fmjax.models.input_checks`. Raised
                while tracing, before any work on a device.
        """
        labels, w = self._check(x, t, labels)
        p = self.patch_size
        condition = Condition(
            self.width, self.num_classes, guidance=self.guidance, name="condition"
        )
        c = nn.silu(condition(t, labels, w))
        h = self._tokens(x)
        h = self._blocks(h, c)
        h = modulate(h, *Modulation(2, name="adaln")(c))
        h = nn.Dense(p * p * x.shape[-1], kernel_init=_zeros, name="out")(h)
        return unpatchify(h, p, x.shape)

    def _tokens(self, x: jax.Array) -> jax.Array:
        p = self.patch_size
        patches = patchify(x, p)
        h = nn.Dense(self.width, kernel_init=_xavier, dtype=self.dtype, name="patch")(patches)
        positions = sincos_2d(x.shape[1] // p, x.shape[2] // p, self.width)
        return h + jnp.asarray(positions, self.dtype)[None]

    def _blocks(self, h: jax.Array, c: jax.Array) -> jax.Array:
        """All blocks one after another, their parameters stacked along a leading axis."""
        block = Block
        if self.remat != "none":
            # Outside a loop the compiler would find the two computations equal, and keep the first.
            block = nn.remat(Block, policy=REMAT[self.remat], prevent_cse=not self.scan)
        stack = nn.scan(
            block,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
            unroll=1 if self.scan else self.depth,
        )
        blocks = stack(self.heads, self.mlp_ratio, self.dtype, self.attention, name="blocks")
        return blocks(h, c)[0]

    def _check(self, x: jax.Array, t: jax.Array, labels: Any) -> tuple[Any, jax.Array | None]:
        """The labels and the guidance scale, or None, once everything fits."""
        check_sizes(self, "patch_size", "width", "depth", "heads", "num_classes")
        if self.width % math.lcm(self.heads, 4):
            raise InputError(
                f"width={self.width} is not a multiple of heads={self.heads} and of 4 (the parts "
                f"of the position embedding): take a multiple of {math.lcm(self.heads, 4)}."
            )
        if not 1 <= self.mlp_ratio * self.width < math.inf:
            raise InputError(f"mlp_ratio={self.mlp_ratio!r}: expected a positive number, e.g. 4.")
        if not jnp.issubdtype(self.dtype, jnp.floating):
            raise InputError(f"dtype={self.dtype!r}: expected a floating dtype, e.g. jnp.bfloat16.")
        if self.remat not in REMAT:
            raise unknown_name("remat policy", self.remat, REMAT)
        check_attention(self.attention, self.dtype, self.width // self.heads)
        check_rank(x, "(batch, height, width, channels)", 4, 4)
        if x.shape[1] % self.patch_size or x.shape[2] % self.patch_size:
            raise InputError(
                f"images of {x.shape[1]}x{x.shape[2]} do not divide into patches of "
                f"{self.patch_size}x{self.patch_size}: choose a patch_size that divides both "
                "sides, or pad the images."
            )
        check_batch(x, t)
        labels, w = split_guidance(labels, x.shape[0], self.guidance)
        check_labels(labels, x.shape[0], self.num_classes)
        return labels, w


def preset(name: str, **overrides: Any) -> DiT:
    """A DiT of the paper by name, e.g. `preset("DiT-XL/2", num_classes=1000)`.

    Args:
        name: one of `PRESETS`: size S, B, L or XL, and patch size 2, 4 or 8.
        **overrides: fields of `DiT` to set or to change.

    Returns:
        The module.

    Raises:
        InputError: there is no such preset or no such field.
    """
    if name not in PRESETS:
        raise unknown_name("DiT preset", name, PRESETS)
    fields = set(DiT.__dataclass_fields__) - {"parent", "name"}
    for field in overrides:
        if field not in fields:
            raise unknown_name("field of DiT", field, fields)
    return DiT(**{**PRESETS[name], **overrides})
