"""The flow to a finite data set: what a network would learn that could learn everything."""

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from fmjax.array_checks import check_finite, check_points
from fmjax.conventions import Array, Labels, at_least_float32, expand
from fmjax.errors import InputError
from fmjax.predictions import convert
from fmjax.predictions.conversions import reach
from fmjax.schedules import Linear, Schedule, clamp


# Compared and hashed by identity, so that a flow, and its methods, can be static under jit.
@dataclass(frozen=True, eq=False)
class FiniteDataFlow:
    """The flow from a standard normal to a finite data set, each point as likely as the others.

    With the posterior p(i | x) = softmax_i(-|x - alpha x_i|^2 / (2 sigma^2)) the data point behind
    x is expected at x1 = sum_i p(i | x) x_i, and from it follow the velocity and the score (see
    `fmjax.predictions.convert`). It minimises the flow-matching loss over all functions, and its
    samples are the data points themselves. Where sigma vanishes, at t = 1, it is read a little
    inside, so that the posterior is the nearest point and everything stays finite.

    The distances take memory for batch x n x d numbers.

    Args:
        data: the data points (n, ...).
        schedule: of the path.

    Raises:
        InputError: data has no point, no leading axis, or is not finite.

    Example:
        >>> flow = FiniteDataFlow(jnp.array([[-1.0], [1.0]]))
        >>> flow.expected_x1(jnp.array([[0.0]]), jnp.array([0.5]))  # between the two
        Array([[0.]], dtype=float32)
    """

    data: Any
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self):
        if np.ndim(self.data) < 1 or len(self.data) < 1:
            raise InputError(
                f"data must be points (n, ...), at least one; got shape {np.shape(self.data)}."
            )
        check_finite("data", np.asarray(self.data))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return np.shape(self.data)[1:]

    @functools.cached_property
    def _last(self) -> float:
        """The last time at which sigma can be divided by."""
        return reach(self.schedule.sigma)[1]

    def expected_x1(
        self, x: Float[Array, " batch *shape"], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch *shape"]:
        """E[x1 | x_t = x], shaped as x: points x (batch, ...), times t (batch,)."""
        x = at_least_float32(x)
        log_joint, data = self._log_joint(x, t)
        return jnp.einsum("bn,n...->b...", jax.nn.softmax(log_joint, axis=1), data)

    def velocity(
        self, x: Float[Array, " batch *shape"], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch *shape"]:
        """E[alpha' x1 + sigma' x0 | x_t = x], shaped as x; arguments as in `expected_x1`."""
        return convert(self.expected_x1(x, t), x, t, self.schedule, source="x1", target="velocity")

    def score(
        self, x: Float[Array, " batch *shape"], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch *shape"]:
        """The gradient of `log_density` in x, shaped as x; arguments as in `expected_x1`."""
        return convert(self.expected_x1(x, t), x, t, self.schedule, source="x1", target="score")

    def log_density(
        self, x: Float[Array, "batch ..."], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch"]:
        """log p_t(x) in nats (batch,); at t = 1 it would be infinite, and is read before it."""
        log_joint, data = self._log_joint(at_least_float32(x), t)
        size = data[0].size
        sigma = self.schedule.sigma(clamp(jnp.asarray(t, log_joint.dtype), 0.0, self._last))
        log_normaliser = np.log(len(data)) + size * (0.5 * np.log(2 * np.pi) + jnp.log(sigma))
        return jax.nn.logsumexp(log_joint, axis=1) - log_normaliser

    def sample(
        self, key: PRNGKeyArray, n: int, t: float | Float[Array, ""] = 1.0, dtype: Any = float
    ) -> Float[Array, "{n} ..."]:
        """n points of p_t, data points by default, (n, ...)."""
        of_point, of_noise = jax.random.split(key)
        noise = jax.random.normal(of_noise, (n, *self.shape), dtype)
        i = jax.random.randint(of_point, (n,), 0, len(self.data))
        time = jnp.asarray(t, noise.dtype)
        x1 = jnp.asarray(self.data, noise.dtype)[i]
        return self.schedule.alpha(time) * x1 + self.schedule.sigma(time) * noise

    def _log_joint(
        self, x: Float[Array, "batch ..."], t: Float[Array, " batch"]
    ) -> tuple[Float[Array, "batch n"], Float[Array, "n ..."]]:
        """-|x - alpha x_i|^2 / (2 sigma^2) (batch, n), and the data in the dtype of x."""
        check_points(x, t, self.shape)
        data = jnp.asarray(self.data, x.dtype)
        t = clamp(jnp.asarray(t, x.dtype), 0.0, self._last)
        # From the differences: the expanded square would cancel where sigma is small.
        apart = x[:, None] - expand(self.schedule.alpha(t), x)[:, None] * data[None]
        square = jnp.sum(apart**2, axis=tuple(range(2, apart.ndim)))
        return -0.5 * square / self.schedule.sigma(t)[:, None] ** 2, data
