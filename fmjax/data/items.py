"""Examples that are had one by one, from anything with ``len(source)`` and ``source[k]``."""

import dataclasses
from typing import Any

import jax
import numpy as np

from fmjax.conventions import Places
from fmjax.data.arrays import on_host
from fmjax.errors import InputError

PARTS = ("x", "labels", "x0")


def by_parts(what: str, given: Any) -> dict[str, Any]:
    """Arrays by their names: a bare array is x, and a part that is None is left out.

    Args:
        what: what was given, as the message names it.
        given: an array, or a dictionary of (pytrees of) arrays.

    Raises:
        InputError: a name is unknown, or x is missing.
    """
    if hasattr(given, "shape") and hasattr(given, "dtype"):
        return {"x": on_host(given)}
    if not isinstance(given, dict) or "x" not in given or set(given) - set(PARTS):
        found = ", ".join(map(repr, given)) if isinstance(given, dict) else type(given).__name__
        raise InputError(
            f"{what} must be an array, or a dictionary of arrays 'x' and, where there are any, "
            f"'labels' and 'x0' (the source points), in memory also 'weights'; got {found}."
        )
    return {name: on_host(tree) for name, tree in given.items() if tree is not None}


@dataclasses.dataclass(frozen=True, eq=False)
class ItemSplit:
    """The examples of a source: a `fmjax.data.dataset.Split`.

    Attributes:
        source: ``source[k]`` is an array, or a dictionary of x and, if any, labels and x0.
    """

    source: Any

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return by_parts("each example", self.source[int(index)])

    def stacked(self, indices: Places) -> dict[str, Any]:
        """The parts of k examples, each array (k, ...).

        Raises:
            InputError: the examples differ in their parts or their shapes.
        """
        examples = [self[k] for k in indices]
        try:
            return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)
        except ValueError as error:
            raise InputError(
                "all examples must have the same parts, of the same shapes; those at "
                f"{list(map(int, indices))[:8]} differ ({error})."
            ) from error

    def read(self, indices: Places) -> tuple[Any, Any]:
        """x (k, ...) and labels (k, ...), or None, at k positions."""
        parts = self.stacked(indices)
        return parts["x"], parts.get("labels")


class ItemPairs(ItemSplit):
    """The examples of a source that gives each with the source point x0 that it belongs to."""

    def read_pairs(self, indices: Places) -> tuple[Any, Any, Any]:
        """x0, x and labels, or None, at k positions."""
        parts = self.stacked(indices)
        return parts["x0"], parts["x"], parts.get("labels")
