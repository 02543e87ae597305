"""MM-DiT, the network of Stable Diffusion 3 and 3.5 (Esser et al., arXiv:2403.03206).

    c    = SiLU(embed(t) + embed(pooled))
    h    = patches W + positions                y = text V
    h, y = joint block(h, y, c)                 depth times; see `fmjax.models.joint`
    out  = -unpatchify(modulate(norm(h), shift, scale) W')

with time and sign as `fmjax.models.text_to_image` says. The positions are cut from the middle of a
square table that is stored with the weights, so that the centre of an image has the same position
whatever its size and shape.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Shaped

from fmjax.checks import check_at_least, check_positive
from fmjax.conventions import Array, Span
from fmjax.errors import InputError
from fmjax.models.dit import patchify, unpatchify
from fmjax.models.embedders import ConditionEmbed, sincos_2d
from fmjax.models.input_checks import check_width
from fmjax.models.joint import JointBlock, joint_block_products, sharding_rules
from fmjax.models.presets import from_preset
from fmjax.models.text_to_image import (
    attended,
    check_network,
    condition,
    condition_embed,
    head_sizes,
    image_tokens,
    last_layer,
    network_flops,
)
from fmjax.models.transformer import rematerialised, stacked

PRESETS: dict[str, dict[str, Any]] = {
    "SD3-medium": {"width": 1536, "depth": 24, "heads": 24},
    "SD3.5-medium": {
        "width": 1536,
        "depth": 24,
        "heads": 24,
        "dual": 13,
        "qk_norm": True,
        "grid": 384,
        "spacing": 1 / 6,
    },
    "SD3.5-large": {"width": 2432, "depth": 38, "heads": 38, "qk_norm": True},
}


class MMDiT(nn.Module):
    """Velocity of an image, or of its latent representation, at a time, given a text.

    Called as `model.apply({"params": params}, x, t, labels)`.

    Attributes:
        width: size D of a token, a multiple of `heads` and of 4.
        depth: number of blocks; the last one only reads the text.
        heads: number of attention heads.
        dual: how many of the first blocks have a second attention, of the image to itself.
        qk_norm: whether each head's queries and keys are normalised.
        text_size: width of the features of each place of the text.
        pooled_size: width of the features of the text as a whole.
        channels: of x; None takes any number, that of the x with which parameters are made.
        patch_size: side of a patch; it divides both sides of the image.
        grid: side of the table of positions, in patches: the longest side of an image.
        spacing: distance of neighbours in a fresh table; 64 / `grid` in the published networks.
        dtype: dtype of the tokens and of the large products, e.g. `jnp.bfloat16`. Parameters, time
            embedding, modulation, normalisation, softmax and output stay float32.
        attention: ``"xla"``, or ``"cudnn"`` for the fused kernel of NVIDIA GPUs, which has no
            forward-mode derivative and is not taken where there is a mask.
        scan: whether equal blocks are compiled once, as the body of a loop, or each by itself.
        remat: what each block keeps for its backward pass: a name of
            `fmjax.models.transformer.REMAT`.
        span: whether the network takes two times, ``Span(s, t)`` in the place of t, for the average
            velocity between them; see `fmjax.conventions.Span`. What t - s adds is zero at first.
        text_length: how many places a text has where operations are counted.
        sharding_rules: which axis of a mesh splits which parameter; see `fmjax.training.sharding`.

    Example:
        >>> model = MMDiT(32, depth=2, heads=2, text_size=8, pooled_size=4, channels=4, grid=8)
        >>> x, t = jnp.zeros((2, 8, 8, 4)), jnp.zeros(2)
        >>> labels = {"text": jnp.zeros((2, 5, 8)), "pooled": jnp.zeros((2, 4))}
        >>> params = jax.eval_shape(model.init, jax.random.key(0), x, t, labels)["params"]
        >>> jax.eval_shape(model.apply, {"params": params}, x, t, labels).shape
        (2, 8, 8, 4)
    """

    width: int
    depth: int
    heads: int
    dual: int = 0
    qk_norm: bool = False
    text_size: int = 4096
    pooled_size: int = 2048
    channels: int | None = 16
    patch_size: int = 2
    grid: int = 192
    spacing: float = 1 / 3
    dtype: Any = jnp.float32
    attention: str = "xla"
    scan: bool = False
    remat: str = "none"
    span: bool = False
    text_length: int = 333
    sharding_rules: ClassVar = (
        *sharding_rules("(dual_)?blocks"),
        *sharding_rules("last_block", stacked=False),
    )

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        t: Float[Array, " B"] | Span,
        labels: dict[str, Shaped[Array, "B ..."]],
    ) -> Float[Array, "B H W C"]:
        """Predict the velocity.

        Args:
            x: images, shape (B, H, W, channels), any floating dtype.
            t: times in [0, 1], shape (B,), float32, 1 for data; with `span`, ``Span(s, t)``.
            labels: ``{"text": (B, n, text_size), "pooled": (B, pooled_size)}``, floats, with any
                number n of places; perhaps ``"text_mask": (B, n)``, bool, True where one counts.

        Returns:
            Shape of `x`, float32 (float64 if `dtype` is).

        Raises:
            InputError: a field or an argument does not fit; see `check_network` of
                `fmjax.models.text_to_image`. Raised while tracing, before any work on a device.
        """
        self._check(x, t, labels)
        c = condition(self._embedding(), t, labels)
        h = self._tokens(x)
        y = nn.Dense(self.width, dtype=self.dtype, name="text")(labels["text"])
        h = self._blocks(h, y, c, attended(labels, h.shape[1]))
        patches = last_layer(h, c, self.patch_size**2 * x.shape[-1])
        return unpatchify(patches, self.patch_size, x.shape)

    def _tokens(self, x: Array) -> Array:
        init = nn.initializers.xavier_uniform()
        dense = nn.Dense(self.width, kernel_init=init, dtype=self.dtype, name="patch")
        h = dense(patchify(x, self.patch_size))
        # Of fixed values, as published; a parameter because the published files hold them.
        table = self.param(
            "positions", lambda _: position_table(self.grid, self.width, self.spacing)
        )
        rows, columns = x.shape[1] // self.patch_size, x.shape[2] // self.patch_size
        return h + jax.lax.stop_gradient(cut(table, rows, columns)).astype(self.dtype)[None]

    def _blocks(self, h: Array, y: Array, c: Array, mask: Array | None) -> Array:
        fields = (self.heads, self.qk_norm, self.dtype, self.attention)
        tokens, plain = (h, y), self.depth - 1 - self.dual
        if self.dual:
            stack = stacked(JointBlock, self.dual, self.scan, self.remat)
            tokens = stack(*fields, dual=True, name="dual_blocks")(tokens, c, None, mask)[0]
        if plain:
            stack = stacked(JointBlock, plain, self.scan, self.remat)
            tokens = stack(*fields, name="blocks")(tokens, c, None, mask)[0]
        last = rematerialised(JointBlock, self.remat)(*fields, last=True, name="last_block")
        return last(tokens, c, None, mask)[0][0]

    @nn.nowrap
    def forward_flops(self, shape: tuple[int, ...]) -> int:
        """Operations of one forward pass over one example; see `fmjax.models.flops`.

        Args:
            shape: of the image, (H, W, C).
        """
        sizes = image_tokens(self, shape), self.text_length, self.width
        last = self.depth - 1
        blocks = sum(
            joint_block_products(*sizes, dual=i < self.dual, last=i == last)
            for i in range(self.depth)
        )
        return network_flops(self, shape, self._embedding(), blocks)

    @nn.nowrap
    def head_sizes(self) -> set[int]:
        """The channels of a head."""
        return head_sizes(self)

    @nn.nowrap
    def _embedding(self) -> ConditionEmbed:
        return condition_embed(self.width, self.pooled_size, span=self.span)

    def _check(self, x: Array, t: Any, labels: Any) -> None:
        check_at_least("depth", self.depth)
        check_at_least("dual", self.dual, 0)
        check_at_least("grid", self.grid)
        check_positive("spacing", self.spacing)
        if self.dual >= self.depth:
            raise InputError(
                f"dual={self.dual} of depth={self.depth} blocks have a second attention: the last "
                "block has none, so that there must be fewer."
            )
        check_network(self, x, t, labels, guidance=False)
        check_width(self.width, self.heads)
        side = max(x.shape[1], x.shape[2]) // self.patch_size
        if side > self.grid:
            raise InputError(
                f"images of {x.shape[1]}x{x.shape[2]} have {side} patches along a side, and the "
                f"table of positions {self.grid}: take images of at most "
                f"{self.grid * self.patch_size} a side."
            )


def position_table(grid: int, width: int, spacing: float) -> Float[Array, "{grid} {grid} {width}"]:
    """The positions of `sincos_2d` for a square grid: shape (grid, grid, width), float32."""
    along = jnp.asarray(sincos_2d(1, grid, width, spacing)[:, : width // 2])
    shape = (grid, grid, width // 2)
    across, down = along[None, :, :], along[:, None, :]
    return jnp.concatenate([jnp.broadcast_to(a, shape) for a in (across, down)], axis=-1)


def cut(
    table: Float[Array, "grid grid D"], rows: int, columns: int
) -> Float[Array, "{rows}*{columns} D"]:
    """The middle of a table (grid, grid, D), row by row: shape (rows * columns, D)."""
    top, left = (table.shape[0] - rows) // 2, (table.shape[1] - columns) // 2
    return table[top : top + rows, left : left + columns].reshape(rows * columns, -1)


def preset(name: str, **overrides: Any) -> MMDiT:
    """A published network by name, e.g. ``preset("SD3-medium", dtype=jnp.bfloat16)``.

    Args:
        name: one of `PRESETS`.
        **overrides: fields of `MMDiT` to set or to change.

    Returns:
        The module.

    Raises:
        InputError: there is no such preset or no such field.

    Example:
        >>> preset("SD3-medium").depth
        24
    """
    return from_preset(MMDiT, PRESETS, name, overrides)
