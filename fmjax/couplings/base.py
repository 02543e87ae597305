"""What every coupling is: a function that re-pairs a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fmjax.conventions import Array, Labels
from fmjax.errors import InputError

Coupling = Callable[[Array, Array, Array, Labels], tuple[Array, Array, Labels]]
"""``coupling(key, x0, x1, labels) -> (x0, x1, labels)``, each with its leading batch axis."""


def independent(
    key: Array, x0: Array, x1: Array, labels: Labels = None
) -> tuple[Array, Array, Labels]:
    """The product coupling q0(x0) q1(x1): every pair stays as it was drawn; the key is not used."""
    del key
    return x0, x1, labels


def check_pairs(x0: Array, x1: Array, labels: Labels = None) -> None:
    """Checks a batch before it is paired; values only where they are known (outside jit).

    Raises:
        InputError: x0 and x1 differ in shape or have no batch axis, a label array has another
            leading size than the batch, or x0 or x1 holds NaN or infinity.
    """
    if jnp.shape(x0) != jnp.shape(x1) or not jnp.shape(x1):
        raise InputError(
            "x0 and x1 must have one shape, (batch, ...); "
            f"got x0 {jnp.shape(x0)} and x1 {jnp.shape(x1)}."
        )
    for leaf in jax.tree.leaves(labels):
        if jnp.shape(leaf)[:1] != jnp.shape(x1)[:1]:
            raise InputError(
                f"labels must have the leading size of the batch, {len(x1)}; "
                f"got an array of shape {jnp.shape(leaf)}."
            )
    for name, x in (("x0", x0), ("x1", x1)):
        if _is_known(x) and not bool(jnp.all(jnp.isfinite(x))):
            raise InputError(
                f"{name} holds NaN or infinity, and no distance to it is defined. "
                "Look at the data, or at the step that made it."
            )


def _is_known(x: Array) -> bool:
    """Whether the values are here: not under jit, and not on another process's devices."""
    return not isinstance(x, jax.core.Tracer) and getattr(x, "is_fully_addressable", True)
