"""Inverse problems: the source point whose sample fits an observation, by gradients."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from fmjax.array_checks import as_floats, check_per_example
from fmjax.checks import check_at_least, check_between, check_methods
from fmjax.conventions import Array, Labels, Velocity
from fmjax.samplers.base import Solver
from fmjax.samplers.ode import solve
from fmjax.samplers.ode_solver import solver_spec


class SourceFit(NamedTuple):
    """What `fit_source` found.

    Attributes:
        x0: the source points (batch, ...).
        x1: the samples that they flow to, of the last step (batch, ...).
        costs: the cost of each example before each step (iterations, batch).
    """

    x0: Float[Array, " batch *shape"]
    x1: Float[Array, " batch *shape"]
    costs: Float[Array, "iterations batch"]


def fit_source(
    velocity: Velocity,
    x0: Float[Array, " batch *shape"],
    cost: Callable[[Float[Array, "batch ..."]], Float[Array, " batch"]],
    labels: Labels = None,
    spec: Solver | None = None,
    *,
    iterations: int = 100,
    optimizer: optax.GradientTransformation | None = None,
    prior: float = 0.0,
) -> SourceFit:
    """Moves source points until their samples have a low cost.

    Minimises over x0, by gradients through the solve,

        cost(x1(x0)) + prior (|x0|^2 / 2 - (d - 1) log |x0|)

    The sample stays one of the flow, whatever the cost asks: for inpainting the cost is the error
    in the pixels that are known, for a linear measurement |A x1 - y|^2. The second term, the
    negative log-density of the length of d normal numbers, keeps x0 where noise lies. Source:
    Ben-Hamu et al., arXiv:2402.14017 (D-Flow).

    Args:
        velocity: ``velocity(x, t, labels)``; guided or not.
        x0: where to begin (batch, ...), standard normal.
        cost: from samples x1 (batch, ...) to one number each, (batch,).
        labels: as in `fmjax.samplers.ode.solve`.
        spec: how to solve; 6 fixed midpoint steps if None, for the gradient costs several solves.
        iterations: gradient steps, at least 1.
        optimizer: acts on each number of x0 by itself, as Adam does; Adam with 0.1 if None.
        prior: the weight of the second term, not negative.

    Returns:
        The source points, their samples, and the costs on the way.

    Raises:
        InputError: iterations is below 1, the prior is negative, or the cost is not one number
            per example.
    """
    x0 = as_floats("x0", x0)
    check_at_least("iterations", iterations)
    check_methods("the cost", cost, such_as="lambda x1: jnp.sum(x1**2, axis=1)")
    check_between("the prior", prior, 0, math.inf, "[)")
    spec = solver_spec("midpoint", 6) if spec is None else spec
    optimizer = optax.adam(0.1) if optimizer is None else optimizer

    def one_cost_each(x1):
        costs = cost(x1)
        check_per_example("the cost", costs, len(x1))
        return costs

    jax.eval_shape(one_cost_each, x0)

    def total(x0):
        x1 = solve(velocity, x0, labels, spec).x1
        costs = one_cost_each(x1)
        return jnp.sum(costs) + prior * jnp.sum(_energy(x0)), costs

    def step(carry, _):
        x0, state = carry
        grads, costs = jax.grad(total, has_aux=True)(x0)
        updates, state = optimizer.update(grads, state, x0)
        return (optax.apply_updates(x0, updates), state), costs

    start = (x0, optimizer.init(x0))
    (x0, _), costs = jax.lax.scan(step, start, length=iterations)
    return SourceFit(x0, solve(velocity, x0, labels, spec).x1, costs)


def _energy(x0: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """The negative log-density of |x0|, up to a constant, (batch,)."""
    square = jnp.sum(jnp.square(x0).reshape(len(x0), -1), axis=1)
    return 0.5 * square - 0.5 * (x0[0].size - 1) * jnp.log(square)
