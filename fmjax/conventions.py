"""The one convention, stated once.

====================  ==============================================================================
time                  t = 0 is the source x0 (noise), t = 1 is the data x1; t has shape (batch,)
path                  x_t = alpha_t x1 + sigma_t x0
velocity              u_t = d_alpha_t x1 + d_sigma_t x0
network               any pure function ``apply_fn(params, x, t, labels) -> velocity``, shaped as x
labels                class ids (batch,), a pytree of per-example conditions, or None
loss                  ``loss_fn(params, x0, x1, t, labels) -> scalar``: no key, no hidden state
guidance              u = (1 - w) u_null + w u_cond: 0 unconditional, 1 conditional, above 1 guided
====================  ==============================================================================

SD3 and FLUX count time the other way round (t = 1 is noise); what is taken from them is converted
where it enters, and its docstring says so.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fmjax.errors import InputError

Array = jax.Array
Params = Any
Labels = Any

ApplyFn = Callable[[Params, Array, Array, Labels], Array]
"""A network: ``apply_fn(params, x, t, labels) -> velocity``."""

Velocity = Callable[[Array, Array, Labels], Array]
"""A network with its parameters bound: ``velocity(x, t, labels) -> velocity``."""


def expand(t: Array, x: Array) -> Array:
    """Appends axes of size one to t (batch,) until ``t * x`` is a product per example."""
    return jnp.reshape(t, t.shape + (1,) * (x.ndim - t.ndim))


def at_least_float32(x: Array) -> Array:
    """Casts half-precision and integer arrays to float32; float32 and float64 stay as they are.

    Half of 1001 equally spaced times coincide in bfloat16, so the path is never computed in it.
    """
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def is_concrete(x: Any) -> bool:
    """Whether the values of x are at hand: not traced, and not on another process's devices."""
    return not isinstance(x, jax.core.Tracer) and getattr(x, "is_fully_addressable", True)


def check_pairs(x0: Any, x1: Array, labels: Labels = None) -> None:
    """Checks a batch of pairs before anything is compiled.

    Shapes are checked always, values only where they are at hand: a traced program has none, and to
    look at them there would stall the device.

    Args:
        x0: source points (batch, ...), or a tuple of arrays of that shape for stochastic paths.
        x1: data points (batch, ...).
        labels: arrays with a leading batch axis, or None.

    Raises:
        InputError: x0 and x1 differ in shape or have no batch axis, a label array has another
            leading size than the batch, or x0 or x1 is not finite.
    """
    shape = jnp.shape(x1)
    for source in jax.tree.leaves(x0):
        if jnp.shape(source) != shape or not shape:
            raise InputError(
                "x0 and x1 must have one shape, (batch, ...); "
                f"got x0 {jnp.shape(source)} and x1 {shape}."
            )
    for leaf in jax.tree.leaves(labels):
        if jnp.shape(leaf)[:1] != shape[:1]:
            raise InputError(
                f"labels must have the leading size of the batch, {shape[0]}; "
                f"got an array of shape {jnp.shape(leaf)}."
            )
    for name, x in (("x0", x0), ("x1", x1)):
        check_finite(name, x)


def check_training_batch(x0: Any, x1: Array, t: Array, labels: Labels = None) -> None:
    """Checks one training batch before anything is compiled.

    Args:
        x0: as in `check_pairs`.
        x1: as in `check_pairs`.
        t: times (batch,).
        labels: as in `check_pairs`.

    Raises:
        InputError: as in `check_pairs`; t is not ``(batch,)``, or lies outside [0, 1].
    """
    check_pairs(x0, x1, labels)
    if t.shape != x1.shape[:1]:
        raise InputError(
            f"t must have shape (batch,) = {x1.shape[:1]}, one time per example; got {t.shape}. "
            "For one time for all write jnp.full((batch,), t)."
        )
    if not is_concrete(t):
        return
    with jax.ensure_compile_time_eval():  # a constant of a traced program has values, too
        low, high = float(jnp.min(t)), float(jnp.max(t))
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"t must lie in [0, 1], 0 at the source and 1 at the data; got values from "
            f"{low:g} to {high:g}."
        )


def check_finite(name: str, x: Any) -> None:
    """Checks that every array of a pytree is finite, outside of a traced program.

    Raises:
        InputError: one is not; the first bad example is named.
    """
    for leaf in jax.tree.leaves(x):
        if not is_concrete(leaf):
            continue
        with jax.ensure_compile_time_eval():
            rows = jnp.any(~jnp.isfinite(jnp.reshape(leaf, (leaf.shape[0], -1))), axis=1)
            count, first = int(rows.sum()), int(jnp.argmax(rows))
        if count:
            raise InputError(
                f"{name} must be finite; got NaN or infinity in {count} of "
                f"{leaf.shape[0]} examples, the first of them {first}."
            )
