"""The order of convergence of a solver, measured."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fmjax.array_checks import check_returned
from fmjax.errors import InputError


def convergence_order(
    solve_with_steps: Callable[[int], Any], exact: Any, steps: Sequence[int] = (16, 32, 64)
) -> float:
    """The power of the step with which the error of a solver falls.

    Minus the slope of log(root mean square error) over log(steps), by least squares.

    Args:
        solve_with_steps: from a number of steps to the result, an array.
        exact: what it should be, of the same shape.
        steps: the numbers of steps, at least two.

    Returns:
        The order.

    Raises:
        InputError: fewer than two numbers of steps, another shape than that of exact, or an error
            that is 0 or not finite, which has no slope.

    Example:
        >>> by_euler = lambda steps: np.array([(1 + 1 / steps) ** steps])  # of x' = x
        >>> round(convergence_order(by_euler, [np.e]), 1)
        1.0
    """
    if len(set(steps)) < 2:
        raise InputError(f"an order needs at least two numbers of steps; got {tuple(steps)}.")
    errors = []
    for n in steps:
        found, wanted = solve_with_steps(n), np.asarray(exact, np.float64)
        check_returned("solve_with_steps", found, "exact", wanted)
        errors.append(np.sqrt(np.mean(np.square(np.asarray(found, np.float64) - wanted))))
    if not all(0 < error < math.inf for error in errors):
        raise InputError(
            f"the errors {errors} of {tuple(steps)} steps have no slope; take other steps, and a "
            "problem that the solver does not solve exactly."
        )
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])
