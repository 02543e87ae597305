"""ODE sampling through diffrax: dx/dt = velocity(x, t, labels) from t0 to t1.

diffrax is imported when a solver is first built, so that ``import fmjax`` stays quick.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fmjax.conventions import Array, Labels, Velocity
from fmjax.errors import InputError, unknown_name
from fmjax.times import shift_time

SOLVERS = {
    "bosh3": "Bosh3",
    "dopri5": "Dopri5",
    "dopri8": "Dopri8",
    "euler": "Euler",
    "heun": "Heun",
    "midpoint": "Midpoint",
    "ralston": "Ralston",
    "tsit5": "Tsit5",
}
"""The names of the solvers, and the diffrax class behind each."""

CONTROLS = ("fixed", "batch", "sample")


class Solution(NamedTuple):
    """What a solve gives back.

    Attributes:
        x1: the state at t1, shaped as x0.
        nfe: evaluations of the velocity made for each example, int32 (batch,).
        success: False where the adaptive solver ran out of steps, bool (batch,); x1 is then NaN.
    """

    x1: Array
    nfe: Array
    success: Array


class SolverSpec(NamedTuple):
    """How to solve, checked: made by `solver_spec`, hashable, static under jit.

    Attributes:
        solver: a name of `SOLVERS`.
        control: ``"fixed"`` (a fixed grid), ``"batch"`` (one adaptive step size for the whole
            batch, error controlled in the root mean square over it) or ``"sample"`` (each example
            its own, independent of its neighbours).
        steps: the number of steps under ``"fixed"``.
        rtol: relative tolerance of the adaptive controls.
        atol: absolute tolerance of the adaptive controls.
        max_steps: where an adaptive solve gives up.
        shift: of the fixed grid, as in `fmjax.times.shift_time`; 1 makes equal steps.
    """

    solver: str
    control: str
    steps: int | None
    rtol: float | None
    atol: float | None
    max_steps: int
    shift: float = 1.0


def solver_spec(
    solver: str = "heun",
    steps: int | None = None,
    control: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 4096,
    shift: float = 1.0,
) -> SolverSpec:
    """Checks how to solve, before any device work.

    ``steps`` asks for a fixed grid, ``rtol`` or ``atol`` for adaptive steps; with neither it is
    25 fixed steps. An adaptive solve is controlled per sample unless ``control="batch"``; a
    tolerance left out is 1e-4.

    Args:
        solver: a name of `SOLVERS`.
        steps: number of equal steps, at least 1.
        control: ``"fixed"``, ``"batch"`` or ``"sample"``; None chooses as above.
        rtol: relative tolerance, positive.
        atol: absolute tolerance, positive.
        max_steps: the most steps an adaptive solve may take.
        shift: moves the steps of a fixed grid towards the noise (above 1) or the data (below 1):
            the SD3 and FLUX timestep shift, the function that `fmjax.times.Shifted` trains with.

    Returns:
        The checked specification.

    Raises:
        InputError: a name is unknown, steps is below 1, a tolerance is not positive, both steps and
            tolerances are given, or the solver has no error estimate to adapt to; or the shift is
            not positive, or asked of adaptive steps, which have no grid.
    """
    if solver not in SOLVERS:
        raise unknown_name("solver", solver, SOLVERS)
    if control is None:
        control = "fixed" if rtol is None and atol is None else "sample"
    if control not in CONTROLS:
        raise unknown_name("step control", control, CONTROLS)
    if not (math.isfinite(shift) and shift > 0):
        raise InputError(f"the shift must be a positive number; got {shift!r}.")
    if control == "fixed":
        if rtol is not None or atol is not None:
            raise InputError(
                "fixed steps take no rtol or atol; leave them out, or leave steps out."
            )
        steps = 25 if steps is None else steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps must be a whole number of at least 1; got {steps!r}.")
        return SolverSpec(solver, control, steps, None, None, steps, float(shift))
    if shift != 1:
        raise InputError(f"adaptive steps have no grid to shift; leave shift={shift} out.")
    return _adaptive_spec(solver, steps, control, rtol, atol, max_steps)


def _adaptive_spec(solver, steps, control, rtol, atol, max_steps) -> SolverSpec:
    if steps is not None:
        raise InputError(
            f"adaptive steps (rtol, atol) and a fixed number of steps ({steps}) "
            "exclude each other; leave one out."
        )
    if solver == "euler":
        raise InputError(
            "euler has no error estimate, so it cannot adapt its steps; "
            "give steps, or take heun, bosh3, dopri5 or tsit5."
        )
    tolerances = {"rtol": 1e-4 if rtol is None else rtol, "atol": 1e-4 if atol is None else atol}
    for name, value in tolerances.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number; got {value!r}.")
    if max_steps < 1:
        raise InputError(f"max_steps must be at least 1; got {max_steps!r}.")
    return SolverSpec(solver, control, None, tolerances["rtol"], tolerances["atol"], max_steps)


def solve(
    velocity: Velocity,
    x0: Array,
    labels: Labels = None,
    spec: SolverSpec | None = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
) -> Solution:
    """Carries x0 along the flow from t0 to t1; t1 < t0 runs it backwards.

    Args:
        velocity: ``velocity(x, t, labels)``, t (batch,).
        x0: the state at t0 (batch, ...), float32 or float64.
        labels: per-example conditions with a leading batch axis (a lone number is shared), or None.
        spec: how to solve, from `solver_spec`; 25 fixed Heun steps if None.
        t0: where to start.
        t1: where to end, another time than t0.

    Returns:
        The state at t1 with the velocity evaluations made and whether the solve succeeded.

    Raises:
        InputError: t0 equals t1, or one of them is not finite.
    """
    spec = solver_spec() if spec is None else spec
    if not (math.isfinite(t0) and math.isfinite(t1)) or t0 == t1:
        raise InputError(f"t0 and t1 must be two different finite times; got {t0} and {t1}.")
    if spec.control != "sample":
        x1, nfe, success = _solve_one(velocity, x0, labels, spec, t0, t1)
        batch = x0.shape[:1]
        return Solution(x1, jnp.broadcast_to(nfe, batch), jnp.broadcast_to(success, batch))

    def one(x, label):
        add_axis = functools.partial(jax.tree.map, lambda leaf: leaf[None])
        x1, nfe, success = _solve_one(velocity, add_axis(x), add_axis(label), spec, t0, t1)
        return Solution(x1[0], nfe, success)

    def per_example(leaf):
        leaf = jnp.asarray(leaf)
        return jnp.broadcast_to(leaf, x0.shape[:1]) if leaf.ndim == 0 else leaf

    return jax.vmap(one)(x0, jax.tree.map(per_example, labels))


def _solve_one(velocity, x0, labels, spec, t0, t1):
    """One diffrax solve of the whole array: (x1, evaluations, success), the last two scalars."""
    import diffrax

    def field(t, x, labels):
        return velocity(x, jnp.full(x.shape[:1], t, x.dtype), labels)

    solver = getattr(diffrax, SOLVERS[spec.solver])()
    dtype = x0.dtype
    if spec.control == "fixed":
        controller = diffrax.StepTo(_grid(spec, t0, t1, dtype))
    else:
        controller = diffrax.PIDController(rtol=spec.rtol, atol=spec.atol)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        jnp.asarray(t0, dtype),
        jnp.asarray(t1, dtype),
        None,  # the controller chooses the first step
        x0,
        args=labels,
        stepsize_controller=controller,
        saveat=diffrax.SaveAt(t1=True),
        max_steps=spec.max_steps,
        # The default raises from inside the program through a host callback, which cannot be
        # exported and synchronises; the caller reads `success` instead.
        throw=False,
    )
    success = solution.result == diffrax.RESULTS.successful
    nfe = _evaluations(solver, solution.stats["num_steps"])
    x1 = jnp.where(success, solution.ys[0], jnp.nan)
    return x1, nfe, success


def _grid(spec: SolverSpec, t0: float, t1: float, dtype: Any) -> Array:
    """The steps + 1 times of a fixed solve, from t0 to t1 exactly."""
    t0, t1 = jnp.asarray(t0, dtype), jnp.asarray(t1, dtype)
    if spec.shift == 1:
        return jnp.linspace(t0, t1, spec.steps + 1)
    ends = (shift_time(t, 1 / spec.shift) for t in (t0, t1))
    grid = shift_time(jnp.linspace(*ends, spec.steps + 1), spec.shift)
    return grid.at[0].set(t0).at[-1].set(t1)


def _evaluations(solver, num_steps: Array) -> Array:
    """Evaluations of the field behind a number of steps, rejected ones included.

    A first-same-as-last method evaluates once at the start and then one stage fewer per step.
    """
    tableau = getattr(solver, "tableau", None)  # Euler has none
    stages = 1 if tableau is None else tableau.num_stages
    fsal = int(tableau is not None and tableau.fsal)
    return (fsal + (stages - fsal) * num_steps).astype(jnp.int32)
