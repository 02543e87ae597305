"""Conditions that a network does not add to its vector: sequences with their masks, and images.

A sequence becomes tokens to attend to, one for each place, and one more that is learned and always
attended: of a sequence that is dropped, or masked as a whole, it alone is left, and a softmax over
nothing never comes up. Images enter beside x; each network says how.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from fmjax.conditions import ImageCondition, Mask, Sequence
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.models.embedders import HashableConditions, sinusoidal
from fmjax.names import named_leaves

_normal = nn.initializers.normal(0.02)


class Context(NamedTuple):
    """Tokens to attend to.

    Attributes:
        tokens: of all sequences one after another, shape (B, L, D), float32.
        attended: which of them count, bool (B, L).
    """

    tokens: Float[Array, "B length features"]
    attended: Bool[Array, "B length"]


def of_kind(conditions: Any, kind: str) -> dict[str, Any]:
    """The conditions of a kind, by name."""
    return {name: c for name, c in named_leaves(conditions).items() if c.kind == kind}


def summed(conditions: Any) -> dict[str, Any] | None:
    """The conditions that are embedded as vectors and added, by name; None where there are none."""
    beside = (Sequence.kind, Mask.kind, ImageCondition.kind)
    return {n: c for n, c in named_leaves(conditions).items() if c.kind not in beside} or None


def images(conditions: Any, labels: Any) -> dict[str, Float[Array, "B ..."]]:
    """The images (B, H, W, C) among the labels, under names for their parameters."""
    arrays = named_leaves(labels)
    return {_plain(name): arrays[name] for name in of_kind(conditions, ImageCondition.kind)}


def image_sizes(conditions: Any) -> int:
    """How many numbers the images of one example hold together."""
    return sum(math.prod(c.shape) for c in of_kind(conditions, ImageCondition.kind).values())


def check_sides(conditions: Any, x: Float[Array, "B H W C"]) -> None:
    """Checks that images have the sides of x (B, H, W, C).

    Raises:
        InputError: one has others.
    """
    for name, condition in of_kind(conditions, ImageCondition.kind).items():
        if condition.shape[:2] != x.shape[1:3]:
            height, width, _ = condition.shape
            raise InputError(
                f"the images {name} are of {height}x{width} and x of {x.shape[1]}x{x.shape[2]}: "
                "they must have the same sides; resize them, e.g. by jax.image.resize."
            )


class SequenceEmbed(nn.Module):
    """Tokens of a sequence: one that is learned, then one for each place.

        h_l = W' SiLU(W x_l + b + position_l) + b'

    with the fixed positions of `fmjax.models.embedders.sinusoidal`, at frequencies 10000^(-k / h).

    Attributes:
        length: number of places.
        size: how many numbers each holds.
        width: number of features of a token.
    """

    length: int
    size: int
    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B places size"], mask: Bool[Array, "B places"] | None
    ) -> Context:
        """Embed sequences x (B, length, size); mask bool (B, length), None for every place."""
        batch = x.shape[0]
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        h = nn.Dense(self.width, kernel_init=_normal, name="dense_0")(x)
        even = self.width + self.width % 2
        positions = sinusoidal(jnp.arange(self.length), even, scale=1.0)[:, : self.width]
        h = nn.silu(h + positions[None])
        h = nn.Dense(self.width, kernel_init=_normal, name="dense_1")(h)
        token = self.param("token", _normal, (1, 1, self.width), jnp.float32)
        tokens = jnp.concatenate([jnp.broadcast_to(token, (batch, 1, self.width)), h], axis=1)
        mask = jnp.ones((batch, self.length), bool) if mask is None else mask
        return Context(tokens, jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True))

    @nn.nowrap
    def forward_flops(self) -> int:
        """Operations of one sequence: two for each multiply-add of the two products."""
        return 2 * self.length * (self.size * self.width + self.width * self.width)


class ContextEmbed(HashableConditions, nn.Module):
    """The tokens of all sequences among the labels.

    Attributes:
        width: number of features of a token.
        conditions: of the network.
    """

    width: int
    conditions: Any = None

    @nn.compact
    def __call__(self, labels: Any) -> Context | None:
        """Embed the sequences of labels, built as the conditions are; None where there are none."""
        arrays = named_leaves(labels)
        masks = {c.of: arrays[name] for name, c in of_kind(self.conditions, Mask.kind).items()}
        parts = [module(arrays[name], masks.get(name)) for name, module in self._modules().items()]
        if not parts:
            return None
        tokens, attended = zip(*parts, strict=True)
        return Context(jnp.concatenate(tokens, axis=1), jnp.concatenate(attended, axis=1))

    @nn.nowrap
    def places(self) -> int:
        """How many tokens there are, the learned ones among them."""
        return sum(c.length + 1 for c in of_kind(self.conditions, Sequence.kind).values())

    @nn.nowrap
    def forward_flops(self) -> int:
        """Operations of the sequences of one example."""
        return sum(module.forward_flops() for module in self._modules().values())

    @nn.nowrap
    def _modules(self) -> dict[str, SequenceEmbed]:
        return {
            name: SequenceEmbed(c.length, c.size, self.width, name=_plain(name))
            for name, c in of_kind(self.conditions, Sequence.kind).items()
        }


def pooled(context: Context) -> Float[Array, "B D"]:
    """The mean of the tokens that are attended, (B, D)."""
    weights = context.attended.astype(context.tokens.dtype)[..., None]
    return jnp.sum(weights * context.tokens, axis=1) / jnp.sum(weights, axis=1)


def _plain(name: str) -> str:
    return name.replace("/", "_")
