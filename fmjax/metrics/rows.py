"""Examples as rows of a matrix, checked: the form that every metric takes them in."""

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike, DTypeLike

from fmjax.array_checks import check_finite
from fmjax.errors import InputError


def as_rows(
    examples: Shaped[np.ndarray, "n ..."] | ArrayLike,
    what: str,
    *,
    features: int | None = None,
    unit: DTypeLike | None = None,
    at_least: int = 1,
) -> Shaped[np.ndarray, "n features"]:
    """Flattens examples ``(n, ...)`` to rows ``(n, d)``, without copying or changing the dtype.

    Args:
        examples: an array whose first axis counts examples.
        what: its name in error messages.
        features: the number of features d it must have; None for any.
        unit: a dtype to agree with. uint8 pixels (0 to 255) beside float pixels (-1 to 1) are two
            units: a distance between them means nothing.
        at_least: the least number of examples.

    Returns:
        The rows, ``(n, d)``.

    Raises:
        InputError: for too few examples, no or another number of features, another unit, values
            that are not finite or not real numbers.
    """
    array = np.asarray(examples)
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} must hold real numbers, got dtype {array.dtype}.")
    if array.ndim < 2:
        raise InputError(f"{what} must have shape (n, ...), got {array.shape}.")
    if len(array) < at_least:
        raise InputError(f"{what} must hold at least {at_least} examples, got {len(array)}.")
    rows = array.reshape(len(array), -1)
    if rows.shape[1] == 0 or rows.shape[1] != (features or rows.shape[1]):
        expected = f"{features} features" if features else "features"
        raise InputError(f"{what} must have {expected} per example, got shape {array.shape}.")
    if unit is not None and (rows.dtype.kind == "f") != (np.dtype(unit).kind == "f"):
        raise InputError(
            f"{what} must be in the same unit as what it is compared with: got {rows.dtype} "
            f"beside {np.dtype(unit)}; convert one of them."
        )
    if rows.dtype.kind == "f":
        check_finite(what, rows)
    return rows
