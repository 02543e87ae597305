"""Paths: from a pair (x0, x1) and a time to a point and the velocity it moves with."""

from dataclasses import dataclass, field
from typing import NamedTuple

from fmjax.conventions import Array, at_least_float32, expand
from fmjax.schedules import Linear, Schedule


class PathSample(NamedTuple):
    """A point of a conditional path: position x_t and velocity u_t, both shaped as x1."""

    x_t: Array
    u_t: Array


class Noisy(NamedTuple):
    """The source of a stochastic path: a source point x0, and standard normal z shaped as x0."""

    x0: Array
    z: Array


@dataclass(frozen=True)
class AffinePath:
    """The affine path between a source point and a data point.

    x_t = alpha_t x1 + sigma_t x0,  u_t = d_alpha_t x1 + d_sigma_t x0.

    Source: Lipman et al., arXiv:2412.06264, eq. (4.48) to (4.51).
    """

    schedule: Schedule = field(default_factory=Linear)

    def sample(self, x0: Array, x1: Array, t: Array) -> PathSample:
        """The point and the conditional velocity at t.

        Args:
            x0: source points (batch, ...).
            x1: data points (batch, ...).
            t: times (batch,) in [0, 1].

        Returns:
            x_t and u_t (batch, ...), in float32 or wider whatever the inputs are.
        """
        x0, x1, t = at_least_float32(x0), at_least_float32(x1), at_least_float32(t)
        t = expand(t, x1)
        s = self.schedule
        return PathSample(
            x_t=s.alpha(t) * x1 + s.sigma(t) * x0,
            u_t=s.d_alpha(t) * x1 + s.d_sigma(t) * x0,
        )
