"""The flow from a standard normal to a Gaussian, in closed form: its lines too."""

import functools
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from fmjax.conventions import Array, Labels, at_least_float32
from fmjax.schedules import Linear, Schedule
from fmjax.testing.mixture import MixtureFlow, turn_back


@dataclass(frozen=True, eq=False)
class GaussianFlow:
    """The flow from a standard normal to a Gaussian N(center, spread).

    Args:
        center: the mean of the data, of any shape.
        spread: its standard deviation: one number, or one per entry; for a vector center (d,) also
            its covariance (d, d).
        schedule: of the path.

    Raises:
        InputError: as in `MixtureFlow`.

    Example:
        >>> flow = GaussianFlow(center=jnp.array([2.0]), spread=1.0)
        >>> flow.velocity(jnp.array([[0.0]]), jnp.array([0.0]))  # E[x1] - x0
        Array([[2.]], dtype=float32)
    """

    center: Any
    spread: Any = 1.0
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self):
        self._mixture  # noqa: B018  (wrong input is refused here)

    @functools.cached_property
    def _mixture(self) -> MixtureFlow:
        spread = np.asarray(self.spread, np.float64)
        center = np.asarray(self.center, np.float64)
        if spread.ndim <= center.ndim and spread.ndim > 0:
            spread = np.broadcast_to(spread, center.shape)
        return MixtureFlow([1.0], center[None], spread[None], self.schedule)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self._mixture.shape

    def velocity(
        self, x: Float[Array, " batch *shape"], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch *shape"]:
        """The velocity at points x (batch, ...) and times t (batch,), shaped as x."""
        return self._mixture.velocity(x, t)

    def score(
        self, x: Float[Array, " batch *shape"], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch *shape"]:
        """The gradient of `log_density` in x, shaped as x."""
        return self._mixture.score(x, t)

    def log_density(
        self, x: Float[Array, "batch ..."], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch"]:
        """log p_t(x) in nats (batch,)."""
        return self._mixture.log_density(x, t)

    def mean(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """The mean of x_t: alpha times that of the data; t of any shape, before the axes of x."""
        return self._mixture.mean(t)

    def cov(self, t: Float[Array, "*t"]) -> Float[Array, "*t d d"]:
        """The covariance of the flattened x_t, (d, d) after the axes of t."""
        return self._mixture.cov(t)

    def sample(
        self, key: PRNGKeyArray, n: int, t: float | Float[Array, ""] = 1.0, dtype: Any = float
    ) -> Float[Array, "{n} ..."]:
        """n points of p_t, of the data by default, (n, ...)."""
        return self._mixture.sample(key, n, t, dtype=dtype)

    def carry(
        self,
        x: Float[Array, " batch *shape"],
        t0: float | Float[Array, ""] = 0.0,
        t1: float | Float[Array, ""] = 1.0,
    ) -> Float[Array, " batch *shape"]:
        """The point at t1 of the flow line through x at t0: the solution of the ODE.

        x(t1) = alpha_1 m + V_1^(1/2) V_0^(-1/2) (x - alpha_0 m), the indices standing for t1, t0.

        Args:
            x: points (batch, ...).
            t0: where x is.
            t1: where to go, before or after t0.

        Returns:
            Points shaped as x.
        """
        x = at_least_float32(x)
        here, c, _ = self._mixture.local(x, jnp.full(x.shape[:1], t0, x.dtype), None)
        end = jnp.asarray(t1, x.dtype)
        variance = (self.schedule.alpha(end) * c.stds) ** 2 + self.schedule.sigma(end) ** 2
        moved = turn_back(c.axes, jnp.sqrt(variance / here.variance) * here.offset)
        return (self.schedule.alpha(end) * c.centers + moved)[:, 0]
