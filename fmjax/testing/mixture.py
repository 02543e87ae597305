"""The flow from a standard normal to a mixture of Gaussians, in closed form.

On the path x_t = alpha x1 + sigma x0 with x1 ~ N(m, S) and x0 standard normal, x_t is
N(alpha m, V) with V = alpha^2 S + sigma^2, and

    velocity = alpha' m + (alpha alpha' S + sigma sigma') V^-1 (x - alpha m),
    score    = -V^-1 (x - alpha m).

A mixture weights its components' velocities and scores by their posterior at (x, t). Everything is
finite at t = 0 and t = 1. What is given is kept in float64; results have the dtype of x, at least
float32.
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from fmjax.array_checks import check_points
from fmjax.conventions import Array, Labels, at_least_float32, expand
from fmjax.errors import InputError
from fmjax.schedules import Linear, Schedule


class _Components(NamedTuple):
    """K Gaussians, each along the axes of its covariance; float64 on the host.

    Against a batch they are arrays of jax with a leading axis of one.
    """

    log_weights: Float[Array | np.ndarray, "... components"]
    centers: Float[Array | np.ndarray, "..."]  # (K, ...)
    stds: Float[Array | np.ndarray, "..."]  # (K, ...), along the axes
    axes: Float[Array | np.ndarray, "... d d"] | None  # as columns; None: the coordinates' own


class _Local(NamedTuple):
    """The components as seen from (x, t): each (batch, K, ...)."""

    offset: Float[Array, "batch components ..."]  # x - alpha m, along the axes
    variance: Float[Array, "batch components ..."]  # alpha^2 S + sigma^2, along the axes
    log_joint: Float[Array, "batch components"]  # log weight + log density, (batch, K)


# Compared and hashed by identity, so that a flow, and its methods, can be static under jit.
@dataclass(frozen=True, eq=False)
class MixtureFlow:
    """The flow from a standard normal to a mixture of Gaussians; its components can be classes.

    With ``labels`` (batch,), component k belongs to class k, and an example sees the components of
    its class alone; a label that no component has, such as K, stands for none: it sees the whole
    mixture. So classifier-free guidance has a closed form too.

    Args:
        weights: (K,), positive; divided by their sum.
        centers: the means of the components (K, ...), for examples of any shape.
        spreads: standard deviations: one number, one per component (K,), or one per entry
            (K, ...); for vectors (K, d) also covariances (K, d, d).
        schedule: of the path.

    Raises:
        InputError: shapes that do not fit, weights or standard deviations that are not positive, or
            covariances that are not symmetric and positive definite.

    Example:
        >>> flow = MixtureFlow([0.5, 0.5], [[-1.0], [3.0]], 0.1)  # a component a class
        >>> x, t = jnp.zeros((3, 1)), jnp.zeros(3)
        >>> flow.velocity(x, t, labels=jnp.array([0, 1, 2])).round(2)  # class 2 is none
        Array([[-1.],
               [ 3.],
               [ 1.]], dtype=float32)
    """

    weights: Any
    centers: Any
    spreads: Any
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self):
        self._components  # noqa: B018  (wrong input is refused here)

    @functools.cached_property
    def _components(self) -> _Components:
        weights, centers = (np.asarray(x, np.float64) for x in (self.weights, self.centers))
        if weights.ndim != 1 or not np.all((weights > 0) & np.isfinite(weights)):
            raise InputError(f"weights must be positive numbers (K,); got {self.weights!r}.")
        if centers.shape[:1] != weights.shape:
            raise InputError(
                f"centers must have a leading axis of the {len(weights)} components; "
                f"got shape {centers.shape}."
            )
        stds, axes = _principal(np.asarray(self.spreads, np.float64), centers.shape)
        return _Components(np.log(weights / weights.sum()), centers, stds, axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self._components.centers.shape[1:]

    def velocity(
        self, x: Float[Array, " batch *shape"], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch *shape"]:
        """E[alpha' x1 + sigma' x0 | x_t = x], shaped as x.

        At t = 1 the schedule's own derivative is taken, which is bounded (see `fmjax.schedules`).

        Args:
            x: points (batch, ...).
            t: times (batch,).
            labels: classes (batch,), or None.
        """
        return self._average(x, t, labels, self._component_velocity)

    def score(
        self, x: Float[Array, " batch *shape"], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch *shape"]:
        """The gradient of `log_density` in x, shaped as x; arguments as in `velocity`."""
        return self._average(x, t, labels, lambda local, *_: -local.offset / local.variance)

    def log_density(
        self, x: Float[Array, "batch ..."], t: Float[Array, " batch"], labels: Labels = None
    ) -> Float[Array, " batch"]:
        """log p_t(x) in nats (batch,); arguments as in `velocity`."""
        log_joint = self.local(x, t, labels)[0].log_joint
        # Given a class, the weights of its components are divided by their sum.
        log_total = jax.nn.logsumexp(self._log_weights(log_joint.dtype, labels), axis=1)
        return jax.nn.logsumexp(log_joint, axis=1) - log_total

    def mean(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """The mean of x_t: alpha times that of the data; t of any shape, before the axes of x."""
        t = at_least_float32(t)
        mean = jnp.asarray(self._moments[0], t.dtype).reshape((1,) * t.ndim + self.shape)
        alpha = self.schedule.alpha(t)
        return alpha.reshape(t.shape + (1,) * len(self.shape)) * mean

    def cov(self, t: Float[Array, "*t"]) -> Float[Array, "*t d d"]:
        """The covariance of the flattened x_t, (d, d) after the axes of t."""
        of_data = self._moments[1]
        t = at_least_float32(t)
        alpha, sigma = (f(t)[..., None, None] for f in (self.schedule.alpha, self.schedule.sigma))
        axes = (1,) * t.ndim + of_data.shape
        parts = (of_data, np.eye(len(of_data)))
        cov, eye = (jnp.asarray(x, t.dtype).reshape(axes) for x in parts)
        return alpha**2 * cov + sigma**2 * eye

    def sample(
        self,
        key: PRNGKeyArray,
        n: int,
        t: float | Float[Array, ""] = 1.0,
        labels: Labels = None,
        dtype: Any = float,
    ) -> Float[Array, "{n} ..."]:
        """n points of p_t, of the data by default, (n, ...); of the classes ``labels`` (n,)."""
        c = self._components
        of_component, of_data, of_noise = jax.random.split(key, 3)
        z = jax.random.normal(of_data, (n, *self.shape), dtype)
        log_weights = self._log_weights(z.dtype, labels)
        log_weights = jnp.broadcast_to(log_weights, (n, log_weights.shape[1]))
        k = jax.random.categorical(of_component, log_weights, axis=1)
        moved = jnp.asarray(c.stds, z.dtype)[k] * z
        if c.axes is not None:
            moved = jnp.einsum("bde,be->bd", jnp.asarray(c.axes, z.dtype)[k], moved)
        x1 = jnp.asarray(c.centers, z.dtype)[k] + moved
        time = jnp.asarray(t, z.dtype)
        noise = jax.random.normal(of_noise, x1.shape, z.dtype)
        return self.schedule.alpha(time) * x1 + self.schedule.sigma(time) * noise

    def given(self, label: int) -> "MixtureFlow":
        """The flow to one class: the component of that number alone."""
        spreads = np.asarray(self.spreads)
        return MixtureFlow(
            [1.0],
            np.asarray(self.centers)[label][None],
            spreads if spreads.ndim == 0 else spreads[label][None],
            self.schedule,
        )

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean of the data, and the covariance of its flattened entries."""
        c = self._components
        weights, centers = np.exp(c.log_weights), c.centers.reshape(len(c.centers), -1)
        axes = np.eye(centers.shape[1])[None] if c.axes is None else c.axes
        scaled = axes * c.stds.reshape(len(centers), 1, -1)
        mean = weights @ centers
        apart = centers - mean
        cov = np.einsum("k,kde,kfe->df", weights, scaled, scaled)
        cov = cov + np.einsum("k,kd,kf->df", weights, apart, apart)
        return mean.reshape(self.shape), cov

    def _log_weights(self, dtype: Any, labels: Labels) -> Float[Array, "batch components"]:
        """Logarithms of the weights (batch, K), -inf for other classes; (1, K) without labels."""
        log_weights = jnp.asarray(self._components.log_weights, dtype)[None]
        if labels is None:
            return log_weights
        labels, k = jnp.asarray(labels)[:, None], jnp.arange(log_weights.shape[1])[None]
        of_none = (labels < 0) | (labels >= log_weights.shape[1])
        return jnp.where((labels == k) | of_none, log_weights, -jnp.inf)

    def local(
        self, x: Float[Array, "batch ..."], t: Float[Array, " batch"], labels: Labels
    ) -> tuple[_Local, _Components, Float[Array, "batch ..."]]:
        """What every closed form needs: the components from (x, t), in the dtype of x; and t."""
        x = at_least_float32(x)
        check_points(x, t, self.shape)
        c = jax.tree.map(lambda leaf: jnp.asarray(leaf, x.dtype)[None], self._components)
        t = expand(jnp.asarray(t, x.dtype), x)[:, None]
        offset = _turn(c.axes, x[:, None] - self.schedule.alpha(t) * c.centers)
        variance = (self.schedule.alpha(t) * c.stds) ** 2 + self.schedule.sigma(t) ** 2
        exponent = offset**2 / variance + jnp.log(2.0 * math.pi * variance)
        log_density = -0.5 * jnp.sum(exponent, axis=tuple(range(2, exponent.ndim)))
        log_joint = self._log_weights(log_density.dtype, labels) + log_density
        return _Local(offset, variance, log_joint), c, t

    def _component_velocity(
        self, local: _Local, c: _Components, t: Float[Array, "batch ..."]
    ) -> Float[Array, "batch components ..."]:
        """The velocity of each component about its mean, along its axes."""
        s = self.schedule
        half_slope = s.alpha(t) * s.d_alpha(t) * c.stds**2 + s.sigma(t) * s.d_sigma(t)
        # Turned with the rest, the centre is turned back to itself.
        return s.d_alpha(t) * _turn(c.axes, c.centers) + half_slope / local.variance * local.offset

    def _average(
        self,
        x: Float[Array, " batch *shape"],
        t: Float[Array, " batch"],
        labels: Labels,
        of_components: Any,
    ) -> Float[Array, " batch *shape"]:
        """The posterior mean over the components of a field given along their axes."""
        local, c, t = self.local(x, t, labels)
        values = turn_back(c.axes, of_components(local, c, t))
        return jnp.einsum("bk,bk...->b...", jax.nn.softmax(local.log_joint, axis=1), values)


def _principal(spreads: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Standard deviations shaped as the centers, along the axes that come with them."""
    components, example = shape[0], shape[1:]
    if len(example) == 1 and spreads.shape == (components, *example, *example):
        variances, axes = np.linalg.eigh(spreads)
        symmetric = np.allclose(spreads, np.swapaxes(spreads, 1, 2), rtol=1e-6)
        if not (symmetric and np.all(variances > 0)):
            raise InputError("a covariance must be symmetric and positive definite.")
        return np.sqrt(variances), axes
    if spreads.shape not in ((), (components,), shape):
        raise InputError(
            f"the spreads of centers {shape} are one number, ({components},), {shape}"
            f"{f', or covariances {(*shape, *example)}' if len(example) == 1 else ''}; "
            f"got shape {spreads.shape}."
        )
    if not np.all((spreads > 0) & np.isfinite(spreads)):
        raise InputError("standard deviations must be positive and finite.")
    missing = (1,) * (len(shape) - spreads.ndim)
    return np.broadcast_to(spreads.reshape(spreads.shape + missing), shape), None


def _turn(
    axes: Float[Array | np.ndarray, "one components d d"] | None,
    x: Float[Array | np.ndarray, "lead components *shape"],
) -> Float[Array, "lead components *shape"]:
    """x (batch, K, d) along the axes; axes has a leading axis of one."""
    return jnp.asarray(x) if axes is None else jnp.einsum("kde,bkd->bke", axes[0], x)


def turn_back(
    axes: Float[Array | np.ndarray, "one components d d"] | None,
    x: Float[Array, "batch components *shape"],
) -> Float[Array, "batch components *shape"]:
    """x (batch, K, d) from along the axes."""
    return x if axes is None else jnp.einsum("kde,bke->bkd", axes[0], x)
