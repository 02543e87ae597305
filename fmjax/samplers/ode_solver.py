"""Solvers of the ODE: their table, and one of them with its steps, checked and hashable."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Key

from fmjax.checks import check_at_least, check_methods, check_name, check_positive
from fmjax.conventions import Array, Labels, Times, Velocity, at_least_float32
from fmjax.errors import InputError
from fmjax.manifolds import Euclidean, Manifold
from fmjax.paths import Path, manifold_of
from fmjax.samplers.ode_integration import integrate
from fmjax.samplers.solution import (
    Solution,
    batch_size_of,
    check_ends,
    check_moves_numbers,
    checked_times,
    finished,
    shared_labels,
)
from fmjax.samplers.time_grids import (
    Grid,
    UniformGrid,
    check_grid_on_manifold,
    fixed_grid,
    time_grid,
)
from fmjax.schedules import Linear, Schedule
from fmjax.schedules.base import check_schedule


class Method(NamedTuple):
    """What is known of a solver.

    Attributes:
        order: the power of the step with which its error falls.
        adaptive: whether it estimates its error, and so can choose its steps.
        min_steps: the fewest fixed steps that make sense.
        log_snr: whether it steps in the signal-to-noise ratio, which affine paths alone have.
        geodesic: whether it steps along the geodesics of a manifold.
    """

    order: int
    adaptive: bool = True
    min_steps: int = 1
    log_snr: bool = False
    geodesic: bool = False


SolverName = Literal[
    "ab2",
    "ab3",
    "bosh3",
    "dopri5",
    "dopri8",
    "dpmpp_2m",
    "euler",
    "geodesic_euler",
    "geodesic_heun",
    "heun",
    "midpoint",
    "ralston",
    "rk4",
    "tsit5",
    "unipc",
    "unipc_interpolated",
]
SOLVERS: dict[SolverName, Method] = {
    "ab2": Method(2, adaptive=False, min_steps=2),
    "ab3": Method(3, adaptive=False, min_steps=3),
    "bosh3": Method(3),
    "dopri5": Method(5),
    "dopri8": Method(8),
    "dpmpp_2m": Method(2, adaptive=False, min_steps=2, log_snr=True),
    "euler": Method(1, adaptive=False),
    "geodesic_euler": Method(1, adaptive=False, geodesic=True),
    "geodesic_heun": Method(2, geodesic=True),
    "heun": Method(2),
    "midpoint": Method(2),
    "ralston": Method(2),
    "rk4": Method(4, adaptive=False),
    "tsit5": Method(5),
    "unipc": Method(2, adaptive=False, min_steps=2, log_snr=True),
    "unipc_interpolated": Method(2, adaptive=False, min_steps=2, log_snr=True),
}
"""Every solver by name. `fmjax.samplers.diffrax_steps` has those that are not diffrax's own.

The order 2 of ``dpmpp_2m`` and both ``unipc`` is that of a solve that ends before t = 1. Up to
t = 1, with equal steps, it is 1 on `LinearVP`, and on the straight path dpmpp_2m nears 2 slowly.
"""

Control = Literal["fixed", "batch", "sample"]
CONTROLS: tuple[Control, ...] = get_args(Control)
Gradient = Literal["checkpointed", "direct"]
GRADIENTS: tuple[Gradient, ...] = get_args(Gradient)


class ODESolver(NamedTuple):
    """A `fmjax.samplers.base.Solver` of the ODE, by diffrax: made by `solver_spec`, which checks.

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
        manifold: where all states are; None in flat space.
    """

    solver: SolverName
    control: Control
    steps: int | None
    rtol: float | None
    atol: float | None
    max_steps: int
    grid: Grid = UniformGrid()
    schedule: Schedule = Linear()
    gradient: Gradient = "checkpointed"
    checkpoints: int = 16
    manifold: Manifold | None = None

    def solve(
        self,
        velocity: Velocity,
        x0: Any,
        labels: Labels = None,
        *,
        keys: Key[Array, " batch"] | None = None,
        t0: float = 0.0,
        t1: float = 1.0,
        save_at: Times | None = None,
    ) -> Solution:
        """Carries x0 along the flow; see `fmjax.samplers.ode.solve`. The keys are not used."""
        check_ends(t0, t1)
        labels = shared_labels(labels, batch_size_of(x0))
        x0 = jax.tree.map(at_least_float32, x0)
        self._check_manifold(x0)
        self._check_ratio(t0, t1)
        kept = None if save_at is None else checked_times(save_at, t0, t1)
        return finished(integrate(self, velocity, x0, labels, t0, t1, kept))

    def describe(self) -> dict[str, str | int | float]:
        """What decides the samples, for JSON: names, numbers, the grid as it is written."""
        fields = {k: getattr(self, k) for k in ("solver", "control", "steps", "rtol", "atol")}
        where = {} if self.manifold is None else {"manifold": repr(self.manifold)}
        found = {k: v for k, v in fields.items() if v is not None}
        return found | {"grid": repr(self.grid)} | where

    def nodes(self, t0: float = 0.0, t1: float = 1.0) -> Float64[np.ndarray, " nodes"] | None:
        """The steps + 1 times of a fixed solve, float64; None where the steps are adaptive.

        Raises:
            InputError: the grid does not reach from t0 to t1.
        """
        if self.control != "fixed" or self.steps is None:
            return None
        return time_grid(self.grid, self.steps, t0, t1, self.schedule)

    def evaluation_times(
        self, t0: float = 0.0, t1: float = 1.0
    ) -> Float64[np.ndarray, " times"] | None:
        """When a fixed solve evaluates the velocity, float64; None where the steps are adaptive.

        Raises:
            InputError: as in `nodes`.
        """
        from fmjax.samplers.diffrax_steps.by_name import diffrax_solver, stage_times

        times = self.nodes(t0, t1)
        if times is None:
            return None
        return stage_times(self.solver, diffrax_solver(self.solver, self.schedule), times)

    def on_path(self, path: Path) -> "ODESolver":
        """The solver with the schedule of the path, or its manifold, if it has one.

        Raises:
            InputError: the path has no schedule, and the solver or its grid is in the
                signal-to-noise ratio; the solver has another manifold than the path; or the path
                is one of tokens.
        """
        check_moves_numbers(path)
        schedule, manifold = getattr(path, "schedule", None), manifold_of(path)
        if self.manifold is not None and repr(self.manifold) != repr(manifold):
            raise InputError(
                f"the solver is on {self.manifold}, and the path is {path}; leave the manifold of "
                "the solver out, which takes that of the path."
            )
        if schedule is not None:
            return self._replace(schedule=schedule)
        if SOLVERS[self.solver].log_snr:
            raise InputError(
                f"{self.solver} steps in the signal-to-noise ratio of an affine path, and "
                f"{type(path).__name__} has none; take ab2 or heun."
            )
        if manifold is None:
            return self
        check_grid_on_manifold(self.grid)
        return self._replace(manifold=manifold)

    @property
    def curved(self) -> Manifold | None:
        """The manifold; None where steps are those of flat space."""
        flat = isinstance(self.manifold, Euclidean) and not SOLVERS[self.solver].geodesic
        return None if flat else self.manifold

    def _check_ratio(self, t0: float, t1: float) -> None:
        """Checks that a solver in the signal-to-noise ratio starts where it is finite."""
        if not SOLVERS[self.solver].log_snr or t1 > t0:
            return
        with jax.ensure_compile_time_eval():
            left = float(self.schedule.sigma(jnp.asarray(t0, jnp.float32)))
        if left == 0:
            raise InputError(
                f"{self.solver} cannot start at t0 = {t0:g}, where the signal-to-noise ratio is "
                "infinite; start a little before it, such as at t0=0.999, or take heun."
            )

    def _check_manifold(self, x0: Any) -> None:
        """Checks that there is a manifold where one is needed, and that x0 is on it."""
        if self.manifold is not None:
            self.manifold.check("x0", x0)
        elif SOLVERS[self.solver].geodesic:
            raise InputError(
                f"{self.solver} steps along the geodesics of a manifold; write "
                f"solver_spec({self.solver!r}, manifold=Sphere(2)), or take heun in flat space."
            )


def solver_spec(
    solver: SolverName = "heun",
    steps: int | None = None,
    control: Control | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 4096,
    shift: float = 1.0,
    *,
    grid: str | Grid | Times | None = None,
    schedule: Schedule | None = None,
    gradient: Gradient = "checkpointed",
    checkpoints: int = 16,
    manifold: Manifold | None = None,
) -> ODESolver:
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
        schedule: of the path, for the solvers (``dpmpp_2m``, ``unipc``, ``unipc_interpolated``) and
            the grids that step in its signal-to-noise ratio; None is the straight path.
        gradient: ``"checkpointed"`` keeps `checkpoints` states and computes the others again in the
            reverse pass, so that its memory does not grow with the steps; ``"direct"`` also allows
            forward mode (`jax.jvp`).
        checkpoints: how many states to keep, at least 1.
        manifold: where the flow is (`fmjax.manifolds`). The velocity is then projected to be
            tangent, every state that is kept is on the manifold to a rounding error, and all
            solvers but those in the signal-to-noise ratio serve: ``"geodesic_euler"`` and
            ``"geodesic_heun"`` step along geodesics, the others in the space around, with a
            projection at each stage and step. None is flat space, and costs nothing.

    Returns:
        The solver.

    Raises:
        InputError: a name is unknown; steps lie below what the solver needs; a tolerance is not
            positive; steps and tolerances, or steps and times, are both given; the solver has no
            error estimate to adapt to; the grid is not monotone or leaves [0, 1]; a shift or a
            grid is asked of adaptive steps, which have none; or on a manifold a solver or a grid is
            asked that is in the signal-to-noise ratio.

    Example:
        >>> solver_spec("heun", 4).nodes()
        array([0.  , 0.25, 0.5 , 0.75, 1.  ])
        >>> solver_spec("dopri5", rtol=1e-5).control
        'sample'
    """
    check_name("solver", solver, SOLVERS)
    if manifold is not None:
        check_methods("the manifold", manifold, "exp", "log", such_as="manifolds.Sphere(2)")
        if SOLVERS[solver].log_snr:
            raise InputError(
                f"{solver} steps in the signal-to-noise ratio, which a flow on {manifold} has not; "
                "take geodesic_heun, ab2 or heun."
            )
    check_name("gradient", gradient, GRADIENTS)
    checkpoints = check_at_least("checkpoints", checkpoints)
    if control is None:
        control = "fixed" if rtol is None and atol is None else "sample"
    check_name("step control", control, CONTROLS)
    check_positive("the shift", shift)
    max_steps = check_at_least("max_steps", max_steps)
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance is not None:
            check_positive(name, tolerance)
    if schedule is not None:
        check_schedule("the schedule", schedule)
    schedule = Linear() if schedule is None else schedule
    rest: dict[str, Any] = {"gradient": gradient, "checkpoints": checkpoints, "manifold": manifold}
    if control == "fixed":
        if rtol is not None or atol is not None:
            raise InputError(
                "fixed steps take no rtol or atol; leave them out, or leave steps out."
            )
        steps, grid = _steps_on_grid(solver, steps, grid, shift)
        if manifold is not None:
            check_grid_on_manifold(grid)
        return ODESolver(solver, control, steps, None, None, steps, grid, schedule, **rest)
    if shift != 1 or grid is not None:
        asked = f"grid={grid!r}" if shift == 1 else f"shift={shift}"
        raise InputError(f"adaptive steps have no grid to choose or to shift; leave {asked} out.")
    rtol, atol = _tolerances(solver, steps, rtol, atol)
    return ODESolver(solver, control, None, rtol, atol, max_steps, schedule=schedule, **rest)


def _steps_on_grid(solver, steps, grid, shift) -> tuple[int, Grid]:
    steps, grid = fixed_grid(steps, grid, shift, default=25)
    if steps < SOLVERS[solver].min_steps:
        raise InputError(
            f"{solver} needs at least {SOLVERS[solver].min_steps} steps, to have earlier ones to "
            f"learn from; got {steps}. Take euler or heun for fewer."
        )
    return steps, grid


def _tolerances(solver, steps, rtol, atol) -> tuple[float, float]:
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
    return 1e-4 if rtol is None else rtol, 1e-4 if atol is None else atol
