"""Checks of a flow of your own: each returns the figure it measured, and raises if it is large.

Every function of a flow takes ``(x, t, labels)``, x (batch, ...) and t (batch,), and gives a row
for each example that depends on that example alone; ``labels`` is handed on as it is. A check
compiles the functions it is given, so they must be functions that jax can trace.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from fmjax.array_checks import check_per_example, check_returned
from fmjax.conventions import ApplyFn, Array, Labels, Params, Velocity
from fmjax.errors import InputError
from fmjax.predictions import convert
from fmjax.schedules import Linear, Schedule

LogDensity = Callable[
    [Float[Array, "batch ..."], Float[Array, " batch"], Labels], Float[Array, " batch"]
]
"""``log_density(x, t, labels)``, in nats (batch,)."""


def check_density_integrates_to_one(
    log_density: Callable[[Float[Array, "batch ..."]], Float[Array, " batch"]],
    low: float | Sequence[float],
    high: float | Sequence[float],
    points: int | None = None,
    tolerance: float = 1e-3,
    batch: int = 65536,
) -> float:
    """Checks that a density in one or two dimensions integrates to 1, by the midpoint rule.

    For a smooth density that is next to nothing at the borders the error of the rule falls faster
    than any power of the spacing.

    Args:
        log_density: from points to nats (batch,). Points are (batch,) where low and high are
            numbers, (batch, 1) or (batch, 2) where they are sequences.
        low: the lower border, or borders.
        high: the upper border, or borders, above low.
        points: along each axis; 4096 in one dimension and 256 in two if None.
        tolerance: how far from 1 the integral may be.
        batch: points in one call.

    Returns:
        The integral.

    Raises:
        AssertionError: the integral is further from 1, or not a number; the message has it.
        InputError: the borders are not those of an interval or a rectangle.

    Example:
        >>> flow = GaussianFlow(jnp.zeros(1))
        >>> log_density = lambda x: flow.log_density(x, jnp.ones(len(x)))
        >>> round(check_density_integrates_to_one(log_density, [-8.0], [8.0]), 3)
        1.0
    """
    borders = np.atleast_2d(np.stack([np.asarray(low, float), np.asarray(high, float)], axis=-1))
    scalar = np.ndim(low) == 0
    if borders.shape not in ((1, 2), (2, 2)) or not np.all(borders[:, 0] < borders[:, 1]):
        raise InputError(f"low and high must border 1 or 2 dimensions; got {low} and {high}.")
    points = (4096 if len(borders) == 1 else 256) if points is None else points
    axes = [a + (b - a) * (np.arange(points) + 0.5) / points for a, b in borders]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(borders))
    x = x[:, 0] if scalar else x

    @jax.jit
    def evaluate(x):
        return _one_per_example(log_density(x), x)

    logs = [np.asarray(evaluate(jnp.asarray(x[i : i + batch]))) for i in range(0, len(x), batch)]
    cell = np.prod((borders[:, 1] - borders[:, 0]) / points)
    integral = float(np.exp(np.concatenate(logs).astype(np.float64)).sum() * cell)
    if not abs(integral - 1.0) <= tolerance:
        raise AssertionError(
            f"the density integrates to {integral:.6g} between {low} and {high}, not to 1 within "
            f"{tolerance:g}. If the borders cut it off, move them."
        )
    return integral


def check_score_matches_density(
    score: Velocity,
    log_density: LogDensity,
    x: Float[Array, "batch ..."],
    t: Float[Array, " batch"],
    labels: Labels = None,
    tolerance: float = 1e-3,
) -> float:
    """Checks that the score is the gradient of the log-density in x.

    Args:
        score: ``score(x, t, labels)``, shaped as x.
        log_density: ``log_density(x, t, labels)``, differentiable in x.
        x: points (batch, ...).
        t: times (batch,).
        labels: for both functions.
        tolerance: of the root mean square difference, relative to that of the gradient.

    Returns:
        The relative difference.

    Raises:
        AssertionError: the difference is larger than the tolerance, or not a number.

    Example:
        >>> flow, x, t = GaussianFlow(jnp.zeros(2)), jnp.ones((4, 2)), jnp.full(4, 0.5)
        >>> check_score_matches_density(flow.score, flow.log_density, x, t) < 1e-3
        True
    """

    def both(x, t, labels):
        gradient = jax.grad(lambda x: jnp.sum(_one_per_example(log_density(x, t, labels), x)))(x)
        return _as_x("the score", score(x, t, labels), x), gradient

    found, gradient = jax.jit(both)(x, t, labels)
    return _close("the score", found, "grad log p", gradient, tolerance)


def check_velocity_matches_score(
    velocity: Velocity,
    score: Velocity,
    x: Float[Array, "batch ..."],
    t: Float[Array, " batch"],
    schedule: Schedule | None = None,
    labels: Labels = None,
    tolerance: float = 1e-3,
) -> float:
    """Checks that velocity and score are those of one flow from a standard normal.

    On an affine path either says what the other is (`fmjax.predictions.convert`).

    Args:
        velocity: ``velocity(x, t, labels)``, shaped as x.
        score: ``score(x, t, labels)``, shaped as x.
        x: points (batch, ...).
        t: times (batch,), not too near to the ends, where the conversion is singular.
        schedule: of the path; None is the straight one.
        labels: for both functions.
        tolerance: of the root mean square difference, relative to that of the score.

    Returns:
        The relative difference.

    Raises:
        AssertionError: the difference is larger than the tolerance, or not a number.

    Example:
        >>> flow, x, t = GaussianFlow(jnp.ones(2)), jnp.zeros((4, 2)), jnp.full(4, 0.5)
        >>> check_velocity_matches_score(flow.velocity, flow.score, x, t) < 1e-3
        True
    """
    schedule = Linear() if schedule is None else schedule

    def both(x, t, labels):
        u = _as_x("the velocity", velocity(x, t, labels), x)
        implied = convert(u, x, t, schedule, source="velocity", target="score")
        return implied, _as_x("the score", score(x, t, labels), x)

    implied, given = jax.jit(both)(x, t, labels)
    return _close("the velocity's score", implied, "the score", given, tolerance)


def check_continuity(
    velocity: Velocity,
    log_density: LogDensity,
    x: Float[Array, "batch ..."],
    t: Float[Array, " batch"],
    labels: Labels = None,
    tolerance: float = 1e-3,
) -> float:
    """Checks that the velocity carries the density, by the continuity equation.

    d/dt log p + div u + u . grad log p = 0, which holds for every path and source. The divergence
    is exact, and takes one derivative for each entry of x.

    Args:
        velocity: ``velocity(x, t, labels)``, differentiable in x.
        log_density: ``log_density(x, t, labels)``, differentiable in x and t.
        x: points (batch, ...).
        t: times (batch,).
        labels: for both functions.
        tolerance: of the root mean square of the left side, relative to that of its terms.

    Returns:
        The relative root mean square of the left side.

    Raises:
        AssertionError: it is larger than the tolerance, or not a number.

    Example:
        >>> flow, x, t = GaussianFlow(jnp.ones(2)), jnp.zeros((4, 2)), jnp.full(4, 0.5)
        >>> check_continuity(flow.velocity, flow.log_density, x, t) < 1e-3
        True
    """

    def terms(x, t, label):
        def one(f, x, t):
            return f(x[None], t[None], jax.tree.map(lambda leaf: leaf[None], label))[0]

        def moved(x, t, label):
            return _as_x("the velocity", velocity(x, t, label), x)

        def density(x, t, label):
            return _one_per_example(log_density(x, t, label), x)

        u = one(moved, x, t)
        jacobian = jax.jacfwd(lambda x: one(moved, x, t))(x)
        by_x, by_t = jax.grad(lambda *at: one(density, *at), (0, 1))(x, t)
        return by_t, jnp.trace(jacobian.reshape(x.size, x.size)), jnp.sum(u * by_x)

    by_t, divergence, along = jax.jit(jax.vmap(terms))(x, t, labels)
    return _close("d/dt log p", by_t, "-(div u + u . grad log p)", -(divergence + along), tolerance)


def check_recovers(
    apply_fn: ApplyFn,
    params: Params,
    flow: Any,
    key: PRNGKeyArray,
    *,
    labels: Labels = None,
    n: int = 1024,
    low: float = 0.0,
    high: float = 1.0,
    tolerance: float = 0.1,
) -> float:
    """Checks that a network has learned the velocity of a flow.

    The figure is E |v(x_t, t) - u_t(x_t)|^2 / E |u_t(x_t)|^2 over the points that the flow visits,
    t uniform between low and high: 0 for the field itself, 1 for a network that says 0.

    Args:
        apply_fn: ``apply_fn(params, x, t, labels) -> velocity``.
        params: of the network; None for a function that needs none.
        flow: one of this package: it has ``sample(key, n, t)`` and ``velocity(x, t, labels)``.
        key: for the times and points.
        labels: of the points (n,), for a `MixtureFlow`.
        n: number of points.
        low: the first time.
        high: the last time.
        tolerance: the largest figure that passes.

    Returns:
        The figure.

    Raises:
        AssertionError: the figure is larger than the tolerance, or not a number.

    Example:
        >>> flow = GaussianFlow(jnp.ones(2))
        >>> network = lambda params, x, t, labels: flow.velocity(x, t) + params
        >>> check_recovers(network, 0.01, flow, jax.random.key(0)) < 0.01
        True
    """
    of_times, of_points = jax.random.split(key)
    t = jax.random.uniform(of_times, (n,), minval=low, maxval=high)

    def point(key, t, label):
        given = {} if label is None else {"labels": jax.tree.map(lambda leaf: leaf[None], label)}
        return flow.sample(key, 1, t, **given)[0]

    @jax.jit
    def squares(params, labels):
        x = jax.vmap(point)(jax.random.split(of_points, n), t, labels)
        wanted = flow.velocity(x, t, labels)
        error = _as_x("apply_fn", apply_fn(params, x, t, labels), x) - wanted
        return jnp.mean(error**2), jnp.mean(wanted**2)

    error, size = squares(params, labels)
    figure = float(error) / float(size)
    if not figure <= tolerance:
        raise AssertionError(
            f"the relative mean square error of the velocity is {figure:.4g} over {n} points, more "
            f"than {tolerance:g}."
        )
    return figure


def _as_x(
    name: str, u: Float[Array, "*shape"], x: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    check_returned(name, u, "x", x)
    return u


def _one_per_example(
    log_p: Float[Array, " batch"], x: Float[Array, "batch ..."]
) -> Float[Array, " batch"]:
    check_per_example("log_density", log_p, len(x))
    return log_p


def _close(
    what: str,
    found: Float[Array, "*shape"],
    other: str,
    wanted: Float[Array, "*shape"],
    tolerance: float,
) -> float:
    """The relative root mean square difference, if it is within the tolerance."""
    here, there = np.asarray(found), np.asarray(wanted)
    scale = np.sqrt(np.mean(there**2))
    figure = float(np.sqrt(np.mean((here - there) ** 2)) / (scale if scale > 0 else 1.0))
    if not figure <= tolerance:
        rows = np.abs(found - wanted).reshape(len(wanted), -1).max(axis=1)
        raise AssertionError(
            f"{what} and {other} differ by {figure:.4g} of their size, more than {tolerance:g}; "
            f"most in example {np.argmax(rows)}, by {np.max(rows):.4g}."
        )
    return figure
