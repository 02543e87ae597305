"""What every coupling is: a function that re-pairs a batch."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from fmjax.array_checks import check_leading_size, check_returned
from fmjax.conventions import Labels
from fmjax.errors import InputError

Coupling = Callable[[PRNGKeyArray, Any, Any, Labels], tuple[Any, Any, Labels]]
"""``coupling(key, x0, x1, labels) -> (x0, x1, labels)``, each with its leading batch axis."""


def independent(
    key: PRNGKeyArray, x0: Any, x1: Any, labels: Labels = None
) -> tuple[Any, Any, Labels]:
    """The product coupling q0(x0) q1(x1): every pair stays as it was drawn; the key is not used."""
    del key
    return x0, x1, labels


def paired(coupling: Coupling, key: PRNGKeyArray, x0: Any, x1: Any, labels: Labels) -> Any:
    """What a coupling makes of a batch, checked: whoever takes a coupling calls it through here.

    Args:
        coupling: whose.
        key: a key.
        x0: source points (batch, ...), or a pytree of such arrays.
        x1: data points, built as x0.
        labels: arrays with a leading batch axis, or None.

    Returns:
        x0 and x1 of the shapes that they had, and labels of their size.

    Raises:
        InputError: the coupling gives something else.
    """
    found = coupling(key, x0, x1, labels)
    if not isinstance(found, tuple | list) or len(found) != 3:
        raise InputError(
            f"the coupling must return three things, (x0, x1, labels); got {found!r:.60}."
        )
    check_returned("the coupling", found[0], "the x0 that it took", x0)
    check_returned("the coupling", found[1], "the x1 that it took", x1)
    check_leading_size(found[2], len(jax.tree.leaves(x1)[0]), "the labels from the coupling")
    return tuple(found)
