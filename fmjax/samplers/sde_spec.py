"""How to sample with noise: the methods, and a checked, hashable description of one solve."""

from typing import Any, NamedTuple

from fmjax.errors import InputError, unknown_name
from fmjax.paths import AffinePath, Path
from fmjax.samplers.diffusion_coefficients import Diffusion, diffusion_coefficient
from fmjax.samplers.spec import SolverSpec, solver_spec

METHODS = {
    "churn": "churn",
    "euler_maruyama": "drift",
    "overshoot": "overshoot",
    "refresh": "refresh",
    "stochastic_heun": "drift",
}
"""The names of the methods, and the kind of step in `diffrax_steps.stochastic` behind each."""

_BASES = {"euler_maruyama": "euler", "stochastic_heun": "heun"}


class SDESpec(NamedTuple):
    """How to sample with noise, checked: made by `sde_spec`, hashable, static under jit.

    Attributes:
        method: a name of `METHODS`.
        ode: the solver that the noise goes around, euler or heun, with its grid.
        path: of the flow; it turns the velocity into the score.
        diffusion: a name of `fmjax.samplers.diffusion_coefficients.DIFFUSIONS`, or a function g(t).
        scale: what g^2 is multiplied by.
        denoise_last: whether the last step takes no noise, and is one of the ODE.
    """

    method: str
    ode: SolverSpec
    path: Path
    diffusion: Diffusion
    scale: float
    denoise_last: bool


def sde_spec(
    method: str = "stochastic_heun",
    steps: int | None = None,
    *,
    diffusion: Diffusion = "sigma",
    scale: float = 1.0,
    path: Path | None = None,
    base: str | None = None,
    denoise_last: bool = True,
    control: str = "fixed",
    **grid: Any,
) -> SDESpec:
    """Checks how to sample with noise, before any device work.

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
        path: of the flow; None is the straight one.
        base: ``"euler"`` or ``"heun"`` (if None) under churn, overshoot and refresh.
        denoise_last: the last step takes no noise and is one of the ODE.
        control: ``"fixed"``; there is no other for SDEs.
        **grid: ``grid`` and ``shift``, as in `fmjax.samplers.spec.solver_spec`.

    Returns:
        The checked specification.

    Raises:
        InputError: a name is unknown; the scale is negative; adaptive steps are asked; a base is
            asked of a method that has its own, or is neither euler nor heun; a method that goes
            back along the path is asked of a stochastic one; or as in `solver_spec`.
    """
    if method not in METHODS:
        raise unknown_name("SDE method", method, METHODS)
    if control != "fixed" or {"rtol", "atol"} & grid.keys():
        raise InputError("SDEs take fixed steps; give steps, and no control, rtol or atol.")
    path = AffinePath() if path is None else path
    if not hasattr(path, "stochastic"):
        raise InputError(
            f"path must be a path; got {path!r}. For a schedule: AffinePath(schedule)."
        )
    diffusion_coefficient(diffusion, scale, path)
    if path.stochastic and METHODS[method] != "drift":
        raise InputError(
            f"{method} goes back along an affine path, which {type(path).__name__} is not; "
            "take 'euler_maruyama' or 'stochastic_heun'."
        )
    if base is not None and method in _BASES:
        raise InputError(f"{method} has its own solver; leave base={base!r} out.")
    base = _BASES.get(method, base or "heun")
    if base not in _BASES.values():
        raise unknown_name("base solver of an SDE", base, set(_BASES.values()))
    schedule = None if path.stochastic else path.schedule
    ode = solver_spec(base, steps, "fixed", schedule=schedule, **grid)
    return SDESpec(method, ode, path, diffusion, float(scale), denoise_last)
