"""The flow map between two Gaussians in closed form: what a network of two times is to learn."""

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from fmjax.checks import check_positive
from fmjax.conventions import Array, Labels, Span, expand
from fmjax.schedules import Linear, Schedule
from fmjax.schedules.base import check_schedule

# Below this length of a span a difference quotient is mostly rounding; the derivative at the middle
# of the span differs from it by a square of the length.
_SHORT = 1e-3


@dataclass(frozen=True, eq=False)
class GaussianMap:
    """The flow map from N(mean0, std0^2 I) to N(mean1, std1^2 I), which are independent.

    With m_t = alpha_t mean1 + sigma_t mean0 and sd_t^2 = (alpha_t std1)^2 + (sigma_t std0)^2,

        X_{s,t}(x) = m_t + (sd_t / sd_s) (x - m_s)
        u(x, s, t) = (X_{s,t}(x) - x) / (t - s)
        D(x, s, t) = d log(sd_t / sd_s) / (t - s)

    Args:
        mean0: the mean at t = 0 (d,).
        std0: the standard deviation there.
        mean1: the mean at t = 1 (d,).
        std1: the standard deviation there.
        schedule: of the path.

    Raises:
        InputError: a standard deviation is not positive, or the schedule is none.

    Example:
        >>> flow = GaussianMap(jnp.zeros(2), 1.0, jnp.array([3.0, 0.0]), 0.5)
        >>> half = flow.average_velocity(jnp.zeros((1, 2)), Span(jnp.zeros(1), jnp.ones(1)))
        >>> half.tolist()
        [[3.0, 0.0]]
    """

    mean0: Any
    std0: float
    mean1: Any
    std1: float
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self):
        check_positive("std0", self.std0)
        check_positive("std1", self.std1)
        check_schedule("the schedule", self.schedule)

    def carry(self, x: Float[Array, "batch d"], span: Span) -> Float[Array, "batch d"]:
        """X_{s,t}(x) of points x (batch, d) at s."""
        return x + expand(span.t - span.s, x) * self.average_velocity(x, span)

    def average_velocity(
        self, x: Float[Array, "batch d"], span: Span, labels: Labels = None
    ) -> Float[Array, "batch d"]:
        """u(x, s, t) at points x (batch, d), for times (batch,)."""
        offset = x - self._mean(span.s, x)
        return self._mean_rate(span, x) + expand(self._growth(span, _ratio), x) * offset

    def average_divergence(
        self, x: Float[Array, "batch d"], span: Span, labels: Labels = None
    ) -> Float[Array, " batch"]:
        """D(x, s, t), (batch,)."""
        return x.shape[-1] * self._growth(span, jnp.log)

    def velocity(
        self, x: Float[Array, "batch d"], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, "batch d"]:
        """v(x, t) = u(x, t, t) at points x (batch, d), for times (batch,)."""
        return self.average_velocity(x, Span(t, t))

    def _mean(
        self, t: Float[Array, " batch"], x: Float[Array, "batch d"]
    ) -> Float[Array, "batch d"]:
        return self._mix(self.schedule.alpha(t), self.schedule.sigma(t), x)

    def _mix(
        self, a: Float[Array, " batch"], b: Float[Array, " batch"], x: Float[Array, "batch d"]
    ) -> Float[Array, "batch d"]:
        mean0, mean1 = (jnp.asarray(np.asarray(m), x.dtype)[None] for m in (self.mean0, self.mean1))
        return expand(a, x) * mean1 + expand(b, x) * mean0

    def _variance(self, t: Float[Array, " batch"]) -> Float[Array, " batch"]:
        c = self.schedule
        return (c.alpha(t) * self.std1) ** 2 + (c.sigma(t) * self.std0) ** 2

    def _mean_rate(self, span: Span, x: Float[Array, "batch d"]) -> Float[Array, "batch d"]:
        """(m_t - m_s) / (t - s)."""
        short, length, middle = _parts(span)
        rate = self._mix(self.schedule.d_alpha(middle), self.schedule.d_sigma(middle), x)
        whole = (self._mean(span.t, x) - self._mean(span.s, x)) / expand(length, x)
        return jnp.where(expand(short, x), rate, whole)

    def _growth(self, span: Span, of_ratio: Any) -> Float[Array, " batch"]:
        """f(sd_t / sd_s) / (t - s), for f(r) = r - 1 or log r: one rate in the limit."""
        short, length, middle = _parts(span)
        c = self.schedule
        half_slope = (
            c.alpha(middle) * c.d_alpha(middle) * self.std1**2
            + c.sigma(middle) * c.d_sigma(middle) * self.std0**2
        )
        rate = half_slope / self._variance(middle)
        ratio = jnp.sqrt(self._variance(span.t) / self._variance(span.s))
        return jnp.where(short, rate, of_ratio(ratio) / length)


def _ratio(r: Float[Array, " batch"]) -> Float[Array, " batch"]:
    return r - 1


def _parts(
    span: Span,
) -> tuple[Bool[Array, " batch"], Float[Array, " batch"], Float[Array, " batch"]]:
    """Whether a span is short, its length where it is not, and its middle."""
    length = span.t - span.s
    short = jnp.abs(length) < _SHORT
    return short, jnp.where(short, 1.0, length), (span.s + span.t) / 2
