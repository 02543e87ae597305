"""How to solve: the table of solvers, and a checked, hashable description of one solve."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fmjax.checks import check_at_least, check_positive
from fmjax.errors import InputError, unknown_name
from fmjax.samplers.time_grids import CustomGrid, Grid, UniformGrid, named_grid
from fmjax.schedules import Linear, Schedule


class Method(NamedTuple):
    """What is known of a solver.

    Attributes:
        order: the power of the step with which its error falls.
        adaptive: whether it estimates its error, and so can choose its steps.
        min_steps: the fewest fixed steps that make sense.
    """

    order: int
    adaptive: bool = True
    min_steps: int = 1


SOLVERS = {
    "ab2": Method(2, adaptive=False, min_steps=2),
    "ab3": Method(3, adaptive=False, min_steps=3),
    "bosh3": Method(3),
    "dopri5": Method(5),
    "dopri8": Method(8),
    "dpmpp_2m": Method(2, adaptive=False, min_steps=2),
    "euler": Method(1, adaptive=False),
    "heun": Method(2),
    "midpoint": Method(2),
    "ralston": Method(2),
    "rk4": Method(4, adaptive=False),
    "tsit5": Method(5),
    "unipc": Method(2, adaptive=False, min_steps=2),
}
"""Every solver by name. `diffrax_steps.multistep` has those that are not diffrax's own."""

CONTROLS = ("fixed", "batch", "sample")
GRADIENTS = ("checkpointed", "direct")


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
        grid: where the fixed steps are.
        schedule: of the path, for solvers and grids in its signal-to-noise ratio.
        gradient: ``"checkpointed"`` (reverse mode in bounded memory) or ``"direct"`` (reverse and
            forward mode; memory grows with the steps).
        checkpoints: states kept for the reverse pass.
    """

    solver: str
    control: str
    steps: int | None
    rtol: float | None
    atol: float | None
    max_steps: int
    grid: Grid = UniformGrid()
    schedule: Schedule = Linear()
    gradient: str = "checkpointed"
    checkpoints: int = 16


def solver_spec(
    solver: str = "heun",
    steps: int | None = None,
    control: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 4096,
    shift: float = 1.0,
    *,
    grid: str | Grid | Sequence[float] | None = None,
    schedule: Schedule | None = None,
    gradient: str = "checkpointed",
    checkpoints: int = 16,
) -> SolverSpec:
    """Checks how to solve, before any device work.

    ``steps`` or ``grid`` asks for fixed steps, ``rtol`` or ``atol`` for adaptive ones; with none of
    them it is 25 fixed steps. An adaptive solve is controlled per sample unless
    ``control="batch"``; a tolerance left out is 1e-4.

    Args:
        solver: a name of `SOLVERS`.
        steps: number of fixed steps.
        control: ``"fixed"``, ``"batch"`` or ``"sample"``; None chooses as above.
        rtol: relative tolerance, positive.
        atol: absolute tolerance, positive.
        max_steps: the most steps an adaptive solve may take.
        shift: moves the steps of a uniform grid towards the noise (above 1) or the data (below 1):
            the SD3 and FLUX timestep shift, the function that `fmjax.times.Shifted` trains with.
        grid: where the fixed steps are: a name of `fmjax.samplers.time_grids.GRIDS`, a grid of that
            module, or the times themselves, which leave no steps to choose.
        schedule: of the path, for the solvers (``dpmpp_2m``, ``unipc``) and the grids that step in
            its signal-to-noise ratio; None is the straight path.
        gradient: ``"checkpointed"`` keeps `checkpoints` states and computes the others again in the
            reverse pass, so that its memory does not grow with the steps; ``"direct"`` also allows
            forward mode (`jax.jvp`).
        checkpoints: how many states to keep, at least 1.

    Returns:
        The checked specification.

    Raises:
        InputError: a name is unknown; steps lie below what the solver needs; a tolerance is not
            positive; steps and tolerances, or steps and times, are both given; the solver has no
            error estimate to adapt to; the grid is not monotone or leaves [0, 1]; or a shift or a
            grid is asked of adaptive steps, which have none.
    """
    if solver not in SOLVERS:
        raise unknown_name("solver", solver, SOLVERS)
    if gradient not in GRADIENTS:
        raise unknown_name("gradient", gradient, GRADIENTS)
    check_at_least("checkpoints", checkpoints)
    if control is None:
        control = "fixed" if rtol is None and atol is None else "sample"
    if control not in CONTROLS:
        raise unknown_name("step control", control, CONTROLS)
    check_positive("the shift", shift)
    common = {"schedule": Linear() if schedule is None else schedule, "gradient": gradient}
    common["checkpoints"] = checkpoints
    if control == "fixed":
        if rtol is not None or atol is not None:
            raise InputError(
                "fixed steps take no rtol or atol; leave them out, or leave steps out."
            )
        steps, grid = _fixed_grid(solver, steps, grid, shift)
        return SolverSpec(solver, control, steps, None, None, steps, grid, **common)
    if shift != 1 or grid is not None:
        asked = f"grid={grid!r}" if shift == 1 else f"shift={shift}"
        raise InputError(f"adaptive steps have no grid to choose or to shift; leave {asked} out.")
    rtol, atol = _tolerances(solver, steps, rtol, atol, max_steps)
    return SolverSpec(solver, control, None, rtol, atol, max_steps, **common)


def described(spec: SolverSpec) -> dict[str, str | int | float]:
    """What decides the samples of a solve, for JSON: names, numbers, the grid as it is written."""
    fields = {k: getattr(spec, k) for k in ("solver", "control", "steps", "rtol", "atol")}
    return {k: v for k, v in fields.items() if v is not None} | {"grid": repr(spec.grid)}


def _fixed_grid(solver, steps, grid, shift) -> tuple[int, Grid]:
    if grid is None or isinstance(grid, str):
        grid = named_grid(grid or "uniform", shift)
    elif shift != 1:
        raise InputError(f"a grid of your own has its own spacing; leave shift={shift} out.")
    elif not hasattr(grid, "warp"):
        grid = CustomGrid(tuple(float(t) for t in np.asarray(grid, np.float64).ravel()))
    if isinstance(grid, CustomGrid):
        if steps not in (None, len(grid.times) - 1):
            raise InputError(
                f"the grid has {len(grid.times) - 1} steps, and steps={steps} were asked; "
                "leave steps out."
            )
        steps = len(grid.times) - 1
    steps = 25 if steps is None else steps
    check_at_least("steps", steps)
    if steps < SOLVERS[solver].min_steps:
        raise InputError(
            f"{solver} needs at least {SOLVERS[solver].min_steps} steps, to have earlier ones to "
            f"learn from; got {steps}. Take euler or heun for fewer."
        )
    return steps, grid


def _tolerances(solver, steps, rtol, atol, max_steps) -> tuple[float, float]:
    if steps is not None:
        raise InputError(
            f"adaptive steps (rtol, atol) and a fixed number of steps ({steps}) "
            "exclude each other; leave one out."
        )
    if not SOLVERS[solver].adaptive:
        able = ", ".join(name for name, method in sorted(SOLVERS.items()) if method.adaptive)
        raise InputError(
            f"{solver} has no error estimate, so it cannot adapt its steps; "
            f"give steps, or take one of {able}."
        )
    tolerances = {"rtol": 1e-4 if rtol is None else rtol, "atol": 1e-4 if atol is None else atol}
    for name, value in tolerances.items():
        check_positive(name, value)
    check_at_least("max_steps", max_steps)
    return tolerances["rtol"], tolerances["atol"]
