"""Wrong input to a network, caught while tracing: only shapes and dtypes are looked at."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Shaped

from fmjax.checks import check_at_least
from fmjax.conditions import check_conditions, check_labels
from fmjax.conventions import Array, Span
from fmjax.errors import InputError


def check_rank(x: Shaped[Array, "..."], layout: str, lowest: int, highest: float) -> None:
    """Refuse an `x` that is no array or has the wrong number of axes.

    Args:
        x: what came in.
        layout: the axes expected, e.g. ``"(batch, height, width, channels)"``.
        lowest: the smallest number of axes that fits.
        highest: the largest number of axes that fits, may be infinite.

    Raises:
        InputError: it does not fit.
    """
    if not hasattr(x, "ndim"):
        raise InputError(
            f"x is a {type(x).__name__}, expected an array of shape {layout}: write jnp.asarray(x)."
        )
    if not lowest <= x.ndim <= highest:
        raise InputError(
            f"x has shape {x.shape}, expected {layout}: write x[None] to add a batch axis to "
            "one example, x[..., None] to add a channel or feature axis."
        )


def check_patches(x: Shaped[Array, "B H W C"], patch_size: int) -> None:
    """Refuse images (B, H, W, C) that do not divide into square patches.

    Raises:
        InputError: they do not.
    """
    if x.shape[1] % patch_size or x.shape[2] % patch_size:
        raise InputError(
            f"images of {x.shape[1]}x{x.shape[2]} do not divide into patches of "
            f"{patch_size}x{patch_size}: choose a patch_size that divides both sides, or pad the "
            "images."
        )


def check_inputs(
    model: nn.Module, x: Float[Array, "B ..."], t: Any, labels: Any
) -> tuple[Any, Float[Array, " B"] | None]:
    """Refuse a batch, times or labels that do not fit a network.

    Args:
        model: it has the fields `conditions`, `guidance` and `span`.
        x: the batch, shape (B, ...), any floating dtype.
        t: the times, shape (B,), of at least float32; `Span` of two such exactly with `span`.
        labels: arrays as the conditions describe; with `guidance` as `split_guidance` takes them.

    Returns:
        The labels, and the guidance scale or None.

    Raises:
        InputError: one of these does not fit.
    """
    check_floating(x)
    return check_conditioning(model, x.shape[0], t, labels)


def check_conditioning(
    model: nn.Module, batch: int, t: Any, labels: Any
) -> tuple[Any, Float[Array, " B"] | None]:
    """Refuse times or labels that do not fit a network; all else is as in `check_inputs`.

    Args:
        model: it has the fields `conditions` and `guidance`, and `span` if it may take two times.
        batch: B.
        t: as in `check_inputs`.
        labels: as in `check_inputs`.
    """
    check_times(t, batch, getattr(model, "span", False))
    check_conditions(model.conditions)
    labels, w = split_guidance(labels, batch, model.guidance)
    check_labels(labels, model.conditions, batch)
    return labels, w


def check_floating(x: Float[Array, "..."]) -> None:
    """Refuse a batch of integers.

    Raises:
        InputError: it is one.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"x has dtype {x.dtype}, expected a floating-point array: scale images to [-1, 1] "
            "first, e.g. x.astype(jnp.float32) / 127.5 - 1."
        )


def check_times(t: Any, batch: int, span: bool) -> None:
    """Refuse what is not one time, or one span of two times, for each example.

    Args:
        t: times (B,), or ``Span(s, t)`` of two such. bfloat16 and float16 are refused: about half
            of the times 0, 1/1000, ..., 1 coincide with a neighbour in bfloat16.
        batch: B.
        span: whether the network takes two times.

    Raises:
        InputError: it does not fit.
    """
    if span != isinstance(t, Span):
        raise InputError(
            "a network with span=True takes Span(s, t) in the place of t and got one time: pass "
            "Span(s, t), or call diagonal(apply_fn) of fmjax.conventions for the velocity at t."
            if span
            else "a Span came to a network of one time: pass t alone, or build the network with "
            "span=True."
        )
    for name, time in zip(("s", "t"), t, strict=True) if span else [("t", t)]:
        _check_time(name, time, batch)


def _check_time(name: str, t: Any, batch: int) -> None:
    if jnp.shape(t) != (batch,):
        raise InputError(
            f"{name} has shape {jnp.shape(t)}, expected one time per example, {(batch,)}: "
            f"write jnp.full(({batch},), {name}) for one time shared by the batch."
        )
    if not jnp.issubdtype(t.dtype, jnp.floating) or jnp.finfo(t.dtype).bits < 32:
        raise InputError(
            f"{name} has dtype {t.dtype}, expected float32, which half-precision times cannot be "
            f"recovered from: draw the times in float32 and write {name}.astype(jnp.float32)."
        )


def split_guidance(
    labels: Any, batch: int, guidance: bool
) -> tuple[Any, Float[Array, " B"] | None]:
    """Takes the guidance scale out of the labels of a network that has it as an input.

    Args:
        labels: ``{"labels": labels, "guidance": w}`` for such a network, w (B,) of floating dtype;
            labels alone for another.
        batch: B.
        guidance: whether the network is one.

    Returns:
        The labels, and w or None.

    Raises:
        InputError: the dict is missing, has other keys or came to another network, or w does not
            fit.
    """
    if not guidance:
        if isinstance(labels, dict) and labels.keys() == {"labels", "guidance"}:
            raise InputError(
                "a guidance scale came to a model that does not take one (guidance=False): pass "
                'labels["labels"] alone, or build the model with guidance=True.'
            )
        return labels, None
    if not isinstance(labels, dict) or labels.keys() != {"labels", "guidance"}:
        found = f"keys {sorted(labels)}" if isinstance(labels, dict) else "labels alone"
        raise InputError(
            f"a model with guidance=True takes {{'labels': labels, 'guidance': w}}; got {found}: "
            "wrap the velocity in fmjax.guidance.distilled and pass Guided(labels, w)."
        )
    w = labels["guidance"]
    floating = hasattr(w, "dtype") and jnp.issubdtype(w.dtype, jnp.floating)
    if not floating or jnp.shape(w) != (batch,):
        dtype = getattr(w, "dtype", type(w).__name__)
        raise InputError(
            f"the guidance scale has shape {jnp.shape(w)} and type {dtype}, expected one "
            f"floating-point number per example, {(batch,)}: write jnp.full(({batch},), w)."
        )
    return labels["labels"], w


def check_sizes(model: nn.Module, *names: str) -> None:
    """Refuse fields of a model that are no whole numbers of at least 1.

    Args:
        model: the model.
        *names: its fields.

    Raises:
        InputError: one is not; the message names the field.
    """
    for name in names:
        check_at_least(name, getattr(model, name))


def check_width(width: int, heads: int) -> None:
    """Refuse a width that does not split into heads and into the parts of `sincos_2d`.

    Raises:
        InputError: it does not.
    """
    if width % math.lcm(heads, 4):
        raise InputError(
            f"width={width} is not a multiple of heads={heads} and of 4 (the parts of the position "
            f"embedding): take a multiple of {math.lcm(heads, 4)}."
        )
