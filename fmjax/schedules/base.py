"""What every schedule is, and what holds for all of them."""

import functools
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_methods
from fmjax.conventions import Array, TimeFunction
from fmjax.numerics.inversion import invert_increasing

END = 1e-5
"""How far from an end an infinite derivative is read instead: 168 spacings of float32 below 1."""


class Schedule(Protocol):
    """alpha_t multiplies the data, sigma_t the source; alpha_0 = 0 and alpha_1 = sigma_0 = 1."""

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """alpha_t, the weight of the data x1."""

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """sigma_t, the weight of the source x0."""

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The time derivative of alpha_t."""

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The time derivative of sigma_t."""

    def __hash__(self) -> int:
        """What is computed of a schedule is kept, so that two that are equal have one hash."""
        return super().__hash__()


def check_schedule(what: str, schedule: Schedule) -> None:
    """Checks that something is a schedule.

    Raises:
        InputError: it is a class, or lacks a method.
    """
    methods = ("alpha", "sigma", "d_alpha", "d_sigma")
    check_methods(what, schedule, *methods, such_as="schedules.Linear()")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def with_slope(
    value: TimeFunction,
    slope: TimeFunction,
    t: Float[Array, "*t"],
) -> Float[Array, "*t"]:
    """``value(t)``, elementwise, which jax differentiates as ``slope(t)``.

    For a function whose derivative is known but infinite, or undefined to autodiff, at an end.
    """
    result = value(t)
    check_returned("value", result, "t", t)
    return result


@with_slope.defjvp
def _with_slope_jvp(value, slope, primals, tangents):
    (t,), (t_dot,) = primals, tangents
    rate = slope(t)
    check_returned("slope", rate, "t", t)
    return with_slope(value, slope, t), rate * t_dot


def clamp(
    t: Float[Array, "*t"], low: Float[Array, "..."] | float, high: Float[Array, "..."] | float
) -> Float[Array, "*t"]:
    """t moved into [low, high]; inside, ends included, its derivative is 1.

    `jnp.clip` halves the gradient at a tie, which would halve every derivative at t = 0 and t = 1.
    """
    t = jnp.asarray(t)
    return jnp.where(t < low, low, jnp.where(t > high, high, t)).astype(t.dtype)


def log_snr(schedule: Schedule, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
    """The log signal-to-noise ratio log(alpha_t^2 / sigma_t^2), any shape of t.

    It increases with t, from -inf where alpha_t = 0 to +inf where sigma_t = 0.
    """
    return 2.0 * (jnp.log(schedule.alpha(t)) - jnp.log(schedule.sigma(t)))


def inverse_log_snr(schedule: Schedule, value: Float[Array, "*value"]) -> Float[Array, "*value"]:
    """The time at which `log_snr` takes a value: by closed form, else by bisection.

    Args:
        schedule: any schedule; its ``t_at_log_snr`` is used where it has one.
        value: log signal-to-noise ratios, any shape; -inf and +inf are allowed.

    Returns:
        t in [0, 1], shaped as value; the nearest end for a value the schedule never takes.
    """
    if hasattr(schedule, "t_at_log_snr"):
        return schedule.t_at_log_snr(value)
    return invert_increasing(functools.partial(log_snr, schedule), value)
