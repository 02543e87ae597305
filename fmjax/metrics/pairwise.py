"""Two sets of samples, checked against each other, and the distances between their rows."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float64, Real, Shaped
from numpy.typing import ArrayLike

from fmjax.metrics.rows import as_rows

_DISTANCE_ROWS = 1024  # rows of a matrix of distances that are made at a time


def row_pair(
    x: Real[np.ndarray, "n ..."] | ArrayLike,
    y: Real[np.ndarray, "m ..."] | ArrayLike,
    *,
    names: tuple[str, str] = ("x", "y"),
    at_least: int = 1,
) -> tuple[Float64[np.ndarray, "n features"], Float64[np.ndarray, "m features"]]:
    """Flattens two sets of examples in one unit to rows ``(n, d)`` and ``(m, d)``, in float64.

    Args:
        x: ``(n, ...)``.
        y: ``(m, ...)``.
        names: what error messages call them.
        at_least: the least number of examples of each.

    Returns:
        The rows of both.

    Raises:
        InputError: as `as_rows`, or the two differ in features or in unit.
    """
    x = as_rows(x, names[0], at_least=at_least)
    y = as_rows(y, names[1], at_least=at_least, features=x.shape[1], unit=x.dtype)
    return x.astype(np.float64), y.astype(np.float64)


def distances(
    a: Float[np.ndarray, "n features"], b: Float[np.ndarray, "m features"], *, squared: bool = False
) -> Float64[np.ndarray, "n m"]:
    """Euclidean distances between rows, ``(n, m)``; exactly 0 between equal rows."""
    from scipy.spatial.distance import cdist

    return cdist(a, b, "sqeuclidean" if squared else "euclidean")


def blocks(
    rows: Shaped[np.ndarray, " n *features"],
) -> Iterator[tuple[int, Shaped[np.ndarray, " block *features"]]]:
    """Parts of the rows, each with the place where it starts, to bound the memory of all pairs."""
    for start in range(0, len(rows), _DISTANCE_ROWS):
        yield start, rows[start : start + _DISTANCE_ROWS]
