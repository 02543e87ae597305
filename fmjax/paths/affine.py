"""The affine path: the pair and the time fix the point."""

from dataclasses import dataclass, field
from typing import ClassVar

from fmjax.conventions import Array, at_least_float32, expand
from fmjax.errors import InputError
from fmjax.paths.base import Noisy, PathSample
from fmjax.schedules import Linear, Schedule


@dataclass(frozen=True)
class AffinePath:
    """The affine path between a source point and a data point.

    x_t = alpha_t x1 + sigma_t x0,  u_t = d_alpha_t x1 + d_sigma_t x0.

    Source: Lipman et al., arXiv:2412.06264, eq. (4.48) to (4.51).
    """

    schedule: Schedule = field(default_factory=Linear)
    stochastic: ClassVar[bool] = False

    def sample(self, x0: Array, x1: Array, t: Array) -> PathSample:
        """The point and the conditional velocity at t.

        Args:
            x0: source points (batch, ...).
            x1: data points (batch, ...).
            t: times (batch,) in [0, 1].

        Returns:
            x_t and u_t (batch, ...), in float32 or wider whatever the inputs are.

        Raises:
            InputError: x0 is a `Noisy` source.
        """
        if isinstance(x0, Noisy):
            raise InputError(
                "AffinePath adds no noise: it takes x0 as an array, got Noisy(x0, z). Write "
                "path.sample(source.x0, x1, t), and Draw(noisy=False) where sources are drawn."
            )
        x0, x1, t = at_least_float32(x0), at_least_float32(x1), at_least_float32(t)
        t = expand(t, x1)
        s = self.schedule
        return PathSample(
            x_t=s.alpha(t) * x1 + s.sigma(t) * x0,
            u_t=s.d_alpha(t) * x1 + s.d_sigma(t) * x0,
        )
