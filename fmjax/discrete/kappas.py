"""kappa_t: which share of the tokens are data at time t.

A kappa is a `fmjax.schedules.Schedule` whose two weights sum to one: alpha_t is kappa_t, and
sigma_t is 1 - kappa_t, so that near t = 1 nothing is lost in a difference. `fmjax.schedules.Linear`
and `fmjax.schedules.Polynomial` are such; `CubicKappa` and `CosineKappa` are here;
`fmjax.schedules.Custom` makes one of your own functions.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fmjax.checks import check_finite_number
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.schedules import END, Schedule, clamp
from fmjax.schedules.base import check_schedule

_TIMES = 257
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class CubicKappa:
    """The cubic polynomial from 0 to 1 with the slopes a at t = 0 and b at t = 1.

    kappa_t = 3 t^2 - 2 t^3 + a (t^3 - 2 t^2 + t) + b (t^3 - t^2).

    Source: Gat et al., arXiv:2407.15595.

    Args:
        a: the slope at t = 0.
        b: the slope at t = 1.

    Raises:
        InputError: a or b is not finite, or kappa_t does not increase, as with a slope below 0 or
            both slopes above 3.
    """

    a: float = 0.0
    b: float = 0.0

    def __post_init__(self):
        check_finite_number("a of CubicKappa", self.a)
        check_finite_number("b of CubicKappa", self.b)
        check_kappa(self)

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """kappa_t."""
        s = 1.0 - t
        return t * (t * (3.0 - 2.0 * t) + self.a * s * s - self.b * t * s)

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """1 - kappa_t, without cancellation near t = 1."""
        s = 1.0 - t
        return s * (s * (1.0 + 2.0 * t) - self.a * t * s + self.b * t * t)

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The derivative of kappa_t."""
        s = 1.0 - t
        return 6.0 * t * s + self.a * s * (1.0 - 3.0 * t) + self.b * t * (3.0 * t - 2.0)

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Minus the derivative of kappa_t."""
        return -self.d_alpha(t)


@dataclass(frozen=True)
class CosineKappa:
    """The cosine: slow near the source, fast near the data.

    kappa_t = 1 - cos(pi t / 2).

    Source: Shi et al., arXiv:2406.04329 (MD4), where time runs from data to masks; Chang et al.,
    arXiv:2202.04200 (MaskGIT).
    """

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """kappa_t, as 2 sin(pi t / 4)^2."""
        return 2.0 * jnp.square(jnp.sin(0.25 * math.pi * t))

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """1 - kappa_t, without cancellation near t = 1."""
        return jnp.sin(0.5 * math.pi * (1.0 - t))

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The derivative of kappa_t."""
        return 0.5 * math.pi * jnp.sin(0.5 * math.pi * t)

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Minus the derivative of kappa_t."""
        return -self.d_alpha(t)


def check_kappa(kappa: Schedule) -> None:
    """Checks that a schedule is a kappa: from 0 to 1, never falling, its two weights summing to 1.

    Args:
        kappa: what came, looked at at 257 times.

    Raises:
        InputError: it is not.
    """
    check_schedule("kappa", kappa)
    with jax.ensure_compile_time_eval():
        t = jnp.linspace(0.0, 1.0, _TIMES)
        share, rest = (np.asarray(f(t), np.float64) for f in (kappa.alpha, kappa.sigma))
    if not (abs(share[0]) < _TOLERANCE and abs(share[-1] - 1) < _TOLERANCE):
        raise InputError(
            f"kappa must go from 0 at t = 0 to 1 at t = 1; {kappa} goes from {share[0]:g} to "
            f"{share[-1]:g}."
        )
    steps = np.diff(share)
    if not np.all(steps >= -1e-7):
        at = int(np.argmin(steps >= -1e-7)) / len(steps)
        raise InputError(
            f"kappa must never fall, as tokens turn from source to data and not back; {kappa} "
            f"falls from t = {at:g} on."
        )
    if not np.all(np.abs(share + rest - 1) < _TOLERANCE):
        raise InputError(
            f"alpha and sigma of a kappa must sum to 1, the shares of data and source; {kappa} "
            "does not: write schedules.Linear(), schedules.Polynomial(2) or CosineKappa()."
        )


def hazard(kappa: Schedule, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
    """kappa'_t / (1 - kappa_t), the rate at which a source token turns into data.

    It is infinite at t = 1 and read at most at 1 - `fmjax.schedules.END`.
    """
    t = clamp(t, 0.0, 1.0 - END)
    return kappa.d_alpha(t) / kappa.sigma(t)


def share_left(kappa: Schedule, t: Float[Array, "*t"], s: Float[Array, "*t"]) -> Float[Array, "*t"]:
    """(1 - kappa_s) / (1 - kappa_t): of the source tokens at t, the share that is left at s > t."""
    rest = kappa.sigma(t)
    return jnp.where(rest > 0, kappa.sigma(s) / jnp.where(rest > 0, rest, 1.0), 0.0)
