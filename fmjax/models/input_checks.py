"""Wrong input to a network, caught while tracing: only shapes and dtypes are looked at."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fmjax.checks import check_at_least
from fmjax.errors import InputError


def check_rank(x: jax.Array, layout: str, lowest: int, highest: float) -> None:
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


def check_batch(x: jax.Array, t: jax.Array) -> None:
    """Refuse an `x` that is not floating point and a `t` that is not one full-precision time each.

    Args:
        x: the batch, shape (B, ...), any floating dtype.
        t: the times, shape (B,). bfloat16 and float16 are refused: about half of the times
            0, 1/1000, ..., 1 coincide with a neighbour in bfloat16.

    Raises:
        InputError: one of these does not hold.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"x has dtype {x.dtype}, expected a floating-point array: scale images to [-1, 1] "
            "first, e.g. x.astype(jnp.float32) / 127.5 - 1."
        )
    if jnp.shape(t) != (x.shape[0],):
        raise InputError(
            f"t has shape {jnp.shape(t)}, expected one time per example, {(x.shape[0],)}: "
            f"write jnp.full(({x.shape[0]},), t) for one time shared by the batch."
        )
    if not jnp.issubdtype(t.dtype, jnp.floating) or jnp.finfo(t.dtype).bits < 32:
        raise InputError(
            f"t has dtype {t.dtype}, expected float32, which half-precision times cannot be "
            "recovered from: draw the times in float32 and write t.astype(jnp.float32)."
        )


def check_labels(labels: Any, batch: int, num_classes: int | None) -> None:
    """Refuse labels that do not fit the model: present or absent, shape, dtype.

    Values are not looked at (they may be traced); a class outside 0..num_classes gives NaN.

    Args:
        labels: class ids, shape (B,), any integer dtype; or weights over the classes and the null
            class, shape (B, num_classes + 1), any floating dtype; None for an unconditional model.
        batch: B.
        num_classes: the model's number of classes, or None if it is unconditional.

    Raises:
        InputError: one of these does not hold.
    """
    if num_classes is None:
        if labels is not None:
            raise InputError(
                "labels were given to an unconditional model (num_classes=None): pass labels=None, "
                "or build the model with num_classes=<number of classes>."
            )
        return
    if labels is None:
        raise InputError(
            f"labels=None came to a model of {num_classes} classes, expected class ids of shape "
            f"({batch},): for the unconditional velocity pass the null class, "
            f"jnp.full(({batch},), {num_classes})."
        )
    if hasattr(labels, "dtype") and jnp.issubdtype(labels.dtype, jnp.floating) and labels.ndim == 2:
        if labels.shape != (batch, num_classes + 1):
            raise InputError(
                f"weights over classes have shape {labels.shape}, expected one for each class and "
                f"one for the null class, {(batch, num_classes + 1)}."
            )
        return
    if not hasattr(labels, "dtype") or not jnp.issubdtype(labels.dtype, jnp.integer):
        found = f"dtype {labels.dtype}" if hasattr(labels, "dtype") else type(labels).__name__
        raise InputError(
            f"labels are of {found}, expected one array of integer class ids of shape ({batch},): "
            "write jnp.asarray(labels, jnp.int32)."
        )
    if labels.shape != (batch,):
        raise InputError(
            f"labels have shape {labels.shape}, expected one class id per example, ({batch},): "
            f"write jnp.full(({batch},), label) for one class shared by the batch."
        )


def split_guidance(labels: Any, batch: int, guidance: bool) -> tuple[Any, jax.Array | None]:
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
        if isinstance(labels, dict) and "guidance" in labels:
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
        *names: its fields; None, a part left out, passes.

    Raises:
        InputError: one is not; the message names the field.
    """
    for name in names:
        if getattr(model, name) is not None:
            check_at_least(name, getattr(model, name))
