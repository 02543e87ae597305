"""The derivative of a network along a line in (x, time): exact, or by a finite difference.

Fused attention has no forward-mode derivative; the finite difference needs only evaluations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_between, check_name
from fmjax.conventions import Array, expand
from fmjax.errors import InputError


@dataclass(frozen=True)
class FiniteDifference:
    """A central difference, its points no further than `step` in time and inside [0, 1].

        df/dh = (f(h) - f(-h)) / 2h + O(h^2)

    In float32 the rounding error of f, about 1e-7, is divided by h: near h = 5e-3 both errors of a
    network of ordinary smoothness are small. At the ends of [0, 1] the difference is one-sided, and
    its error of order h.

    Args:
        step: h, from 1e-4, below which nothing but rounding is left in float32, to 0.1.

    Raises:
        InputError: it lies outside.
    """

    step: float = 5e-3

    def __post_init__(self):
        check_between(
            "the step of a finite difference",
            self.step,
            1e-4,
            0.1,
            advice="Below 1e-4 a float32 difference is all rounding; 5e-3 is usual.",
        )


Derivative = str | FiniteDifference
"""``"jvp"``, the exact one, ``"fd"``, or a `FiniteDifference` with a step of its own."""


def check_derivative(how: Derivative) -> None:
    """Checks a choice of derivative.

    Raises:
        InputError: it is neither a known name nor a `FiniteDifference`.
    """
    if isinstance(how, type):
        raise InputError(f"derivative must be an object, {how.__name__}(); got the class.")
    if not isinstance(how, FiniteDifference):
        check_name("derivative", how, ("jvp", "fd"))


def directional(
    f: Callable[..., Any],
    point: tuple,
    direction: tuple,
    time: Float[Array, " batch"],
    how: Derivative,
) -> Any:
    """df/dh of f(point + h direction) at h = 0.

    Args:
        f: a function of arrays with a leading batch axis, to a pytree of such.
        point: its arguments.
        direction: shaped as them.
        time: the argument that moves at rate 1, (batch,), in [0, 1].
        how: ``"jvp"``, ``"fd"``, or a `FiniteDifference`.

    Returns:
        What f gives, differentiated.
    """
    if how == "jvp":
        return jax.jvp(f, point, direction)[1]
    step = FiniteDifference().step if isinstance(how, str) else how.step
    after, before = jnp.minimum(step, 1 - time), jnp.minimum(step, time)

    def at(h: Float[Array, " batch"]) -> Any:
        return f(*(p + expand(h, p) * d for p, d in zip(point, direction, strict=True)))

    def difference(
        high: Float[Array, "batch ..."], low: Float[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        return (high - low) / expand(after + before, high)

    return jax.tree.map(difference, at(after), at(-before))
