"""The affine path: the pair and the time fix the point."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float

from fmjax.array_checks import as_floats, check_shaped_as, times_of
from fmjax.conventions import Array, expand
from fmjax.paths.base import PathSample, check_noise
from fmjax.paths.distances import squared
from fmjax.schedules import Linear, Schedule
from fmjax.schedules.base import check_schedule
from fmjax.sources import NO_NOISE


@dataclass(frozen=True)
class AffinePath:
    """The affine path between a source point and a data point.

    x_t = alpha_t x1 + sigma_t x0,  u_t = d_alpha_t x1 + d_sigma_t x0.

    Source: Lipman et al., arXiv:2412.06264, eq. (4.48) to (4.51).

    Raises:
        InputError: the schedule is none.

    Example:
        >>> x_t, u_t = AffinePath().sample(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.array([0.25]))
        >>> x_t, u_t
        (Array([[0.25, 0.25]], dtype=float32), Array([[1., 1.]], dtype=float32))
    """

    schedule: Schedule = field(default_factory=Linear)
    noise = NO_NOISE

    def __post_init__(self):
        check_schedule("the schedule", self.schedule)

    def sample(
        self,
        x0: Float[Array, " batch *shape"],
        x1: Float[Array, " batch *shape"],
        t: Float[Array, "batch ..."],
        noise: Mapping[str, Any] | None = None,
    ) -> PathSample:
        """The point and the conditional velocity at t.

        Args:
            x0: source points (batch, ...).
            x1: data points (batch, ...).
            t: times (batch,) in [0, 1]; or (batch, n, ...), one for each element of leading axes.
            noise: none: the pair fixes the path.

        Returns:
            x_t and u_t (batch, ...), in float32 or wider whatever the inputs are.

        Raises:
            InputError: noise came, or x0, x1 or t is not of floats.
        """
        check_noise(self, noise)
        x0, x1 = as_floats("x0", x0), as_floats("x1", x1)
        check_shaped_as("x0", x0, "x1", x1.shape)
        t = expand(times_of(t, x1), x1)
        s = self.schedule
        return PathSample(
            x_t=s.alpha(t) * x1 + s.sigma(t) * x0,
            target=s.d_alpha(t) * x1 + s.d_sigma(t) * x0,
        )

    def distance(
        self,
        predicted: Float[Array, " batch *shape"],
        target: Float[Array, " batch *shape"],
        x_t: Float[Array, " batch *shape"],
        t: Float[Array, "batch ..."],
    ) -> Float[Array, " batch"]:
        """The mean squared error of the velocity (batch,)."""
        return squared(predicted, target, x_t, t)
