"""What a guided velocity takes in the place of labels, and how the null condition is put in.

Which condition is the null one is the caller's choice; for a run `fmjax.factory.experiment` makes
it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.checks import check_between
from fmjax.conditions import share
from fmjax.conventions import Array, Labels, expand
from fmjax.errors import InputError


class Guided(NamedTuple):
    """The conditions of a guided velocity.

    Attributes:
        labels: class ids (batch,) or a pytree of per-example conditions; the whole batch shares a
            lone number, or an array with a leading axis of 1.
        w: guidance scale, one number or one per example (batch,); a traced array, so that changing
            it compiles nothing.
        negative: what to lead away from, in the place of the null condition: built as labels, for
            each example or one for all; None for the null condition itself.
    """

    labels: Labels
    w: Array | float = 1.0
    negative: Labels = None


def null_like(labels: Labels, null_labels: Labels) -> Labels:
    """The null condition, repeated for every example of a batch of labels.

    Args:
        labels: a pytree of arrays with a leading batch axis.
        null_labels: the same pytree, of arrays that broadcast against those of labels.

    Returns:
        A pytree of the shapes and dtypes of labels.

    Raises:
        InputError: the two are not built alike, or an array does not fit.
    """
    if jax.tree.structure(labels) != jax.tree.structure(null_labels):
        raise InputError(
            "the null (or negative) condition must be built as the labels are, "
            f"{jax.tree.structure(labels)}; got {jax.tree.structure(null_labels)}."
        )

    def repeat(x, null):
        null = jnp.asarray(null, x.dtype)
        try:
            return jnp.broadcast_to(null, x.shape)
        except ValueError as error:
            raise InputError(
                f"the null (or negative) condition must fit labels of shape {x.shape}: one "
                f"example's {x.shape[1:]}, or one for each; got shape {null.shape}."
            ) from error

    return jax.tree.map(repeat, labels, null_labels)


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
        InputError: rate lies outside [0, 1], or the null condition does not fit the labels.
    """
    check_between("the label drop rate", rate, 0, 1)
    dropped = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)
    if force_drop is not None:
        dropped = jnp.asarray(force_drop)
    nulls = null_like(labels, null_labels)
    return jax.tree.map(lambda x, null: jnp.where(expand(dropped, x), null, x), labels, nulls)


def per_example(name: str, value: Any, x: Any) -> Array:
    """One number per example of x (batch, ...): (batch,), in the dtype of x, at least float32.

    Args:
        name: how the caller calls it.
        value: one number, or an array (batch,).
        x: the batch, an array or a pytree of arrays.

    Raises:
        InputError: it has another shape.
    """
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(x)]
    value = jnp.asarray(value, jnp.promote_types(jnp.result_type(*dtypes), jnp.float32))
    batch = batch_size(x)
    shared = share(value, batch)
    if shared.shape != (batch,):
        raise InputError(
            f"{name} must be one number or one per example, {(batch,)}; got shape {value.shape}."
        )
    return shared


def batch_size(x: Any) -> int:
    """How many examples there are in x, an array (batch, ...) or a pytree of such arrays."""
    return jax.tree.leaves(x)[0].shape[0]


def only_labels(conditions: Any, who: str) -> Labels:
    """The labels of a `Guided` for a guidance that has no null branch.

    Args:
        conditions: what came.
        who: the guidance that asks.

    Raises:
        InputError: it is not a `Guided`, or has a negative condition.
    """
    if not isinstance(conditions, Guided):
        raise InputError(f"{who} takes Guided(labels, w); got {type(conditions).__name__}.")
    if conditions.negative is not None:
        raise InputError(
            f"{who} has no null branch, so that a negative condition has no place in it; write "
            "Guided(labels, w)."
        )
    return conditions.labels


def stack(*conditions: Labels) -> Labels:
    """The conditions one above the other, on a new leading axis to map over.

    Args:
        *conditions: pytrees of one structure.

    Raises:
        InputError: they are not built alike, or the shapes differ.
    """
    first, *others = (jax.tree.structure(c) for c in conditions)
    for other in others:
        if other != first:
            raise InputError(
                f"conditions side by side must be built alike; got {first} and {other}."
            )

    def one(*leaves):
        shapes = {np.shape(leaf) for leaf in leaves}
        if len(shapes) > 1:
            raise InputError(f"conditions side by side must have one shape; got {sorted(shapes)}.")
        return jnp.stack([jnp.asarray(leaf) for leaf in leaves])

    return jax.tree.map(one, *conditions)
