"""Guidance: from a velocity to a velocity, so that every sampler takes every guidance.

What belongs to one example travels in ``labels``, which the samplers carry, split and map over; a
guided velocity takes `Guided` (labels and scale) where the plain one takes labels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fmjax.conventions import Array, Labels, Velocity, expand
from fmjax.errors import InputError


class Guided(NamedTuple):
    """The conditions of a guided velocity.

    Attributes:
        labels: class ids (batch,) or a pytree of per-example conditions.
        w: guidance scale, one number or one per example (batch,); a traced array, so that changing
            it compiles nothing.
    """

    labels: Labels
    w: Array | float = 1.0


def null_like(labels: Labels, null_labels: Labels) -> Labels:
    """The null condition, repeated for every example of a batch of labels."""
    return jax.tree.map(
        lambda x, null: jnp.broadcast_to(jnp.asarray(null, x.dtype), x.shape), labels, null_labels
    )


def classifier_free(velocity: Velocity, null_labels: Labels) -> Velocity:
    """Classifier-free guidance, both branches by `jax.vmap` in one call of the network.

        u(x, t) = (1 - w) u(x, t, null) + w u(x, t, labels)

    w = 0 is the unconditional field and w = 1 the conditional one, both exactly. Work that depends
    on x and t alone is done once. Sources: Ho & Salimans, arXiv:2207.12598; for velocities Zheng et
    al., arXiv:2311.13443, eq. (7). The other convention, (1 + s) u_cond - s u_null, is w = 1 + s:
    see `scale_from_excess`.

    Args:
        velocity: ``velocity(x, t, labels)``.
        null_labels: the condition that stands for none, without a batch axis: the null class id, or
            a pytree shaped as one example's condition.

    Returns:
        ``guided(x, t, Guided(labels, w))``, shaped as x.

    Raises:
        InputError: when called without labels, or with w neither one number nor one per example.
    """

    def guided(x: Array, t: Array, conditions: Guided) -> Array:
        if not isinstance(conditions, Guided) or conditions.labels is None:
            raise InputError(
                "a guided velocity takes Guided(labels, w) with labels that are not None; "
                f"got {type(conditions).__name__}. An unconditional model has nothing to guide."
            )
        labels = jax.tree.map(jnp.asarray, conditions.labels)
        w = jnp.asarray(conditions.w, x.dtype)
        if w.shape not in ((), x.shape[:1]):
            raise InputError(
                f"w must be one number or one per example, {x.shape[:1]}; got shape {w.shape}."
            )
        branches = jax.tree.map(
            lambda null, cond: jnp.stack([null, cond]), null_like(labels, null_labels), labels
        )
        u_null, u_cond = jax.vmap(velocity, in_axes=(None, None, 0))(x, t, branches)
        w = expand(w, x)
        return (1 - w) * u_null + w * u_cond

    return guided


def scale_from_excess(s: Array | float) -> Array | float:
    """Gives w = 1 + s: from the convention ``(1 + s) u_cond - s u_null`` (off at 0) to ours."""
    return 1 + s


def drop_labels(
    keys: Array,
    labels: Labels,
    null_labels: Labels,
    rate: float,
    force_drop: Array | None = None,
) -> Labels:
    """Replaces labels by the null condition, per example, for classifier-free training.

    Drawn before the loss, which stays deterministic. Source: Ho & Salimans, arXiv:2207.12598,
    algorithm 1.

    Args:
        keys: one random key per example (batch,).
        labels: class ids (batch,), or a pytree with a leading batch axis.
        null_labels: the null condition, without a batch axis.
        rate: probability of a drop, in [0, 1].
        force_drop: bool (batch,): True drops this label, False keeps it; None draws.

    Returns:
        The labels, those dropped replaced in every leaf together.

    Raises:
        InputError: rate lies outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise InputError(f"the label drop rate must lie in [0, 1]; got {rate!r}.")
    dropped = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)
    if force_drop is not None:
        dropped = jnp.asarray(force_drop)
    nulls = null_like(labels, null_labels)
    return jax.tree.map(lambda x, null: jnp.where(expand(dropped, x), null, x), labels, nulls)
