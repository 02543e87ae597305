"""FLUX.1, a network of joint blocks and then of single ones (Black Forest Labs, 2024).

    c    = SiLU(embed(t) + embed(pooled) + embed(w))        w for the guidance-distilled one, dev
    h    = packed x W                           y = text V
    h, y = joint block(h, y, c)                 see `fmjax.models.joint`
    z    = (y, h), one sequence
    z    = z + gate * (attention(n), GELU(n W_up)) W_out,   n = modulate(norm(z), shift, scale)
    out  = -unpacked(modulate(norm(h), shift, scale) W')

with time and sign as `fmjax.models.text_to_image` says. Queries and keys are normalised, then
turned by the positions of their tokens along three axes (RoPE; see `fmjax.models.rope`): row and
column of the patch are the second and the third, the first is 0, and all three are 0 for the text.

The networks see images packed, the numbers of a 2 x 2 patch as one token. Here x and the velocity
are unpacked, (B, H, W, C), and packing is the network's own matter.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Shaped

from fmjax.axes import split_rows
from fmjax.checks import check_at_least, check_flag, check_multiple
from fmjax.conventions import Array, Span
from fmjax.errors import InputError
from fmjax.models.embedders import ConditionEmbed
from fmjax.models.joint import (
    MLP_RATIO,
    Heads,
    JointBlock,
    attend_turned,
    joint_block_products,
    rowwise,
    sharding_rules,
)
from fmjax.models.presets import from_preset
from fmjax.models.rope import Rotation, axial_rotation, grid_positions
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
from fmjax.models.transformer import Modulation, modulate, stacked

_SIZES = {"width": 3072, "joint_depth": 19, "single_depth": 38, "heads": 24}
PRESETS: dict[str, dict[str, Any]] = {
    "FLUX.1-dev": {**_SIZES, "guidance": True},
    "FLUX.1-schnell": _SIZES,
}


class SingleBlock(nn.Module):
    """Attention and a feed-forward layer side by side, of one sequence of tokens.

    Attributes:
        heads: number of heads.
        dtype: dtype of the tokens and of the large products.
        kernel: of attention.
    """

    heads: int
    dtype: Any
    kernel: str

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "B T D"],
        c: Float[Array, "B D"],
        rotation: Rotation,
        mask: Bool[Array, "..."] | None = None,
    ) -> tuple[Float[Array, "B T D"], None]:
        """Transform tokens z (B, T, D) under the condition c (B, D); same shape and dtype out.

        `rotation` and `mask` are as in `fmjax.models.joint.JointAttention`.
        """
        z = split_rows(z)
        D = z.shape[-1]
        shift, scale, gate = Modulation(3, name="adaln")(c)
        n = modulate(z, shift, scale)
        q, k, v = Heads(self.heads, True, self.dtype, name="attention")(n)
        seen = attend_turned(q, k, v, rotation, self.kernel, mask)
        hidden = nn.gelu(rowwise(n, MLP_RATIO * D, self.dtype, "up"), approximate=True)
        both = rowwise(jnp.concatenate([seen, hidden], axis=-1), D, self.dtype, "out")
        return (z + gate * both).astype(self.dtype), None


class Flux(nn.Module):
    """Velocity of an image, or of its latent representation, at a time, given a text.

    Called as `model.apply({"params": params}, x, t, labels)`.

    Attributes:
        width: size D of a token, a multiple of `heads`.
        joint_depth: number of joint blocks.
        single_depth: number of single blocks.
        heads: number of attention heads.
        guidance: whether the network takes a guidance scale as an input, as that of dev does.
        axes: how many numbers of a head are turned by each of the three positions, each even;
            their sum is `width / heads`.
        text_size: width of the features of each place of the text.
        pooled_size: width of the features of the text as a whole.
        channels: of x; None takes any number, that of the x with which parameters are made.
        patch_size: side of a patch; it divides both sides of the image.
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
        >>> model = Flux(32, 1, 1, heads=2, axes=(4, 6, 6), text_size=8, pooled_size=4, channels=4)
        >>> x, t = jnp.zeros((2, 8, 8, 4)), jnp.zeros(2)
        >>> labels = {"text": jnp.zeros((2, 5, 8)), "pooled": jnp.zeros((2, 4))}
        >>> params = jax.eval_shape(model.init, jax.random.key(0), x, t, labels)["params"]
        >>> jax.eval_shape(model.apply, {"params": params}, x, t, labels).shape
        (2, 8, 8, 4)
    """

    width: int
    joint_depth: int
    single_depth: int
    heads: int
    guidance: bool = False
    axes: tuple[int, ...] = (16, 56, 56)
    text_size: int = 4096
    pooled_size: int = 768
    channels: int | None = 16
    patch_size: int = 2
    dtype: Any = jnp.float32
    attention: str = "xla"
    scan: bool = False
    remat: str = "none"
    span: bool = False
    text_length: int = 512
    sharding_rules: ClassVar = sharding_rules("(joint|single)_blocks")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        t: Float[Array, " B"] | Span,
        labels: dict[str, Shaped[Array, "B ..."]],
    ) -> Float[Array, "B H W C"]:
        """Predict the velocity.

        Args:
            x: images, not packed, shape (B, H, W, channels), any floating dtype.
            t: times in [0, 1], shape (B,), float32, 1 for data; with `span`, ``Span(s, t)``.
            labels: ``{"text": (B, n, text_size), "pooled": (B, pooled_size)}``, floats, with any
                number n of places; with `guidance`, ``"guidance": (B,)`` beside them, the scale
                as users of FLUX.1 dev write it, 3.5 say; perhaps ``"text_mask": (B, n)``, bool,
                True where a place counts.

        Returns:
            Shape of `x`, float32 (float64 if `dtype` is).

        Raises:
            InputError: a field or an argument does not fit; see `check_network` of
                `fmjax.models.text_to_image`. Raised while tracing, before any work on a device.
        """
        self._check(x, t, labels)
        c = condition(self._embedding(), t, labels)
        init = nn.initializers.xavier_uniform()
        patch = nn.Dense(self.width, kernel_init=init, dtype=self.dtype, name="patch")
        h = patch(pack(x, self.patch_size))
        y = nn.Dense(self.width, dtype=self.dtype, name="text")(labels["text"])
        shared = c, self._rotation(x, y.shape[1]), attended(labels, h.shape[1])
        h = self._blocks(h, y, shared)
        packed = last_layer(h, c, self.patch_size**2 * x.shape[-1])
        return unpack(packed, self.patch_size, x.shape)

    def _rotation(self, x: Array, places: int) -> Rotation:
        """Of the tokens of the text, then of the image."""
        grid = grid_positions(x.shape[1] // self.patch_size, x.shape[2] // self.patch_size)
        image = np.pad(grid, ((0, 0), (1, 0)))
        return axial_rotation(np.pad(image, ((places, 0), (0, 0))), self.axes)

    def _blocks(self, h: Array, y: Array, shared: tuple) -> Array:
        """All blocks one after another; `shared` is what each is given beside the tokens."""
        if self.joint_depth:
            stack = stacked(JointBlock, self.joint_depth, self.scan, self.remat)
            blocks = stack(self.heads, True, self.dtype, self.attention, name="joint_blocks")
            h, y = blocks((h, y), *shared)[0]
        z = jnp.concatenate([y, h], axis=1)
        if self.single_depth:
            stack = stacked(SingleBlock, self.single_depth, self.scan, self.remat)
            z = stack(self.heads, self.dtype, self.attention, name="single_blocks")(z, *shared)[0]
        return z[:, y.shape[1] :]

    @nn.nowrap
    def forward_flops(self, shape: tuple[int, ...]) -> int:
        """Operations of one forward pass over one example; see `fmjax.models.flops`.

        Args:
            shape: of the image, (H, W, C).
        """
        T, places, D = image_tokens(self, shape), self.text_length, self.width
        joint = joint_block_products(T, places, D, dual=False, last=False)
        both = T + places
        products = 3 * D * D + MLP_RATIO * D * D + (1 + MLP_RATIO) * D * D  # q, k, v; up; out
        single = both * products + 2 * both**2 * D + D * 3 * D
        blocks = self.joint_depth * joint + self.single_depth * single
        return network_flops(self, shape, self._embedding(), blocks)

    @nn.nowrap
    def head_sizes(self) -> set[int]:
        """The channels of a head."""
        return head_sizes(self)

    @nn.nowrap
    def _embedding(self) -> ConditionEmbed:
        return condition_embed(self.width, self.pooled_size, self.guidance, self.span)

    def _check(self, x: Array, t: Any, labels: Any) -> None:
        check_at_least("joint_depth", self.joint_depth, 0)
        check_at_least("single_depth", self.single_depth, 0)
        check_flag("guidance", self.guidance)
        check_network(self, x, t, labels, self.guidance)
        check_multiple("width", self.width, self.heads, "heads")
        head = self.width // self.heads
        if len(self.axes) != 3 or sum(self.axes) != head or any(n < 2 or n % 2 for n in self.axes):
            raise InputError(
                f"axes={self.axes!r} must be three even numbers, each of at least 2, and their sum "
                f"the width of a head, {head}."
            )


def usual_axes(head: int) -> tuple[int, int, int]:
    """How FLUX.1 shares the numbers of a head among three positions: (16, 56, 56) of 128."""
    each = 2 * (7 * head // 32)
    return head - 2 * each, each, each


def pack(x: Shaped[Array, "B H W C"], patch_size: int) -> Shaped[Array, "B patches numbers"]:
    """The numbers of each patch as one token, channel by channel.

    Args:
        x: images, shape (B, H, W, C), H and W multiples of `patch_size`.
        patch_size: side p of a patch.

    Returns:
        Shape (B, H W / p^2, C p^2): unlike those of `fmjax.models.dit.patchify`, the numbers of one
        channel stand together.
    """
    B, H, W, C = x.shape
    p = patch_size
    x = x.reshape(B, H // p, p, W // p, p, C).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(B, (H // p) * (W // p), C * p * p)


def unpack(
    packed: Shaped[Array, "B patches numbers"], patch_size: int, shape: tuple[int, ...]
) -> Shaped[Array, "B H W C"]:
    """The inverse of `pack`.

    Args:
        packed: shape (B, H W / p^2, C p^2).
        patch_size: side p of a patch.
        shape: (B, H, W, C), the shape of the images.

    Returns:
        Shape (B, H, W, C).
    """
    B, H, W, C = shape
    p = patch_size
    x = packed.reshape(B, H // p, W // p, C, p, p).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(B, H, W, C)


def preset(name: str, **overrides: Any) -> Flux:
    """A published network by name, e.g. ``preset("FLUX.1-dev", dtype=jnp.bfloat16)``.

    Args:
        name: one of `PRESETS`.
        **overrides: fields of `Flux` to set or to change.

    Returns:
        The module.

    Raises:
        InputError: there is no such preset or no such field.

    Example:
        >>> model = preset("FLUX.1-dev")
        >>> model.joint_depth, model.single_depth, model.guidance
        (19, 38, True)
    """
    return from_preset(Flux, PRESETS, name, overrides)
