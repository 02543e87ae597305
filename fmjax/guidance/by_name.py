"""Several conditions of one network by name, each with a scale of its own."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from fmjax.conditions import Mask, check_conditions, null_labels
from fmjax.conventions import Labels
from fmjax.errors import InputError, unknown_name
from fmjax.guidance.labels import Guided, Nested, Scale, null_like
from fmjax.names import named_leaves

Scales = Mapping[str, Scale]
"""A scale for each condition: one number, or one per example (batch,)."""


def guide_each(conditions: Any, labels: Labels, scales: Scales) -> tuple[Guided, ...]:
    """Each condition by itself, the others null: a composition.

        u(x, t) = u_null + sum_k w_k (u_k - u_null)

    with u_k under the k-th condition alone (Liu et al., arXiv:2206.01714), which the network has to
    know: train it with a drop rate for each condition.

    Args:
        conditions: what each array of labels is (`fmjax.conditions`), built as labels.
        labels: arrays (batch, ...), or lone ones for the whole batch.
        scales: w_k by the name of the condition, one for each; a mask has that of its sequence.

    Returns:
        What the velocity of `fmjax.guidance.classifier_free` takes in the place of labels.

    Raises:
        InputError: a name is unknown or missing, or the labels are not built as the conditions.

    Example:
        >>> of_labels = {"class": ClassIds(10, drop_rate=0.1), "age": Vector(1, drop_rate=0.1)}
        >>> labels = {"class": jnp.array([3]), "age": jnp.array([[0.5]])}
        >>> age, of_class = guide_each(of_labels, labels, {"age": 1.5, "class": 4.0})
        >>> age.w, of_class.w
        (1.5, 4.0)
    """
    names = _checked(conditions, scales)
    return tuple(Guided(_only(conditions, labels, [name]), scales[name]) for name in names)


def guide_in_turn(conditions: Any, labels: Labels, scales: Scales) -> Nested:
    """One condition after another, each beside those before it: the two scales of InstructPix2Pix.

        u(x, t) = u_0 + sum_k w_k (u_k - u_{k-1})

    with u_k under the first k conditions and the others null; all w = 1 is the velocity under all
    of them. For an image and a text it is eq. (3) of Brooks et al., arXiv:2211.09800, its
    ``s_I = w_image`` and ``s_T = w_text``: train the network with a drop rate for the later
    conditions, and with `drop_all`.

    Args:
        conditions: what each array of labels is (`fmjax.conditions`), built as labels.
        labels: arrays (batch, ...), or lone ones for the whole batch.
        scales: w_k by the name of the condition, one for each, in the order in which they are
            added; a mask has that of its sequence.

    Returns:
        What the velocity of `fmjax.guidance.classifier_free` takes in the place of labels.

    Raises:
        InputError: a name is unknown or missing, or the labels are not built as the conditions.

    Example:
        >>> of_labels = {"class": ClassIds(10, drop_rate=0.1), "age": Vector(1, drop_rate=0.1)}
        >>> labels = {"class": jnp.array([3]), "age": jnp.array([[0.5]])}
        >>> guided = guide_in_turn(of_labels, labels, {"class": 4.0, "age": 1.5})
        >>> [part.w for part in guided.parts]
        [4.0, 1.5]
    """
    names = _checked(conditions, scales)
    return Nested(
        tuple(
            Guided(_only(conditions, labels, names[: k + 1]), scales[name])
            for k, name in enumerate(names)
        )
    )


def _checked(conditions: Any, scales: Scales) -> list[str]:
    """The names of the scales in their order."""
    check_conditions(conditions)
    known = [name for name, c in named_leaves(conditions).items() if not isinstance(c, Mask)]
    if not isinstance(scales, Mapping):
        raise InputError(
            'scales must be a dictionary of a scale for each condition, {"image": 1.5, "text": '
            f"7.5}}; got {scales!r:.60}."
        )
    for name in scales:
        if name not in known:
            raise unknown_name("condition", name, known)
    if missing := [name for name in known if name not in scales]:
        raise InputError(
            f"scales must have one for each condition; {', '.join(missing)} has none. Write 1 for "
            "a condition that is not to be guided."
        )
    return list(scales)


def _only(conditions: Any, labels: Labels, names: Iterable[str]) -> Labels:
    """The labels, but null where a condition is none of those named."""
    nulls = named_leaves(null_like(labels, null_labels(conditions)))
    given, described = named_leaves(labels), named_leaves(conditions)
    owners = {n: c.of if isinstance(c, Mask) else n for n, c in described.items()}
    leaves = [given[n] if owner in names else nulls[n] for n, owner in owners.items()]
    return jax.tree.unflatten(jax.tree.structure(labels), leaves)
