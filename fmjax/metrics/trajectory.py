"""How straight the trajectories of a flow are, and what their motion costs.

Along Euler steps x_{k+1} = x_k + h v_k, with v_k = v(x_k, k h) and h = 1 / K, for each example

    energy        mean over k of |v_k|^2,                  for  int_0^1 |v|^2 dt               (1)
    straightness  mean over k of |v_k - (x_K - x_0)|^2,    for  int_0^1 |v - (x_1 - x_0)|^2 dt  (2)
    curvature     mean over k of |(v_{k+1} - v_k) / h|^2,  for  int_0^1 |dv/dt|^2 dt           (3)

with |.| the Euclidean norm over all features, summed and not averaged. On the polygon of the steps
(1) and (2) are exact, and energy = straightness + |x_K - x_0|^2. As values of the flow all three
have an error of order h. Straight lines at constant speed have straightness 0 and curvature 0.

These functions are jax: they compile, and nothing is read back to the host.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Real

from fmjax.array_checks import as_floats, check_returned
from fmjax.checks import check_at_least, check_methods, check_positive
from fmjax.conventions import Array, Labels, Velocity


class PathStatistics(NamedTuple):
    """What one Euler solve tells; means over the batch estimate the expectations without bias.

    Attributes:
        x1: the end points, shaped as x0.
        one_step: x0 + v(x0, 0), where a single Euler step ends, shaped as x0.
        energy: (1), in the unit of x squared, (batch,).
        straightness: (2), in the unit of x squared, (batch,); 0 where one step is exact.
        curvature: (3), in the unit of x squared, (batch,); 0 for constant velocity.
    """

    x1: Float[Array, "batch ..."]
    one_step: Float[Array, "batch ..."]
    energy: Float[Array, " batch"]
    straightness: Float[Array, " batch"]
    curvature: Float[Array, " batch"]


class _Carry(NamedTuple):
    x: Float[Array, "batch ..."]
    one_step: Float[Array, "batch ..."]
    last: Float[Array, "batch ..."]  # v_{k-1}
    mean: Float[Array, "batch ..."]  # of v_0, ..., v_{k-1}
    energy: Float[Array, " batch"]  # sums over the steps so far, (batch,), like the two below
    deviation: Float[Array, " batch"]
    turning: Float[Array, " batch"]


def path_statistics(
    velocity: Velocity, x0: Real[Array, "batch ..."], labels: Labels = None, steps: int = 100
) -> PathStatistics:
    """Energy, straightness, curvature and both ends of trajectories, in one solve.

    Sources: path energy as in Tong et al., arXiv:2302.00482; straightness S(Z) of Liu et al.,
    arXiv:2209.03003 (some call it curvature). The deviation (2) is summed about the running mean,
    so that nothing cancels when trajectories are nearly straight.

    Args:
        velocity: ``velocity(x, t, labels)``, t (batch,); evaluated ``steps`` times, on t < 1.
        x0: where to start (batch, ...).
        labels: per-example conditions with a leading batch axis, or None.
        steps: K, the number of Euler steps, at least 2.

    Returns:
        The statistics, in float32 or wider.

    Raises:
        InputError: steps is not a whole number of at least 2, or the velocity has another shape
            than x0.
    """
    check_at_least("steps", steps, 2)
    check_methods("the velocity", velocity, such_as="lambda x, t, labels: ...")
    x0 = as_floats("x0", x0)

    def step(carry, k):
        t = jnp.full(x0.shape[:1], k.astype(x0.dtype) / steps)
        v = velocity(carry.x, t, labels)
        check_returned("the velocity", v, "x", x0)
        v = v.astype(x0.dtype)
        mean = carry.mean + (v - carry.mean) / (k + 1)
        turn = jnp.where(k > 0, _square((v - carry.last) * steps), 0)
        return _Carry(
            x=carry.x + v / steps,
            one_step=jnp.where(k > 0, carry.one_step, x0 + v),
            last=v,
            mean=mean,
            energy=carry.energy + _square(v),
            # Welford's update: (v - old mean)(v - new mean), a sum of squares about the mean.
            deviation=carry.deviation + _inner(v - carry.mean, v - mean),
            turning=carry.turning + turn,
        ), None

    zeros, zero = jnp.zeros_like(x0), jnp.zeros(x0.shape[:1], x0.dtype)
    start = _Carry(x0, x0, zeros, zeros, zero, zero, zero)
    end, _ = jax.lax.scan(step, start, jnp.arange(steps))
    return PathStatistics(
        x1=end.x,
        one_step=end.one_step,
        energy=end.energy / steps,
        straightness=end.deviation / steps,
        curvature=end.turning / (steps - 1),
    )


def path_energy(
    velocity: Velocity, x0: Real[Array, "batch ..."], labels: Labels = None, steps: int = 100
) -> Float[Array, ""]:
    """The mean of (1) over the batch, a scalar; arguments and errors as in `path_statistics`."""
    return jnp.mean(path_statistics(velocity, x0, labels, steps).energy)


def straightness(
    velocity: Velocity, x0: Real[Array, "batch ..."], labels: Labels = None, steps: int = 100
) -> Float[Array, ""]:
    """The mean of (2) over the batch, a scalar; arguments and errors as in `path_statistics`."""
    return jnp.mean(path_statistics(velocity, x0, labels, steps).straightness)


def curvature(
    velocity: Velocity, x0: Real[Array, "batch ..."], labels: Labels = None, steps: int = 100
) -> Float[Array, ""]:
    """The mean of (3) over the batch, a scalar; arguments and errors as in `path_statistics`."""
    return jnp.mean(path_statistics(velocity, x0, labels, steps).curvature)


def normalized_path_energy(energy: float | Float[Array, ""], w2_squared: float) -> float:
    """|PE - W_2^2| / W_2^2: how far the motion is from optimal transport.

    For the exact flow PE >= W_2^2 between its ends, with equality for optimal transport. Source:
    Tong et al., arXiv:2302.00482.

    Args:
        energy: the mean path energy PE, as `path_energy` gives it.
        w2_squared: W_2^2 between source and data, e.g. ``wasserstein(x0, x1) ** 2``.

    Returns:
        The ratio, without unit; 0 at best.

    Raises:
        InputError: w2_squared is not positive.
    """
    energy, w2_squared = float(energy), float(w2_squared)
    check_positive("w2_squared", w2_squared)
    return abs(energy - w2_squared) / w2_squared


def _inner(
    a: Float[Array, " batch *shape"], b: Float[Array, " batch *shape"]
) -> Float[Array, " batch"]:
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)))


def _square(a: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    return _inner(a, a)
