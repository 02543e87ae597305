"""Solvers with noise: their methods, and one of them with its steps, checked and hashable."""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Key

from fmjax.checks import check_flag, check_name
from fmjax.conventions import Array, Labels, Times, Velocity, at_least_float32
from fmjax.errors import InputError
from fmjax.paths import AffinePath, Path, manifold_of
from fmjax.paths.base import check_is_path
from fmjax.samplers.diffusion_coefficients import Diffusion, diffusion_coefficient
from fmjax.samplers.ode_solver import ODESolver, solver_spec
from fmjax.samplers.sde_integration import integrate, with_nodes
from fmjax.samplers.solution import (
    Solution,
    check_moves_numbers,
    check_noisy_solve,
    checked_times,
    finished,
    shared_labels,
)

MethodName = Literal["churn", "euler_maruyama", "overshoot", "refresh", "stochastic_heun"]
METHODS: dict[MethodName, str] = {
    "churn": "churn",
    "euler_maruyama": "drift",
    "overshoot": "overshoot",
    "refresh": "refresh",
    "stochastic_heun": "drift",
}
"""The names of the methods, and the kind of step in `diffrax_steps.stochastic` behind each."""

Base = Literal["euler", "heun"]
_BASES: dict[MethodName, Base] = {"euler_maruyama": "euler", "stochastic_heun": "heun"}


class SDESolver(NamedTuple):
    """A `fmjax.samplers.base.Solver` with noise, by diffrax: made by `sde_spec`, which checks.

    Attributes:
        method: a name of `METHODS`.
        ode: the solver that the noise goes around, euler or heun, with its grid.
        path: of the flow; it turns the velocity into the score.
        diffusion: a name of `fmjax.samplers.diffusion_coefficients.DIFFUSIONS`, or a function g(t).
        scale: what g^2 is multiplied by.
        denoise_last: whether the last step takes no noise, and is one of the ODE.
    """

    method: MethodName
    ode: ODESolver
    path: Path
    diffusion: Diffusion
    scale: float
    denoise_last: bool

    @property
    def kind(self) -> str:
        """The kind of step in `diffrax_steps.stochastic`."""
        return METHODS[self.method]

    def solve(
        self,
        velocity: Velocity,
        x0: Float[Array, "batch ..."],
        labels: Labels = None,
        *,
        keys: Key[Array, " batch"] | None = None,
        t0: float = 0.0,
        t1: float = 1.0,
        save_at: Times | None = None,
        score: Velocity | None = None,
    ) -> Solution:
        """Carries x0 up to t1 with noise; see `fmjax.samplers.sde.solve_sde`."""
        batch = check_noisy_solve(x0, keys, t0, t1)
        self._check_score(score)
        times, kept = self.nodes(t0, t1), None
        if save_at is not None:
            times, kept = with_nodes(times, checked_times(save_at, t0, t1))
        labels, x0 = shared_labels(labels, batch), at_least_float32(x0)
        self.ode._check_manifold(x0)
        return finished(integrate(self, velocity, x0, keys, labels, score, times, kept))

    def describe(self) -> dict[str, str | int | float]:
        """What decides the samples, for JSON: the method, its noise, and its `ode` described."""
        return {
            "method": self.method,
            "diffusion": str(self.diffusion),
            "scale": self.scale,
            "denoise_last": self.denoise_last,
            **self.ode.describe(),
        }

    def nodes(self, t0: float = 0.0, t1: float = 1.0) -> Float64[np.ndarray, " nodes"]:
        """The steps + 1 times between which noise is drawn, float64."""
        times = self.ode.nodes(t0, t1)
        assert times is not None, "sde_spec takes fixed steps alone"
        return times

    def evaluation_times(self, t0: float = 0.0, t1: float = 1.0) -> None:
        """None: some methods start their steps earlier, or end them later, than their nodes."""
        return

    @property
    def needs_score(self) -> bool:
        """True: without a score of its own it is made of the velocity."""
        return True

    def on_path(self, path: Path) -> "SDESolver":
        """The solver with the score and the schedule of the path.

        Raises:
            InputError: the path has no schedule.
        """
        check_moves_numbers(path)
        schedule = getattr(path, "schedule", None)
        if schedule is None:
            raise InputError(
                f"sampling with noise needs the score, which the velocity on a "
                f"{type(path).__name__} does not give; take an ODE solver such as heun."
            )
        return self._replace(path=path, ode=self.ode._replace(schedule=schedule))

    def _check_score(self, score: Velocity | None) -> None:
        if score is None and getattr(self.path, "schedule", None) is None:
            raise InputError(
                f"on a {type(self.path).__name__} the score does not follow from the velocity; "
                "give solve_sde a score=, a function (x, t, labels), or sample with the ODE."
            )
        if score is not None and self.kind != "drift":
            raise InputError(f"{self.method} uses no score; leave it out, or take stochastic_heun.")


def sde_spec(
    method: MethodName = "stochastic_heun",
    steps: int | None = None,
    *,
    diffusion: Diffusion = "sigma",
    scale: float = 1.0,
    path: Path | None = None,
    base: Base | None = None,
    denoise_last: bool = True,
    control: Literal["fixed"] = "fixed",
    **grid: Any,
) -> SDESolver:
    """Checks how to sample with noise, before any device work.

    All methods suppose that the flow was trained with a standard normal x0 independent of x1, for
    only then does the score follow from the velocity. Otherwise (minibatch transport, reflow,
    another source) give `fmjax.samplers.sde.solve_sde` a ``score``, which ``"euler_maruyama"`` and
    ``"stochastic_heun"`` take, or sample with the ODE.

    Args:
        method: ``"euler_maruyama"`` (weak order 1), ``"stochastic_heun"`` (weak order 2), or the
            ODE with noise renewed around its steps: ``"churn"`` (Karras et al., arXiv:2206.00364,
            algorithm 2, on any schedule; their gamma is sqrt(1 + g^2 h / sigma^2) - 1),
            ``"overshoot"`` (Hu et al., arXiv:2411.19415, in the signal-to-noise ratio) or
            ``"refresh"`` (as the eta of DDIM, Song et al., arXiv:2010.02502).
        steps: number of steps; 25 if neither steps nor a grid of times is given.
        diffusion: g(t), by name or as a function; see
            `fmjax.samplers.diffusion_coefficients`.
        scale: what g^2 is multiplied by; 0 leaves the ODE.
        path: of the flow; None is the straight one. On a `fmjax.paths.GeodesicPath` the one method
            is ``"euler_maruyama"``, a geodesic random walk, with a score of your own.
        base: ``"euler"`` or ``"heun"`` (if None) under churn, overshoot and refresh.
        denoise_last: the last step takes no noise and is one of the ODE.
        control: ``"fixed"``; there is no other for SDEs.
        **grid: ``grid`` and ``shift``, as in `fmjax.samplers.ode_solver.solver_spec`.

    Returns:
        The solver.

    Raises:
        InputError: a name is unknown; the scale is negative; adaptive steps are asked; a base is
            asked of a method that has its own, or is neither euler nor heun; a method that goes
            back along an affine path is asked of another path, or another one than euler_maruyama
            on a manifold; or as in `solver_spec`.

    Example:
        >>> sde_spec("churn", 4, scale=0.5).nodes()
        array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    check_name("SDE method", method, METHODS)
    if not isinstance(control, str) or control != "fixed" or {"rtol", "atol"} & grid.keys():
        raise InputError("SDEs take fixed steps; give steps, and no control, rtol or atol.")
    path = AffinePath() if path is None else path
    check_is_path("the path", path)
    check_flag("denoise_last", denoise_last)
    diffusion_coefficient(diffusion, scale, path)
    schedule = getattr(path, "schedule", None)
    if schedule is None and METHODS[method] != "drift":
        raise InputError(
            f"{method} goes back along an affine path, which {type(path).__name__} is not; "
            "take 'euler_maruyama' or 'stochastic_heun'."
        )
    if base is not None and method in _BASES:
        raise InputError(f"{method} has its own solver; leave base={base!r} out.")
    manifold = manifold_of(path)
    if manifold is not None:
        if method != "euler_maruyama":
            raise InputError(
                f"{method} has no step on {manifold}; take 'euler_maruyama', which is a geodesic "
                "random walk there."
            )
        ode = solver_spec("geodesic_euler", steps, "fixed", manifold=manifold, **grid)
        return SDESolver(method, ode, path, diffusion, float(scale), denoise_last)
    chosen = _BASES.get(method, "heun" if base is None else base)
    check_name("base solver of an SDE", chosen, set(_BASES.values()))
    ode = solver_spec(chosen, steps, "fixed", schedule=schedule, **grid)
    return SDESolver(method, ode, path, diffusion, float(scale), denoise_last)
