"""Sampling with noise, with the marginals of the flow for any diffusion coefficient g.

    dx = (u + g^2 / 2 score) dt + g dW

has at every t the density p_t of dx = u dt. The score follows from the velocity if x0 is standard
normal and independent of x1. `fmjax.samplers.diffusion_coefficients` lists the
choices of g, and `fmjax.samplers.diffrax_steps.stochastic` says what a step of each method does.
Noise corrects the errors of earlier steps, at the price of more steps. Sources: Song et al.,
arXiv:2011.13456; for flows Ma et al., arXiv:2401.08740.
"""

from typing import Any

from jaxtyping import Key

from fmjax.checks import check_methods
from fmjax.conventions import Array, Labels, Times, Velocity
from fmjax.errors import InputError
from fmjax.samplers.base import Solver, check_solver
from fmjax.samplers.ode_solver import ODESolver
from fmjax.samplers.sde_solver import sde_spec
from fmjax.samplers.solution import Solution


def solve_sde(
    velocity: Velocity,
    x0: Any,
    keys: Key[Array, " batch"],
    labels: Labels = None,
    spec: Solver | None = None,
    *,
    score: Velocity | None = None,
    t0: float = 0.0,
    t1: float = 1.0,
    save_at: Times | None = None,
) -> Solution:
    """Carries x0 from t0 up to t1 with noise, through the marginals of the flow.

    An example depends on its own key, not on its neighbours. A guided velocity is taken as it is;
    the score that follows from it is guided too.

    The score follows from the velocity only if x0 is standard normal and independent of x1. For a
    flow trained under another coupling (minibatch transport), on the pairs of reflow, or from
    another source, the samples have the wrong distribution, without an error: give `score` then, or
    take a solver of the ODE. Churn, overshoot and refresh renew the noise x0 by a standard normal
    one, take no score, and need the same.

    Args:
        velocity: ``velocity(x, t, labels)``, t (batch,).
        x0: the state at t0 (batch, ...), float32 or float64; one array.
        keys: one random key per example (batch,).
        labels: as in `fmjax.samplers.ode.solve`.
        spec: a solver with noise, from `sde_spec` or your own; 25 stochastic Heun steps if None.
        score: ``score(x, t, labels)``, grad log p_t; if None it is made of the velocity, as for a
            standard normal x0 that is independent of x1. Paths without a schedule need it
            (`fmjax.losses.make_flow_and_score_loss_fn`).
        t0: where to start.
        t1: where to end, after t0.
        save_at: times at which to keep the state; each becomes a node of the grid, so that there
            is a step to it. Under ``denoise_last`` the noise stays in these states.

    Returns:
        The state at t1. ``nfe`` counts the evaluations of the velocity, and as many again of a
        score of its own.

    Raises:
        InputError: t1 is not after t0; x0 is a pytree; the keys are not one per example; the spec
            is no solver, or one of the ODE; the path has no schedule and there is no score; a score
            comes with a method that does not use one; or as in `fmjax.samplers.ode.solve`.

    Example:
        >>> x0, keys = jnp.ones((2, 3)), jax.random.split(jax.random.key(0), 2)
        >>> solve_sde(lambda x, t, labels: -x, x0, keys, spec=sde_spec("churn", 4)).x1.shape
        (2, 3)
    """
    spec = sde_spec() if spec is None else spec
    check_methods("the velocity", velocity, such_as="lambda x, t, labels: ...")
    if score is not None:
        check_methods("the score", score, such_as="lambda x, t, labels: ...")
    check_solver(spec)
    if isinstance(spec, ODESolver):
        raise InputError(
            f"solve_sde takes a solver with noise, from sde_spec; {spec.solver} has none: write "
            "solve(velocity, x0, labels, spec)."
        )
    extra = {} if score is None else {"score": score}  # which other solvers need not know
    return spec.solve(velocity, x0, labels, keys=keys, t0=t0, t1=t1, save_at=save_at, **extra)
