"""ODE sampling through diffrax: dx/dt = velocity(x, t, labels) from t0 to t1.

diffrax is imported when a solver is first built, so that ``import fmjax`` stays quick.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.conventions import Labels, Velocity
from fmjax.errors import InputError
from fmjax.samplers.solution import (
    Solution,
    SolveError,
    batch_size_of,
    check_solution,
    checked_times,
    finished,
    is_finite,
)
from fmjax.samplers.spec import SOLVERS, SolverSpec, solver_spec
from fmjax.samplers.time_grids import time_grid

__all__ = [
    "SOLVERS",
    "Solution",
    "SolveError",
    "SolverSpec",
    "check_solution",
    "evaluation_times",
    "invert",
    "nodes",
    "solve",
    "solver_spec",
]


def solve(
    velocity: Velocity,
    x0: Any,
    labels: Labels = None,
    spec: SolverSpec | None = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    save_at: Sequence[float] | None = None,
) -> Solution:
    """Carries x0 along the flow from t0 to t1; t1 < t0 runs it backwards.

    Args:
        velocity: ``velocity(x, t, labels)``, t (batch,).
        x0: the state at t0, float32 or float64 (batch, ...), or a pytree of such arrays, which the
            velocity then takes and gives.
        labels: per-example conditions with a leading batch axis (a lone number is shared), or None.
        spec: how to solve, from `solver_spec`; 25 fixed Heun steps if None.
        t0: where to start.
        t1: where to end, another time than t0.
        save_at: times from t0 to t1 at which to keep the state. Between the steps it is what the
            solver interpolates; the steps of a fixed solve are at `nodes`.

    Returns:
        The state at t1 with the velocity evaluations made, the steps, and whether it succeeded.

    Raises:
        InputError: t0 equals t1, or one of them is not finite; x0 has no batch axis; the grid does
            not reach from t0 to t1; or save_at leaves [t0, t1] or turns back.
    """
    spec = solver_spec() if spec is None else spec
    if not (math.isfinite(t0) and math.isfinite(t1)) or t0 == t1:
        raise InputError(f"t0 and t1 must be two different finite times; got {t0} and {t1}.")
    batch = batch_size_of(x0)
    save_at = None if save_at is None else checked_times(save_at, t0, t1)
    if spec.control != "sample":
        x1, *counts, states = _solve_one(velocity, x0, labels, spec, t0, t1, save_at)
        nfe, success, accepted, rejected, t_end = (jnp.broadcast_to(c, (batch,)) for c in counts)
        return finished(Solution(x1, nfe, success, accepted, rejected, t_end, states))

    def one(x, label):
        add_axis = functools.partial(jax.tree.map, lambda leaf: leaf[None])
        x1, *counts, states = _solve_one(
            velocity, add_axis(x), add_axis(label), spec, t0, t1, save_at
        )
        return Solution(
            jax.tree.map(lambda leaf: leaf[0], x1),
            *counts,
            jax.tree.map(lambda leaf: leaf[:, 0], states),
        )

    def per_example(leaf):
        leaf = jnp.asarray(leaf)
        return jnp.broadcast_to(leaf, (batch,)) if leaf.ndim == 0 else leaf

    axes = Solution(0, 0, 0, 0, 0, 0, 1)
    return finished(jax.vmap(one, out_axes=axes)(x0, jax.tree.map(per_example, labels)))


def invert(
    velocity: Velocity, x1: Any, labels: Labels = None, spec: SolverSpec | None = None
) -> Solution:
    """The source points that the flow carries to x1: `solve` from t = 1 back to t = 0.

    The flow is a bijection, so that solving forwards again gives x1 back to within the error of the
    two solves. Arguments and errors as in `solve`; the source points are the solution's ``x1``.
    """
    return solve(velocity, x1, labels, spec, t0=1.0, t1=0.0)


def nodes(spec: SolverSpec, t0: float = 0.0, t1: float = 1.0) -> np.ndarray:
    """The steps + 1 times of a fixed solve, float64.

    Raises:
        InputError: the spec is adaptive, so that nobody knows yet; or its grid does not reach.
    """
    if spec.control != "fixed":
        raise InputError("adaptive steps are not known before the solve; give the times yourself.")
    return time_grid(spec.grid, spec.steps, t0, t1, spec.schedule)


def evaluation_times(spec: SolverSpec, t0: float = 0.0, t1: float = 1.0) -> np.ndarray:
    """When a fixed solve evaluates the velocity: as many times as its ``nfe``, float64.

    Raises:
        InputError: as in `nodes`.
    """
    from fmjax.samplers.diffrax_steps.multistep import diffrax_solver, stage_times

    solver = diffrax_solver(spec.solver, spec.schedule)
    return stage_times(spec.solver, solver, nodes(spec, t0, t1))


def _solve_one(velocity, x0, labels, spec, t0, t1, save_at):
    """One diffrax solve of the whole state.

    Returns x1, the evaluations, success, accepted and rejected steps and how far it came (scalars),
    and the trajectory.
    """
    import diffrax

    from fmjax.samplers.diffrax_steps.given_times import OnNodes
    from fmjax.samplers.diffrax_steps.multistep import diffrax_solver, evaluations

    leaf = jax.tree.leaves(x0)[0]
    batch, dtype = leaf.shape[:1], leaf.dtype

    def field(t, x, labels):
        return velocity(x, jnp.full(batch, t, dtype), labels)

    solver = diffrax_solver(spec.solver, spec.schedule)
    if spec.control == "fixed":
        times = jnp.asarray(nodes(spec, t0, t1), dtype)
        controller = OnNodes(times)
    else:
        # A velocity that is not finite has every step rejected; stop where t can no longer move.
        smallest = 4 * jnp.finfo(dtype).eps * max(abs(t0), abs(t1))
        controller = diffrax.PIDController(
            rtol=spec.rtol, atol=spec.atol, dtmin=smallest, force_dtmin=False
        )
    adjoint = (
        diffrax.DirectAdjoint()
        if spec.gradient == "direct"
        else diffrax.RecursiveCheckpointAdjoint(checkpoints=min(spec.checkpoints, spec.max_steps))
    )
    saves = [diffrax.SubSaveAt(t1=True)]
    if spec.control == "fixed":
        saves.append(diffrax.SubSaveAt(steps=True, fn=lambda t, x, labels: is_finite(x)))
    if save_at is not None:
        saves.append(diffrax.SubSaveAt(ts=jnp.asarray(save_at, dtype)))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        jnp.asarray(t0, dtype),
        jnp.asarray(t1, dtype),
        None,  # the controller chooses the first step
        x0,
        args=labels,
        stepsize_controller=controller,
        saveat=diffrax.SaveAt(subs=saves),
        adjoint=adjoint,
        max_steps=spec.max_steps,
        # The default raises from inside the program through a host callback, which cannot be
        # exported and synchronises; the caller reads `success` instead.
        throw=False,
    )
    stats, t_end = solution.stats, solution.ts[0][0]
    if spec.control == "fixed":  # the last node at which the state was finite, per example
        t_end = times[jnp.sum(jnp.cumprod(solution.ys[1], axis=0), axis=0)]
    return (
        jax.tree.map(lambda leaf: leaf[0], solution.ys[0]),
        evaluations(spec.solver, solver, stats["num_steps"]),
        solution.result == diffrax.RESULTS.successful,
        stats["num_accepted_steps"].astype(jnp.int32),
        stats["num_rejected_steps"].astype(jnp.int32),
        t_end,
        None if save_at is None else solution.ys[-1],
    )
