"""The blocks of DiT: attention and a feed-forward layer, modulated by a condition (adaLN-zero).

    h = h + gate_1 * attention(modulate(norm(h), shift_1, scale_1))
    h = h + gate_3 * cross_attention(modulate(norm(h), shift_3, scale_3), context)      if there is
    h = h + gate_2 * mlp(modulate(norm(h), shift_2, scale_2))

with modulate(h, shift, scale) = h (1 + scale) + shift; shifts, scales and gates are linear in the
condition, by a map that starts at zero: a fresh block is the identity (arXiv:2212.09748). A context
is the tokens of a sequence, of a text, say (arXiv:2310.00426, which has no gate there).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from fmjax.axes import FSDP, TENSOR, split_rows
from fmjax.checks import check_name
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.models.attention import attend, check_attention
from fmjax.models.context import Context
from fmjax.models.rope import Rotation, rotate

_KEEP = jax.checkpoint_policies
REMAT = {
    "none": _KEEP.everything_saveable,
    "dots": _KEEP.dots_with_no_batch_dims_saveable,
    "full": _KEEP.nothing_saveable,
}
"""What a block keeps for its backward pass, the rest being computed again: everything; what comes
out of its dense layers, but nothing of attention; nothing but its input."""

SHARDING_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # Blocks are stacked: dimension 0 is the depth, and stays whole for the scan over it.
    # Tensor parallelism (arXiv:1909.08053): the first product of a pair is split by its columns
    # and the second by its rows, so that each pair costs one sum over the tensor axis.
    (r"blocks/attention/qkv/kernel$", (None, FSDP, TENSOR)),
    (r"blocks/attention/qkv/bias$", (None, TENSOR)),
    (r"blocks/attention/out/kernel$", (None, TENSOR, FSDP)),
    (r"blocks/cross_attention/q/kernel$", (None, FSDP, TENSOR)),
    (r"blocks/cross_attention/q/bias$", (None, TENSOR)),
    (r"blocks/cross_attention/kv/kernel$", (None, FSDP, TENSOR)),
    (r"blocks/cross_attention/kv/bias$", (None, TENSOR)),
    (r"blocks/cross_attention/out/kernel$", (None, TENSOR, FSDP)),
    (r"blocks/mlp/up/kernel$", (None, FSDP, TENSOR)),
    (r"blocks/mlp/up/bias$", (None, TENSOR)),
    (r"blocks/mlp/down/kernel$", (None, TENSOR, FSDP)),
    (r"blocks/adaln(_context)?/dense/kernel$", (None, FSDP, None)),
)
"""Of a stack of blocks called "blocks"; see `fmjax.training.sharding`."""

NORM_EPSILON = 1e-6
NORMS = ("layer", "rms")
"""How a token is normalised: mean 0 and variance 1, by nothing learned (LayerNorm); or mean square
1, and then times a learned scale (RMSNorm, arXiv:1910.07467)."""

FEED_FORWARDS = ("gelu", "swiglu")
"""The layer on each token: W' GELU(W h), GELU of the tanh kind, or W' (SiLU(W h) * V h)
(arXiv:2002.05202)."""

_xavier = nn.initializers.xavier_uniform()
_zeros = nn.initializers.zeros_init()


def rms_norm(
    x: Float[Array, "*shape"], name: str, epsilon: float = NORM_EPSILON
) -> Float[Array, "*shape"]:
    """x over the root of its mean square along the last axis, times a learned scale.

    Called in a compact method.

    Args:
        x: any shape.
        name: of the parameters.
        epsilon: what is added to the mean square.

    Returns:
        Shaped as x, float32 (float64 if x is).
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return nn.RMSNorm(epsilon=epsilon, dtype=dtype, name=name)(x)


def modulate(
    h: Float[Array, "B T D"],
    shift: Float[Array, "B 1 D"],
    scale: Float[Array, "B 1 D"],
    epsilon: float = NORM_EPSILON,
    learned: str | None = None,
) -> Float[Array, "B T D"]:
    """Normalise tokens and modulate them: norm(h) (1 + scale) + shift.

    The norm has no learned scale or offset of its own, those of the condition taking their place,
    unless `learned` names one: then it is `rms_norm`.

    Args:
        h: tokens, shape (B, T, D).
        shift: shape (B, 1, D).
        scale: shape (B, 1, D).
        epsilon: what is added to the variance.
        learned: the name of the parameters of the norm, where it has any.

    Returns:
        Shape (B, T, D), float32 (float64 if `h` is).
    """
    if learned is not None:
        return rms_norm(h, learned, epsilon) * (1 + scale) + shift
    dtype = jnp.promote_types(h.dtype, jnp.float32)
    norm = nn.LayerNorm(epsilon=epsilon, use_bias=False, use_scale=False, dtype=dtype)
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
    def __call__(self, c: Float[Array, "B D"]) -> list[Float[Array, "B 1 D"]]:
        """Map c of shape (B, D) to `parts` arrays of shape (B, 1, D), of the dtype of c."""
        vectors = nn.Dense(self.parts * c.shape[-1], kernel_init=_zeros, name="dense")(c)
        return jnp.split(vectors[:, None, :], self.parts, axis=-1)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values.

    Attributes:
        heads: number of heads, a divisor of D.
        dtype: what it computes in; softmax is float32.
        kernel: ``"xla"`` or ``"cudnn"``; see `fmjax.models.attention`.
        norm: whether `rms_norm` is applied to each head's queries and keys (arXiv:2010.04245).
        out_init: of the last layer's kernel.
    """

    heads: int
    dtype: Any
    kernel: str
    norm: bool = False
    out_init: Any = _xavier

    @nn.compact
    def __call__(
        self, h: Float[Array, "B T D"], rotation: Rotation | None = None
    ) -> Float[Array, "B T D"]:
        """Let tokens h of shape (B, T, D) attend to one another; same shape out.

        Args:
            h: the tokens.
            rotation: of queries and keys by the positions of the tokens.
        """
        B, T, D = h.shape
        # Every Dense of the block sees rows, (B T, D). From (B, T, D) it computes the same, but on
        # CPU XLA then copies the operands of the weight gradient, which contracts over B and T,
        # into a transposed layout: a training step took 1.3 times as long.
        rows = h.reshape(B * T, D)
        qkv = nn.Dense(3 * D, kernel_init=_xavier, dtype=self.dtype, name="qkv")(rows)
        # Heads outermost: a shard of the columns over a tensor axis then holds whole heads.
        q, k, v = jnp.split(qkv.reshape(B, T, self.heads, 3 * (D // self.heads)), 3, axis=-1)
        if self.norm:
            q, k = (rms_norm(x, f"{x_}_norm").astype(self.dtype) for x, x_ in ((q, "q"), (k, "k")))
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        h = attend(q, k, v, self.kernel)
        out = nn.Dense(D, kernel_init=self.out_init, dtype=self.dtype, name="out")
        return out(h.reshape(B * T, D)).reshape(B, T, D)


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to those of a context.

    The kernel is always ``"xla"``: there is a mask, and a context is short beside its weights.

    Attributes:
        heads: number of heads, a divisor of D.
        dtype: what it computes in; softmax is float32.
        out_init: of the last layer's kernel.
    """

    heads: int
    dtype: Any
    out_init: Any = _xavier

    @nn.compact
    def __call__(self, h: Float[Array, "B T D"], context: Context) -> Float[Array, "B T D"]:
        """Let tokens h (B, T, D) attend to a context of L tokens of any width; shaped as h."""
        B, T, D = h.shape
        L, size = context.tokens.shape[1], D // self.heads
        dense = partial(nn.Dense, dtype=self.dtype)
        q = dense(D, kernel_init=_xavier, name="q")(h.reshape(B * T, D)).reshape(
            B, T, self.heads, size
        )
        # Heads outermost, and rows: see Attention.
        kv = dense(2 * D, kernel_init=_xavier, name="kv")(context.tokens.reshape(B * L, -1))
        k, v = jnp.split(kv.reshape(B, L, self.heads, 2 * size), 2, axis=-1)
        h = attend(q, k, v, mask=context.attended[:, None, None, :])
        out = dense(D, kernel_init=self.out_init, name="out")
        return out(h.reshape(B * T, D)).reshape(B, T, D)


class FeedForward(nn.Module):
    """A layer on each token; see `FEED_FORWARDS`.

    Attributes:
        hidden: size between the two products.
        dtype: what it computes in.
        kind: a name of `FEED_FORWARDS`.
    """

    hidden: int
    dtype: Any
    kind: str = "gelu"

    @nn.compact
    def __call__(self, h: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Map tokens h of shape (B, T, D) one by one; same shape out."""
        B, T, D = h.shape
        rows = h.reshape(B * T, D)  # see Attention
        gated = self.kind == "swiglu"
        columns = 2 * self.hidden if gated else self.hidden
        rows = nn.Dense(columns, kernel_init=_xavier, dtype=self.dtype, name="up")(rows)
        if gated:
            gate, rows = jnp.split(rows, 2, axis=-1)
            rows = nn.silu(gate) * rows
        else:
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
        mlp_epsilon: what is added to the variance by the norm before the feed-forward layer.
        norm: a name of `NORMS`.
        mlp: a name of `FEED_FORWARDS`.
        qk_norm: `norm` of `Attention`.
    """

    heads: int
    mlp_ratio: float
    dtype: Any
    kernel: str
    mlp_epsilon: float = NORM_EPSILON
    norm: str = "layer"
    mlp: str = "gelu"
    qk_norm: bool = False

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "B T D"],
        c: Float[Array, "B D"],
        context: Context | None = None,
        rotation: Rotation | None = None,
    ) -> tuple[Float[Array, "B T D"], None]:
        """Transform tokens under a condition.

        Args:
            h: tokens, shape (B, T, D).
            c: shape (B, D).
            context: tokens to attend to beside.
            rotation: as in `Attention`.

        Returns:
            The tokens, of the same shape and dtype; and None.
        """
        first, second = ("norm_1", "norm_2") if self.norm == "rms" else (None, None)
        h = split_rows(h)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = Modulation(6, name="adaln")(c)
        attention = Attention(self.heads, self.dtype, self.kernel, self.qk_norm, name="attention")
        mlp = FeedForward(int(self.mlp_ratio * h.shape[-1]), self.dtype, self.mlp, name="mlp")
        # Sums and products with float32 vectors are float32 and rounded once; only the matmuls and
        # the tokens between the lines are of the compute dtype.
        rows = modulate(h, shift_1, scale_1, learned=first)
        h = (h + gate_1 * attention(rows, rotation)).astype(self.dtype)
        if context is not None:
            shift_3, scale_3, gate_3 = Modulation(3, name="adaln_context")(c)
            cross = CrossAttention(self.heads, self.dtype, name="cross_attention")
            seen = cross(modulate(h, shift_3, scale_3), context)
            h = (h + gate_3 * seen).astype(self.dtype)
        rows = modulate(h, shift_2, scale_2, self.mlp_epsilon, second)
        return (h + gate_2 * mlp(rows)).astype(self.dtype), None


def stacked(block: type[nn.Module], length: int, scan: bool, remat: str) -> type[nn.Module]:
    """Equal blocks one after another, their parameters stacked along a leading axis.

    Args:
        block: its call takes the tokens, then what all blocks share, and returns (tokens, None).
        length: number of blocks.
        scan: whether they are compiled once, as the body of a loop, or each by itself.
        remat: a name of `REMAT`.

    Returns:
        A module with the fields of `block`, called as it is.
    """
    return nn.scan(
        rematerialised(block, remat, in_loop=scan),
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=length,
        unroll=1 if scan else length,
    )


def rematerialised(block: type[nn.Module], remat: str, in_loop: bool = False) -> type[nn.Module]:
    """A block that keeps for its backward pass what `REMAT` says, in the body of a loop or not."""
    if remat == "none":
        return block
    # Outside a loop the compiler would find the two computations equal, and keep the first.
    return nn.remat(block, policy=REMAT[remat], prevent_cse=not in_loop)


def check_computing(dtype: Any, remat: str, kernel: str, head: int) -> None:
    """Refuse ways to compute that a transformer does not have.

    Args:
        dtype: of its tokens and large products.
        remat: a name of `REMAT`.
        kernel: of attention.
        head: the width of a head.

    Raises:
        InputError: the dtype is no floating one, or a name is unknown or does not fit the rest.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"dtype={dtype!r}: expected a floating dtype, e.g. jnp.bfloat16.")
    check_name("remat policy", remat, REMAT)
    check_attention(kernel, dtype, head)


def block_products(
    tokens: int, width: int, mlp_ratio: float, context: int = 0, mlp: str = "gelu"
) -> int:
    """Multiply-adds of one `Block` on the tokens of one example, and those of its context."""
    T, D, L = tokens, width, context
    attention = T * 3 * D * D + 2 * T * T * D + T * D * D  # q, k and v; all pairs, twice; out
    feed_forward = (3 if mlp == "swiglu" else 2) * T * D * int(mlp_ratio * D)
    # q, k and v; all pairs, twice; out; three vectors of modulation
    cross = (T * D * D + L * 2 * D * D + 2 * T * L * D + T * D * D + D * 3 * D) if L else 0
    return attention + cross + feed_forward + D * 6 * D  # six vectors of modulation
