"""One solve with noise through diffrax, on a grid of times.

`fmjax.samplers.diffrax_steps.stochastic` says what a step of each method does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from fmjax.array_checks import check_returned
from fmjax.conventions import TimeFunction
from fmjax.paths import sde_drifts
from fmjax.predictions import convert
from fmjax.samplers.diffusion_coefficients import diffusion_coefficient
from fmjax.samplers.solution import Solution, is_finite
from fmjax.schedules import clamp

SCORE_MARGIN = 1e-3
"""Where there is noise, velocity and score are read no nearer to an end where the score is not."""


def integrate(spec, velocity, x0, keys, labels, score, times, save_at) -> Solution:
    """One diffrax solve on the grid `times`, as a `fmjax.samplers.sde_solver.SDESolver` says.

    The arguments are checked, the labels have a leading batch axis, and every time of `save_at` is
    one of the grid.
    """
    import diffrax

    from fmjax.samplers.diffrax_steps.by_name import diffrax_solver, evaluations
    from fmjax.samplers.diffrax_steps.given_times import OnNodes
    from fmjax.samplers.diffrax_steps.on_manifold import field_on
    from fmjax.samplers.diffrax_steps.stochastic import NoisySolver, StepArgs

    g = diffusion_coefficient(spec.diffusion, spec.scale, spec.path)
    manifold, field = spec.ode.manifold, _field(velocity, spec, score, g)
    kept: dict[str, Any] = {}
    if manifold is not None:
        field = field_on(manifold, field)
        kept["fn"] = lambda t, x, args: manifold.project(x)
    base = diffrax_solver(spec.ode.solver, spec.ode.schedule, manifold)
    steps, times = len(times) - 1, jnp.asarray(times, x0.dtype)
    schedule = getattr(spec.path, "schedule", None)
    last = steps - 1 if spec.denoise_last else -1
    saves = [
        diffrax.SubSaveAt(t1=True, **kept),
        diffrax.SubSaveAt(steps=True, fn=lambda t, x, args: is_finite(x)),
    ]
    if save_at is not None:
        saves.append(diffrax.SubSaveAt(ts=jnp.asarray(save_at, x0.dtype), **kept))
    data, zero = jax.random.key_data(keys), jnp.zeros((), x0.dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        NoisySolver(base, spec.kind, g, schedule, last, jax.random.key_impl(keys), manifold),
        times[0],
        times[-1],
        None,  # the controller chooses the first step
        x0,
        args=StepArgs(labels, data, zero, jnp.zeros_like(x0)),
        stepsize_controller=OnNodes(times),
        saveat=diffrax.SaveAt(subs=saves),
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=min(steps, spec.ode.checkpoints)),
        max_steps=steps,
        throw=False,  # see fmjax.samplers.ode_integration
    )
    nfe = evaluations(spec.ode.solver, base, solution.stats["num_steps"]) * (
        1 + (score is not None)
    )
    nfe, success, accepted, rejected = (
        jnp.broadcast_to(count, x0.shape[:1])
        for count in (nfe, solution.result == diffrax.RESULTS.successful, steps, 0)
    )
    finite = jnp.sum(jnp.cumprod(solution.ys[1], axis=0), axis=0)
    trajectory = None if save_at is None else solution.ys[2]
    return Solution(solution.ys[0][0], nfe, success, accepted, rejected, times[finite], trajectory)


def _field(velocity, spec, score, g: TimeFunction) -> Callable:
    """The right-hand side, as diffrax calls it."""
    schedule: Any = getattr(spec.path, "schedule", None)  # without one there is a score
    low, high = (SCORE_MARGIN if schedule is None else 0.0), 1.0 - SCORE_MARGIN

    def of_state(name, function, x, t, labels):
        u = function(x, t, labels)
        check_returned(name, u, "x", x)
        return u.astype(x.dtype)

    def field(t, x, args):
        if spec.kind != "drift":
            t = jnp.full(x.shape[:1], t, x.dtype)
            return of_state("the velocity", velocity, x, t, args.labels)
        here = args.on * g(t)
        t = jnp.full(x.shape[:1], jnp.where(here > 0, clamp(t, low, high), t), x.dtype)
        u = of_state("the velocity", velocity, x, t, args.labels)
        if score is None:
            s = convert(u, x, t, schedule, source="velocity", target="score")
        else:
            s = of_state("the score", score, x, t, args.labels)
        # Where there is no noise the score may be infinite.
        s = jnp.where(here > 0, s, jnp.zeros_like(s))
        return sde_drifts(u, s, here).forward + here * args.force

    return field


def with_nodes(
    times: Float64[np.ndarray, " nodes"], save_at: Float64[np.ndarray, " times"]
) -> tuple[Float64[np.ndarray, " more"], Float64[np.ndarray, " times"]]:
    """The grid with the times to save among its nodes, and those times as they are there."""
    nearest = times[np.abs(times[:, None] - save_at[None]).argmin(axis=0)]
    # A step of a rounding error would divide by it.
    same = np.abs(nearest - save_at) < 1e-5 * (times[-1] - times[0])
    save_at = np.where(same, nearest, save_at)
    return np.union1d(times, save_at), save_at
