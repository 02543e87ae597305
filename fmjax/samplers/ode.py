"""Sampling by the ODE: dx/dt = velocity(x, t, labels) from t0 to t1, and back."""

from typing import Any

from fmjax.checks import check_methods
from fmjax.conventions import Labels, Times, Velocity
from fmjax.samplers.base import Solver, check_solver
from fmjax.samplers.ode_solver import solver_spec
from fmjax.samplers.solution import Solution


def solve(
    velocity: Velocity,
    x0: Any,
    labels: Labels = None,
    spec: Solver | None = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    save_at: Times | None = None,
) -> Solution:
    """Carries x0 along the flow from t0 to t1; t1 < t0 runs it backwards.

    Args:
        velocity: ``velocity(x, t, labels)``, t (batch,).
        x0: the state at t0, floats (batch, ...), or a pytree of such arrays, which the velocity
            then takes and gives. Half precision is carried in float32, whatever the network
            computes in: a small step added in bfloat16 would be rounded away.
        labels: per-example conditions with a leading batch axis, or None; the whole batch shares a
            lone number, or an array with a leading axis of 1.
        spec: a solver, from `solver_spec` or your own; 25 fixed Heun steps if None.
        t0: where to start.
        t1: where to end, another time than t0.
        save_at: times from t0 to t1 at which to keep the state. Between the steps it is what the
            solver interpolates; the steps of a fixed solve are at ``spec.nodes()``.

    Returns:
        The state at t1 with the velocity evaluations made, the steps, and whether it succeeded.

    Raises:
        InputError: the velocity is not shaped as x; the spec is no solver, or one with noise; t0
            equals t1, or one of them is not finite; x0 has no batch axis or no example, or is not
            of floats; the grid does not reach from t0 to t1; or save_at leaves [t0, t1] or turns
            back.

    Example:
        >>> solution = solve(lambda x, t, labels: x, jnp.ones((1, 1)), spec=solver_spec("euler", 2))
        >>> solution.x1  # 1.5^2, and e with more steps
        Array([[2.25]], dtype=float32)
    """
    spec = solver_spec() if spec is None else spec
    check_methods("the velocity", velocity, such_as="lambda x, t, labels: ...")
    check_solver(spec)
    return spec.solve(velocity, x0, labels, t0=t0, t1=t1, save_at=save_at)


def invert(
    velocity: Velocity, x1: Any, labels: Labels = None, spec: Solver | None = None
) -> Solution:
    """The source points that the flow carries to x1: `solve` from t = 1 back to t = 0.

    The flow is a bijection, so that solving forwards again gives x1 back to within the error of the
    two solves. Arguments and errors as in `solve`; the source points are the solution's ``x1``.

    Example:
        >>> x1, spec = jnp.full((1, 1), 2.25), solver_spec("euler", 2)
        >>> invert(lambda x, t, labels: x, x1, spec=spec).x1  # 2.25 times 0.5^2
        Array([[0.5625]], dtype=float32)
    """
    return solve(velocity, x1, labels, spec, t0=1.0, t1=0.0)
