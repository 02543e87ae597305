"""Parameters that a training leaves as they are, to the bit.

They are chosen by patterns of their names, such as ``("blocks/attention/*",)``. The gradient is
taken by the others alone: they make up its norm, and the optimiser has moments of no more.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Shaped
from optax import MaskedNode

from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.names import matching, named_leaves


def split(params: Any, frozen: Sequence[str]) -> tuple[Any, Any]:
    """Parameters in two trees: those that are trained, and those that are not.

    Args:
        params: arrays, or their shapes.
        frozen: patterns of names, see `fmjax.names.matching`; none of them: all are trained.

    Returns:
        Two trees like `params`, each with an ``optax.MaskedNode``, which has no leaves, in the
        place of what is in the other.

    Raises:
        InputError: a pattern matches nothing, or the patterns match everything.
    """
    names = matching(frozen, params, "frozen")
    leaves, structure = named_leaves(params, "params"), jax.tree.structure(params)
    if leaves and len(names) == len(leaves):
        raise InputError(
            f"frozen={tuple(frozen)!r} matches all {len(leaves)} parameters, and nothing is left "
            "to train: leave some out."
        )
    parts = (
        [MaskedNode() if (name in names) == of_frozen else x for name, x in leaves.items()]
        for of_frozen in (True, False)
    )
    trained, kept = (jax.tree.unflatten(structure, part) for part in parts)
    return trained, kept


def joined(trained: Any, kept: Any) -> Any:
    """The parameters that `split` has split.

    Args:
        trained: its first tree.
        kept: its second.
    """
    return jax.tree.map(_first, trained, kept, is_leaf=_is_masked)


def _is_masked(x: Any) -> bool:
    return isinstance(x, MaskedNode)


def _first(x: Any, y: Any) -> Any:
    return y if _is_masked(x) else x


def keep_equal(average: Any, before: Any, kept: Any) -> Any:
    """An average after a step, of which what is frozen and equals its average stays as it is.

    d a + (1 - d) p is a up to rounding where a = p, and here a itself.

    Args:
        average: after the step.
        before: before it.
        kept: the frozen parameters, from `split`.
    """

    def keep(
        p: Any, new: Shaped[Array, "*shape"], old: Shaped[Array, "*shape"]
    ) -> Shaped[Array, "*shape"]:
        return new if _is_masked(p) else jnp.where(old == p.astype(old.dtype), old, new)

    return jax.tree.map(keep, kept, average, before, is_leaf=_is_masked)
