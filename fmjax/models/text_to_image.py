"""What the published networks of images and texts share before and after their blocks.

Their labels are the features of a text, once for each of its places and once as a whole, which the
text encoders of the published models give:

    {"text": (B, n, k), "pooled": (B, p)}        and "guidance": (B,) for FLUX.1 dev

Beside them may stand "text_mask", bool (B, n), True where a place holds something: the others then
change nothing. The published networks were trained without one, on texts filled up to one length.

They count time the other way round, sigma = 1 - t, and predict noise minus data. Here they take our
time and give our velocity: they embed 1000 (1 - t), and their output is multiplied by -1. Published
weights fit as they are.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Shaped

from fmjax.conditions import Mask, Vector
from fmjax.conventions import Array, Span
from fmjax.errors import InputError
from fmjax.models.embedders import ConditionEmbed
from fmjax.models.input_checks import (
    check_floating,
    check_patches,
    check_rank,
    check_sizes,
    check_times,
)
from fmjax.models.transformer import Modulation, check_computing, modulate

MASK = "text_mask"
_GUIDANCE_SCALE = 1000.0  # of FLUX.1: the scale is embedded as a time is
_FROM_ENCODERS = "take the text encoders that the network was trained with"
_ADVICE = {
    "text": _FROM_ENCODERS,
    "pooled": _FROM_ENCODERS,
    "guidance": "write jnp.full((batch,), w) for one scale shared by the batch",
}


def condition_embed(
    width: int, pooled_size: int, guidance: bool = False, span: bool = False
) -> ConditionEmbed:
    """The embedding of times, pooled features and guidance scales, called "condition"."""
    return ConditionEmbed(
        width,
        {"pooled": Vector(pooled_size)},
        guidance=guidance,
        guidance_scale=_GUIDANCE_SCALE,
        span=span,
        name="condition",
    )


def condition(
    embed: ConditionEmbed, t: Any, labels: dict[str, Shaped[Array, "B ..."]]
) -> Float[Array, "B D"]:
    """The vector c (B, D) of times t in our direction, or `Span` of two, and labels."""
    theirs = Span(1 - t.s, 1 - t.t) if isinstance(t, Span) else 1 - t
    return nn.silu(embed(theirs, {"pooled": labels["pooled"]}, labels.get("guidance")))


def attended(
    labels: dict[str, Shaped[Array, "B ..."]], tokens: int
) -> Bool[Array, "B 1 1 all"] | None:
    """Which tokens of the text and then of the image are attended; None for every one.

    Args:
        labels: of the network.
        tokens: T, how many the image has.

    Returns:
        Bool (B, 1, 1, n + T), for all heads and all that attend.
    """
    mask = labels.get(MASK)
    if mask is None:
        return None
    return jnp.pad(mask, ((0, 0), (0, tokens)), constant_values=True)[:, None, None, :]


def last_layer(
    h: Float[Array, "B T D"], c: Float[Array, "B D"], size: int
) -> Float[Array, "B T {size}"]:
    """Our velocity of each patch (B, T, size) from tokens h (B, T, D), in a compact method."""
    scale, shift = Modulation(2, name="adaln")(c)  # in this order in the published weights
    zeros = nn.initializers.zeros_init()
    return -nn.Dense(size, kernel_init=zeros, name="out")(modulate(h, shift, scale))


def image_tokens(model: nn.Module, shape: tuple[int, ...]) -> int:
    """How many tokens an image of a shape (H, W, C) has."""
    return shape[0] * shape[1] // model.patch_size**2


def network_flops(
    model: nn.Module, shape: tuple[int, ...], embed: ConditionEmbed, blocks: int
) -> int:
    """Operations of one forward pass over one example; see `fmjax.models.flops`.

    Args:
        model: as in `check_network`.
        shape: of the image, (H, W, C).
        embed: its embedding of times, pooled features and guidance scales.
        blocks: multiply-adds of its blocks.
    """
    D, patch = model.width, model.patch_size**2 * shape[2]
    ends = 2 * image_tokens(model, shape) * patch * D + D * 2 * D  # patches, the last layer
    ends += model.text_length * model.text_size * D
    return 2 * (ends + blocks) + (embed.forward_flops() or 0)


def head_sizes(model: nn.Module) -> set[int]:
    """The channels of a head."""
    return {model.width // max(model.heads, 1)}


def check_network(
    model: nn.Module, x: Float[Array, "B H W C"], t: Any, labels: Any, guidance: bool
) -> None:
    """Refuse fields and arguments that do not fit a network of images and texts.

    Args:
        model: it has the fields `width`, `heads`, `channels`, `patch_size`, `text_size`,
            `pooled_size`, `text_length`, `dtype`, `remat`, `attention` and `span`.
        x: images (B, H, W, channels), any floating dtype.
        t: times (B,), or `Span` of two such with `span`.
        labels: as in `check_text`.
        guidance: whether the network takes a guidance scale.

    Raises:
        InputError: one of these does not fit.
    """
    check_sizes(model, "width", "heads", "patch_size", "text_size", "pooled_size", "text_length")
    if model.channels is not None:
        check_sizes(model, "channels")
    check_computing(model.dtype, model.remat, model.attention, model.width // model.heads)
    check_rank(x, "(batch, height, width, channels)", 4, 4)
    if model.channels not in (None, x.shape[-1]):
        raise InputError(
            f"x has {x.shape[-1]} channels, and the network takes {model.channels}: encode images "
            "by the autoencoder that it was trained with, or build it with channels="
            f"{x.shape[-1]}."
        )
    check_patches(x, model.patch_size)
    check_floating(x)
    check_times(t, x.shape[0], model.span)
    check_text(labels, x.shape[0], model.text_size, model.pooled_size, guidance)


def check_text(
    labels: Any, batch: int, text_size: int, pooled_size: int, guidance: bool = False
) -> None:
    """Refuse labels that are not the features of a text.

    Args:
        labels: ``{"text": (B, n, text_size), "pooled": (B, pooled_size)}``, floats, and with
            `guidance` ``"guidance": (B,)`` beside them; perhaps ``"text_mask": (B, n)``, bool.
        batch: B.
        text_size: width of the features of each place of the text.
        pooled_size: width of the features of the text as a whole.
        guidance: whether the network takes a guidance scale.

    Raises:
        InputError: one is missing, too many, or of another shape or dtype.
    """
    shapes: dict[str, tuple] = {"text": (batch, "n", text_size), "pooled": (batch, pooled_size)}
    if guidance:
        shapes["guidance"] = (batch,)
    _check_names(labels, shapes)
    for name, shape in shapes.items():
        x, found = labels[name], jnp.shape(labels[name])
        floating = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
        fits = len(found) == len(shape) and 0 not in found
        fits = fits and all(n in (size, "n") for n, size in zip(shape, found, strict=True))
        if not (floating and fits):
            raise InputError(
                f'labels["{name}"] must be floats of shape {_shape(shape)}; got '
                f"{getattr(x, 'dtype', type(x).__name__)} of shape {_shape(found)}: "
                f"{_ADVICE[name]}."
            )
    if MASK in labels:
        Mask(jnp.shape(labels["text"])[1], of="text").check(MASK, labels[MASK], batch)


def _check_names(labels: Any, shapes: dict[str, tuple]) -> None:
    if isinstance(labels, dict) and labels.keys() - {MASK} == shapes.keys():
        return
    if isinstance(labels, dict) and labels.keys() - {MASK} - shapes.keys() == {"guidance"}:
        raise InputError(
            "a guidance scale came to a network that does not take one (guidance=False): leave "
            '"guidance" out of labels.'
        )
    found = f"the keys {sorted(map(str, labels))}" if isinstance(labels, dict) else repr(labels)
    expected = ", ".join(f'"{name}": {_shape(shape)}' for name, shape in shapes.items())
    raise InputError(
        f'labels must be {{{expected}}}, arrays of floats, and may have "{MASK}" beside, bool; got '
        f"{found:.80}."
    )


def _shape(shape: tuple) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
