"""One solve of the ODE through diffrax, for the whole batch or for each example alone.

diffrax is imported when a solver is first built, so that ``import fmjax`` stays quick.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from fmjax.array_checks import check_returned
from fmjax.samplers.solution import Solution, batch_size_of, is_finite


def integrate(spec, velocity, x0, labels, t0, t1, save_at) -> Solution:
    """Carries x0 from t0 to t1 as a `fmjax.samplers.ode_solver.ODESolver` says.

    The arguments are checked, and the labels have a leading batch axis.
    """
    batch = batch_size_of(x0)
    if spec.control != "sample":
        x1, *counts, states = _solve_one(velocity, x0, labels, spec, t0, t1, save_at)
        nfe, success, accepted, rejected, t_end = (jnp.broadcast_to(c, (batch,)) for c in counts)
        return Solution(x1, nfe, success, accepted, rejected, t_end, states)

    def one(x, label):
        add_axis = functools.partial(jax.tree.map, lambda leaf: leaf[None])
        x1, nfe, success, accepted, rejected, t_end, states = _solve_one(
            velocity, add_axis(x), add_axis(label), spec, t0, t1, save_at
        )
        x1 = jax.tree.map(lambda leaf: leaf[0], x1)
        states = jax.tree.map(lambda leaf: leaf[:, 0], states)
        return Solution(x1, nfe, success, accepted, rejected, t_end, states)

    return jax.vmap(one, out_axes=Solution._make((0, 0, 0, 0, 0, 0, 1)))(x0, labels)


def _solve_one(velocity, x0, labels, spec, t0, t1, save_at):
    """One diffrax solve of the whole state.

    Returns x1, the evaluations, success, accepted and rejected steps and how far it came (scalars),
    and the trajectory.
    """
    import diffrax

    from fmjax.samplers.diffrax_steps.by_name import diffrax_solver, evaluations
    from fmjax.samplers.diffrax_steps.given_times import OnNodes
    from fmjax.samplers.diffrax_steps.on_manifold import field_on

    leaf = jax.tree.leaves(x0)[0]
    batch, dtype = leaf.shape[:1], leaf.dtype

    def field(t, x, labels):
        u = velocity(x, jnp.full(batch, t, dtype), labels)
        check_returned("the velocity", u, "x", x)
        return jax.tree.map(lambda u, x: u.astype(x.dtype), u, x)

    manifold = spec.curved
    kept: dict[str, Any] = {}
    if manifold is not None:
        field = field_on(manifold, field)
        kept["fn"] = lambda t, x, labels: manifold.project(x)
    solver = diffrax_solver(spec.solver, spec.schedule, manifold)
    if spec.control == "fixed":
        times = jnp.asarray(spec.nodes(t0, t1), dtype)
        controller: diffrax.AbstractStepSizeController = OnNodes(times)
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
    saves = [diffrax.SubSaveAt(t1=True, **kept)]
    if spec.control == "fixed":
        saves.append(diffrax.SubSaveAt(steps=True, fn=lambda t, x, labels: is_finite(x)))
    if save_at is not None:
        saves.append(diffrax.SubSaveAt(ts=jnp.asarray(save_at, dtype), **kept))
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
