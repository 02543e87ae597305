"""Leaving out the steps whose gradient is far outside what it has been."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from fmjax.checks import check_between
from fmjax.conventions import Array

_DECAY = 0.99
_WARM_UP = 20  # steps that are always taken, while the average forms


class OutlierState(NamedTuple):
    """What the rule remembers.

    Attributes:
        inner: the optimiser's own state.
        norm: running average of the gradient's norm, float32 scalar.
        seen: steps so far, int32 scalar.
        skipped: whether the last one was left out, float32 0 or 1.
    """

    inner: Any
    norm: Float[Array, ""]
    seen: Int[Array, ""]
    skipped: Float[Array, ""]


def skip_outliers(
    inner: optax.GradientTransformation, factor: float
) -> optax.GradientTransformation:
    """An optimiser that leaves out a step where |g| > factor m, or where |g| is not a number.

    m is the running average of |g|, to which a step left out adds factor m in place of its own
    norm: so a lasting change of scale is followed within some tens of steps, and nothing is skipped
    for ever. A step left out changes neither the parameters nor the state of the optimiser.

    Args:
        inner: the optimiser.
        factor: how many times the average is too much, above 1.

    Returns:
        The transformation; its state says in ``skipped`` whether the last step was left out.

    Raises:
        InputError: the factor is not above 1.
    """
    advice = "To take every step write 0."
    check_between("optimizer.skip_above", factor, 1, math.inf, "()", advice=advice)

    def init(params: Any) -> OutlierState:
        zero = jnp.zeros((), jnp.float32)
        return OutlierState(inner.init(params), zero, jnp.zeros((), jnp.int32), zero)

    def update(grads: Any, state: OutlierState, params: Any = None) -> tuple[Any, OutlierState]:
        norm = jnp.asarray(optax.tree.norm(grads), jnp.float32)
        bound = factor * state.norm
        skip = ~jnp.isfinite(norm) | ((state.seen >= _WARM_UP) & (norm > bound))
        updates, new_inner = inner.update(grads, state.inner, params)
        # Selected, not multiplied: an update of a gradient that is NaN times 0 is NaN.
        updates = jax.tree.map(lambda u: jnp.where(skip, jnp.zeros_like(u), u), updates)
        kept = jax.tree.map(lambda new, old: jnp.where(skip, old, new), new_inner, state.inner)
        counted = jnp.where(skip, bound, norm)
        rate = jnp.maximum(1 - _DECAY, 1 / (1 + state.seen.astype(jnp.float32)))
        average = state.norm + rate * (counted - state.norm)
        return updates, OutlierState(kept, average, state.seen + 1, skip.astype(jnp.float32))

    return optax.GradientTransformation(init, update)
