"""What a guided velocity takes in the place of labels, and how the null condition is put in.

Which condition is the null one is the caller's choice; for a run `fmjax.factory.experiment` makes
it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Real, Shaped

from fmjax.array_checks import check_floats, shape_of, times_of
from fmjax.checks import check_between
from fmjax.conditions import Mask, check_conditions, check_labels, null_labels, share
from fmjax.conventions import Array, Labels, Span, at_least_float32, expand
from fmjax.errors import InputError
from fmjax.names import named_leaves

_ALL = 2**31  # the stream that drops all conditions together, apart from those of each

Scale = Real[ArrayLike, ""] | Real[Array, " batch"]
"""One number, or one for each example."""


class Guided(NamedTuple):
    """The conditions of a guided velocity.

    Attributes:
        labels: class ids (batch,) or a pytree of per-example conditions; the whole batch shares a
            lone number, or an array with a leading axis of 1.
        w: guidance scale, one number or one per example (batch,); a traced array, so that changing
            it compiles nothing.
        negative: what to lead away from, in the place of the null condition: built as labels, for
            each example or one for all; None for the null condition itself.

    Example:
        >>> velocity = classifier_free(lambda x, t, labels: x * labels[:, None], null_labels=0)
        >>> each = Guided(jnp.array([1, 2]), w=jnp.array([1.0, 3.0]))
        >>> velocity(jnp.ones((2, 1)), jnp.zeros(2), each)
        Array([[1.],
               [6.]], dtype=float32)
    """

    labels: Labels
    w: Scale = 1.0
    negative: Labels = None


class Nested(NamedTuple):
    """Conditions that are added one after another; `guide_in_turn` makes them by name.

    Attributes:
        parts: each with the conditions of those before it, and with a scale of its own.
    """

    parts: tuple[Guided, ...]


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
        shape = shape_of("the null (or negative) condition", null)
        x = jnp.asarray(x)  # numpy's int64 becomes int32
        null = jnp.asarray(null, x.dtype)
        try:
            return jnp.broadcast_to(null, x.shape)
        except ValueError as error:
            raise InputError(
                f"the null (or negative) condition must fit labels of shape {x.shape}: one "
                f"example's {x.shape[1:]}, or one for each; got shape {shape}."
            ) from error

    return jax.tree.map(repeat, labels, null_labels)


def scale_from_excess(s: Real[Array, "*s"] | float) -> Real[Array, "*s"] | float:
    """Gives w = 1 + s: from the convention ``(1 + s) u_cond - s u_null`` (off at 0) to ours.

    Args:
        s: one number, or an array.

    Raises:
        InputError: s is not of real numbers.

    Example:
        >>> scale_from_excess(1.5)
        2.5
    """
    at_least_float32(s, "s")
    return 1 + s


def drop_labels(
    keys: Shaped[Array, "batch ..."],
    labels: Labels,
    conditions: Any,
    *,
    drop_all: float = 0.0,
    force_drop: Bool[Array, " batch"] | None = None,
) -> Labels:
    """Replaces labels by their nulls, per example, for classifier-free training.

    Each array of the labels is dropped at the rate of its own condition, independently of the
    others, a mask with its sequence; and all together at the rate `drop_all`, so that the
    unconditional velocity of several conditions is trained. Drawn before the loss, which stays
    deterministic. Source: Ho & Salimans, arXiv:2207.12598, algorithm 1.

    Args:
        keys: one random key per example (batch,).
        labels: class ids (batch,), or a pytree with a leading batch axis.
        conditions: what each array of labels is (`fmjax.conditions`), built as labels.
        drop_all: probability that all are dropped, in [0, 1].
        force_drop: bool (batch,): True drops the labels, False keeps them; None draws.

    Returns:
        The labels, those dropped replaced by the null of their condition.

    Raises:
        InputError: drop_all lies outside [0, 1], or the labels are not what the conditions say.
    """
    check_between("drop_all", drop_all, 0, 1)
    check_conditions(conditions)
    check_labels(labels, conditions, len(keys))
    nulls = null_like(labels, null_labels(conditions))
    leaves, tree = jax.tree.flatten(labels)
    described = named_leaves(conditions)
    # A mask shares the rate and the toss of its sequence.
    tossed = [name if c.kind != Mask.kind else c.of for name, c in described.items()]
    rates = [described[name].drop_rate for name in tossed]
    # One condition alone is keyed by the example; of several, each by its number, too.
    numbers = [list(described).index(name) for name in tossed]
    streams = [keys] if len(leaves) == 1 else [_fold(keys, i) for i in numbers]
    everything = jnp.zeros(len(keys), bool)
    if drop_all > 0:
        everything = _toss(_fold(keys, _ALL), drop_all)

    def one(x, null, rate, stream):
        dropped = _toss(stream, rate) | everything if rate > 0 else everything
        dropped = dropped if force_drop is None else jnp.asarray(force_drop)
        return jnp.where(expand(dropped, x), null, x)

    parts = zip(leaves, jax.tree.leaves(nulls), rates, streams, strict=True)
    return tree.unflatten([one(*part) for part in parts])


def _toss(keys: Shaped[Array, "batch ..."], rate: float) -> Bool[Array, " batch"]:
    return jax.vmap(lambda key: jax.random.bernoulli(key, float(rate)))(keys)


def _fold(keys: Shaped[Array, "batch ..."], number: int) -> Shaped[Array, "batch ..."]:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def per_example(name: str, value: Any, x: Any) -> Float[Array, " batch"]:
    """One number per example of x (batch, ...): (batch,), in the dtype of x, at least float32.

    Args:
        name: how the caller calls it.
        value: one number, or an array (batch,).
        x: the batch, an array or a pytree of arrays.

    Raises:
        InputError: it has another shape, or is not of real numbers.
    """
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(x)]
    if isinstance(value, list | tuple):
        value = np.asarray(value)
    dtype = jnp.promote_types(jnp.result_type(*dtypes), jnp.float32)
    value = jnp.asarray(at_least_float32(value, name), dtype)  # which refuses complex numbers
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


def checked_batch_size(x: Any, t: Any) -> int:
    """How many examples there are in x, once x and t are what a velocity takes.

    Args:
        x: points (batch, ...), or a pytree of such arrays.
        t: times (batch,), or a `Span` of two such.

    Raises:
        InputError: x is not of floats, or has no batch axis or no example; t is not one time each.
    """
    leaves = jax.tree.leaves(x)
    for leaf in leaves:
        check_floats("x", leaf)
    sizes = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(sizes) != 1 or sizes in ({()}, {(0,)}):
        raise InputError(
            "x must be arrays (batch, ...) of one batch of at least one example; got shapes "
            f"{[jnp.shape(leaf) for leaf in leaves]}."
        )
    for one in t if isinstance(t, Span) else [t]:
        times_of(one, leaves[0])
    return batch_size(x)


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
