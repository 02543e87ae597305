"""What every loss function is, and the error that all of them measure."""

from typing import Protocol

from fmjax.array_checks import check_shaped_as
from fmjax.conventions import Array, Labels, Params, at_least_float32
from fmjax.paths import Noisy


class LossFn(Protocol):
    """``loss_fn(params, x0, x1, t, labels) -> scalar``: no key, no hidden state.

    x0 is ``Noisy(x0, z)`` on a stochastic path; the arguments after params are those that
    `fmjax.Draw` gives.
    """

    def __call__(
        self, params: Params, x0: Array | Noisy, x1: Array, t: Array, labels: Labels = None
    ) -> Array:
        """The loss of a batch, or the losses of its examples (batch,)."""


def error_of(predicted: Array, goal: Array) -> Array:
    """predicted - goal, (batch, ...), in float32 or wider.

    Args:
        predicted: what a network gave (batch, ...).
        goal: what it should have given, at least float32.

    Raises:
        InputError: the shapes differ.
    """
    check_shaped_as("what apply_fn returns", predicted, "x", goal.shape)
    return at_least_float32(predicted) - goal
