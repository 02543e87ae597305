"""SDE sampling through diffrax, with the marginals of the flow for any diffusion coefficient g.

    dx = (u + g^2 / 2 score) dt + g dW

has at every t the density p_t of dx = u dt. `fmjax.samplers.diffusion_coefficients` lists the
choices of g, and `fmjax.samplers.diffrax_steps.stochastic` says what a step of each method does.
Noise corrects the errors of earlier steps, at the price of more steps. Sources: Song et al.,
arXiv:2011.13456; for flows Ma et al., arXiv:2401.08740.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.conventions import Array, Labels, Velocity
from fmjax.errors import InputError
from fmjax.paths import sde_drifts
from fmjax.predictions import convert
from fmjax.samplers.diffusion_coefficients import diffusion_coefficient
from fmjax.samplers.ode import nodes
from fmjax.samplers.sde_spec import METHODS, SDESpec, sde_spec
from fmjax.samplers.solution import Solution, batch_size_of, checked_times, finished, is_finite
from fmjax.schedules import clamp

__all__ = ["METHODS", "SDESpec", "sde_spec", "solve_sde"]

SCORE_MARGIN = 1e-3
"""Where there is noise, velocity and score are read no nearer to an end where the score is not."""


def solve_sde(
    velocity: Velocity,
    x0: Array,
    keys: Array,
    labels: Labels = None,
    spec: SDESpec | None = None,
    *,
    score: Velocity | None = None,
    t0: float = 0.0,
    t1: float = 1.0,
    save_at: Sequence[float] | None = None,
) -> Solution:
    """Carries x0 from t0 up to t1 with noise, through the marginals of the flow.

    An example depends on its own key, not on its neighbours. A guided velocity is taken as it is;
    the score that follows from it is guided too.

    Args:
        velocity: ``velocity(x, t, labels)``, t (batch,).
        x0: the state at t0 (batch, ...), float32 or float64.
        keys: one random key per example (batch,).
        labels: per-example conditions with a leading batch axis, or None.
        spec: how to sample, from `sde_spec`; 25 stochastic Heun steps if None.
        score: ``score(x, t, labels)``, grad log p_t; if None it follows from the velocity. Paths
            that are stochastic themselves need it (`fmjax.losses.make_flow_and_score_loss_fn`).
        t0: where to start.
        t1: where to end, after t0.
        save_at: times at which to keep the state; each becomes a node of the grid, so that there
            is a step to it. Under ``denoise_last`` the noise stays in these states.

    Returns:
        The state at t1. ``nfe`` counts the evaluations of the velocity, and as many again of a
        score of its own.

    Raises:
        InputError: t1 is not after t0; the keys are not one per example; the spec is not of an SDE;
            the path is stochastic and there is no score; a score comes with a method that does not
            use one; or as in `fmjax.samplers.ode.solve`.
    """
    spec = sde_spec() if spec is None else spec
    _check_solve(x0, keys, spec, score, t0, t1)
    times = nodes(spec.ode, t0, t1)
    if save_at is not None:
        times, save_at = _with_nodes(times, checked_times(save_at, t0, t1))
    solution = _solve(velocity, x0, keys, labels, spec, score, times, save_at)
    return finished(solution)


def _check_solve(x0, keys, spec, score, t0, t1) -> None:
    if not isinstance(spec, SDESpec):
        raise InputError(f"an SDE takes a spec from sde_spec, with fixed steps; got {spec!r}.")
    if not (math.isfinite(t0) and math.isfinite(t1)) or t1 <= t0:
        raise InputError(
            f"an SDE runs from t0 up to a later t1; got t0={t0} and t1={t1}. "
            "The ODE runs backwards: fmjax.solve."
        )
    batch = batch_size_of(x0)
    typed = jnp.issubdtype(jnp.asarray(keys).dtype, jax.dtypes.prng_key)
    if not typed or keys.shape != (batch,):
        raise InputError(
            f"keys must be one random key per example, ({batch},); got shape {jnp.shape(keys)} of "
            f"{keys.dtype}. Write jax.random.split(jax.random.key(seed), {batch})."
        )
    if spec.path.stochastic and score is None:
        raise InputError(
            f"on a {type(spec.path).__name__} the score does not follow from the velocity; give "
            "score=, a function (x, t, labels), or sample with the ODE."
        )
    if score is not None and METHODS[spec.method] != "drift":
        raise InputError(f"{spec.method} uses no score; leave it out, or take stochastic_heun.")


def _with_nodes(times: np.ndarray, save_at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grid with the times to save among its nodes, and those times as they are there."""
    nearest = times[np.abs(times[:, None] - save_at[None]).argmin(axis=0)]
    # A step of a rounding error would divide by it.
    same = np.abs(nearest - save_at) < 1e-5 * (times[-1] - times[0])
    save_at = np.where(same, nearest, save_at)
    return np.union1d(times, save_at), save_at


def _field(velocity, spec: SDESpec, score, g: Callable[[Array], Array]) -> Callable:
    """The right-hand side, as diffrax calls it."""
    low, high = (SCORE_MARGIN if spec.path.stochastic else 0.0), 1.0 - SCORE_MARGIN

    def field(t, x, args):
        if METHODS[spec.method] != "drift":
            return velocity(x, jnp.full(x.shape[:1], t, x.dtype), args.labels)
        here = args.on * g(t)
        t = jnp.full(x.shape[:1], jnp.where(here > 0, clamp(t, low, high), t), x.dtype)
        u = velocity(x, t, args.labels)
        if score is None:
            s = convert(u, x, t, spec.path.schedule, source="velocity", target="score")
        else:
            s = score(x, t, args.labels)
        # Where there is no noise the score may be infinite.
        s = jnp.where(here > 0, s, jnp.zeros_like(s))
        return sde_drifts(u, s, here).forward + here * args.force

    return field


def _solve(velocity, x0, keys, labels, spec, score, times, save_at) -> Solution:
    """One diffrax solve on the grid `times`."""
    import diffrax

    from fmjax.samplers.diffrax_steps.given_times import OnNodes
    from fmjax.samplers.diffrax_steps.multistep import diffrax_solver, evaluations
    from fmjax.samplers.diffrax_steps.stochastic import NoisySolver, StepArgs

    g = diffusion_coefficient(spec.diffusion, spec.scale, spec.path)
    base = diffrax_solver(spec.ode.solver, spec.ode.schedule)
    steps, times = len(times) - 1, jnp.asarray(times, x0.dtype)
    schedule = None if spec.path.stochastic else spec.path.schedule
    last = steps - 1 if spec.denoise_last else -1
    saves = [
        diffrax.SubSaveAt(t1=True),
        diffrax.SubSaveAt(steps=True, fn=lambda t, x, args: is_finite(x)),
    ]
    if save_at is not None:
        saves.append(diffrax.SubSaveAt(ts=jnp.asarray(save_at, x0.dtype)))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_field(velocity, spec, score, g)),
        NoisySolver(base, METHODS[spec.method], g, schedule, last),
        times[0],
        times[-1],
        None,  # the controller chooses the first step
        x0,
        args=StepArgs(labels, keys, jnp.zeros((), x0.dtype), jnp.zeros_like(x0)),
        stepsize_controller=OnNodes(times),
        saveat=diffrax.SaveAt(subs=saves),
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=min(steps, spec.ode.checkpoints)),
        max_steps=steps,
        throw=False,  # see fmjax.samplers.ode
    )
    nfe = evaluations(spec.ode.solver, base, solution.stats["num_steps"]) * (
        1 + (score is not None)
    )
    per_example = [
        jnp.broadcast_to(count, x0.shape[:1])
        for count in (nfe, solution.result == diffrax.RESULTS.successful, steps, 0)
    ]
    finite = jnp.sum(jnp.cumprod(solution.ys[1], axis=0), axis=0)
    trajectory = None if save_at is None else solution.ys[2]
    return Solution(solution.ys[0][0], *per_example, times[finite], trajectory)
