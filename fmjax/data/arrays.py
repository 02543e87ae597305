"""Examples in memory: a split of arrays, of which any may be a pytree of arrays.

Threads read them, so that nothing here touches a device.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Real, Shaped

from fmjax.array_checks import check_finite
from fmjax.conventions import Places
from fmjax.errors import InputError
from fmjax.names import named_leaves


def on_host(tree: Any) -> Any:
    """A pytree of arrays as numpy arrays of the dtypes that a device would give them.

    float64 becomes float32 and int64 int32, unless jax is told to keep them.
    """

    def convert(x: Any) -> Shaped[np.ndarray, "..."]:
        x = np.asarray(x)
        if x.dtype.kind not in "iuf":
            return x
        return x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)

    return jax.tree.map(convert, tree)


def rows(tree: Any, indices: int | Places) -> Any:
    """Those rows of every array of a pytree."""
    return jax.tree.map(lambda x: x[np.asarray(indices)], tree)


def check_rows(what: str, parts: dict[str, Any]) -> int:
    """Checks that all arrays have one leading size, at least 1, and are finite.

    Args:
        what: the arrays together, as the message names them.
        parts: pytrees of numpy arrays, by name.

    Returns:
        The leading size.

    Raises:
        InputError: an array has no rows or another number of them, or holds NaN or infinity.
    """
    leaves = named_leaves(parts)
    for name, x in leaves.items():
        if x.dtype.kind not in "biufV" or not x.ndim:  # V: bfloat16
            raise InputError(
                f"{what} must be arrays of numbers with a leading axis of examples; got {name} of "
                f"{x.dtype} and shape {x.shape}."
            )
    sizes = {name: len(x) for name, x in leaves.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "no array"
        raise InputError(
            f"{what} must have one number of examples in all its arrays, at least 1; got {listed}."
        )
    for name, x in leaves.items():
        if x.dtype.kind in "fV":
            check_finite(f"{what}: {name}", x)
    return next(iter(sizes.values()))


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
    """Examples in memory: a `fmjax.data.dataset.Split`.

    Attributes:
        x: numpy arrays (n, ...), a pytree of them or one.
        labels: the same, or None.
        weights: how often each example counts, (n,); None for all alike.
    """

    x: Any
    labels: Any = None
    weights: Real[np.ndarray, " n"] | None = dataclasses.field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.x)[0])

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, labels = rows(self.x, index), rows(self.labels, index)
        return {"x": x} if labels is None else {"x": x, "labels": labels}

    def read(self, indices: Places) -> tuple[Any, Any]:
        """x (k, ...) and labels (k, ...), or None, at k positions."""
        return rows(self.x, indices), rows(self.labels, indices)


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayPairs(ArraySplit):
    """Pairs in memory: examples that come with the source point that each belongs to.

    Attributes:
        x0: the source points, shaped as x.
    """

    x0: Any = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x0": rows(self.x0, index), **super().__getitem__(index)}

    def read_pairs(self, indices: Places) -> tuple[Any, Any, Any]:
        """x0, x and labels, or None, at k positions."""
        return rows(self.x0, indices), *self.read(indices)
