"""Checks of numbers that several modules take."""

import math

from fmjax.errors import InputError


def check_positive(what: str, value: float) -> None:
    """Checks that a parameter is a positive number.

    Args:
        what: the parameter, as the message names it.
        value: what came in.

    Raises:
        InputError: it is 0, negative, infinite or NaN.
    """
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{what} must be a positive number; got {value!r}.")
