"""Time grids: where a solve with a fixed number of steps takes them.

A grid is an increasing map of [0, 1] to itself, ``warp(u, schedule)``, read at equally spaced u.
Steps that are small where the velocity turns quickly and large elsewhere need fewer of them. The
nodes are constants of the compiled program, computed in float64 on the host.

N steps have N + 1 nodes here, at u = i / N, the last of which is moved to the end. diffusers puts
N nodes at u = i / (N - 1), the last at its sigma_min, and then takes one step to 0. Its nodes have
names of their own: ``"beta_diffusers"``, ``"edm_diffusers"``, ``"karras_diffusers"``, ``"sd3"``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from fmjax.checks import check_at_least, check_between, check_methods, check_name, check_positive
from fmjax.conventions import Times
from fmjax.errors import InputError
from fmjax.schedules import Cosine, Linear, Schedule, inverse_log_snr


class Grid(Protocol):
    """An increasing map of [0, 1] into [0, 1]; the ends are moved to 0 and 1 by `time_grid`."""

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """The times at u in [0, 1], float64, shaped as u."""


@dataclass(frozen=True)
class UniformGrid:
    """Equal steps, t = u."""

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """See `Grid`."""
        return u


@dataclass(frozen=True)
class ShiftedGrid:
    """The timestep shift of SD3 and FLUX, t = u / (u + s (1 - u)): `fmjax.times.shift_time`.

    Above 1 more steps near the noise, below 1 near the data.
    """

    shift: float

    def __post_init__(self):
        check_positive("the shift", self.shift)

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """See `Grid`."""
        return u / (u + self.shift * (1 - u))


@dataclass(frozen=True)
class CosineGrid:
    """Chebyshev's nodes, t = (1 - cos(pi u)) / 2: small steps at both ends."""

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """See `Grid`."""
        return 0.5 * (1 - np.cos(np.pi * u))


@dataclass(frozen=True)
class BetaGrid:
    """Quantiles of the Beta(a, b) distribution, which crowds at both ends for a, b < 1.

        t = (1 - sigma_min) Q(u),  Q the quantile function.

    N steps have their N + 1 nodes at u = i / N. diffusers' ``use_beta_sigmas`` is
    ``"beta_diffusers"`` (`FinalStepGrid`): N nodes down to sigma_min = 0.001, then 0. Source: Lee
    et al., arXiv:2407.12173 (a = b = 0.6).
    """

    a: float = 0.6
    b: float = 0.6
    sigma_min: float = 0.0

    def __post_init__(self):
        check_positive("a of the beta grid", self.a)
        check_positive("b of the beta grid", self.b)
        check_between("sigma_min of the beta grid", self.sigma_min, 0, 1, "[)")

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """See `Grid`."""
        from scipy.special import betaincinv

        return (1 - self.sigma_min) * betaincinv(self.a, self.b, u)


@dataclass(frozen=True)
class KarrasGrid:
    """The rho-grid of Karras et al. on the flow's own noise 1 - t, from 1 to sigma_min.

        1 - t = (1 + u (sigma_min^(1/rho) - 1))^rho

    Many steps near the data. N steps have their N + 1 nodes at u = i / N. diffusers'
    ``use_karras_sigmas`` is ``"karras_diffusers"`` (`FinalStepGrid`): N nodes down to sigma_min,
    then 0. Source: Karras et al., arXiv:2206.00364, eq. (5).
    """

    rho: float = 7.0
    sigma_min: float = 1e-3

    def __post_init__(self):
        check_positive("rho of the Karras grid", self.rho)
        check_between("sigma_min of Karras", self.sigma_min, 0, 1, "()")

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """See `Grid`."""
        return 1 - _power_law(u, 1.0, self.sigma_min, self.rho)


@dataclass(frozen=True)
class EDMGrid:
    """The rho-grid of Karras et al. on the ratio of noise to signal sigma_t / alpha_t, as in EDM.

        sigma_t / alpha_t = (sigma_max^(1/rho) + u (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho

    On the straight path t = 1 / (1 + ratio). N steps have their N + 1 nodes at u = i / N. EDM's own
    nodes, and those of diffusers' ``EDMEulerScheduler``, are ``"edm_diffusers"``
    (`FinalStepGrid`): N nodes down to sigma_min, then 0. Source: Karras et al., arXiv:2206.00364,
    eq. (5).
    """

    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self):
        check_positive("rho of the EDM grid", self.rho)
        _check_ratios("EDM", self.sigma_min, self.sigma_max)

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """See `Grid`."""
        return time_at_ratio(schedule, _power_law(u, self.sigma_max, self.sigma_min, self.rho))


@dataclass(frozen=True)
class ExponentialGrid:
    """Equal steps in the log signal-to-noise ratio, as DPM-Solver takes them (arXiv:2206.00927).

    sigma_t / alpha_t falls geometrically from sigma_max to sigma_min. (diffusers'
    ``use_exponential_sigmas`` is another grid: equal steps in log(1 - t).)
    """

    sigma_min: float = 0.01
    sigma_max: float = 20.0

    def __post_init__(self):
        _check_ratios("exponential", self.sigma_min, self.sigma_max)

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """See `Grid`."""
        ratio = self.sigma_max ** (1 - u) * self.sigma_min**u
        return time_at_ratio(schedule, ratio)


@dataclass(frozen=True)
class SD3Grid:
    """The times of SD3 as diffusers has them by default, where sigma_min is shifted twice.

    With S(r) = s r / (1 + (s - 1) r), the shift of the noise r = 1 - t,

        1 - t = S(1 + u (S(sigma_min) - 1)).

    ``FlowMatchEulerDiscreteScheduler`` takes equal steps down to the shifted sigma_min, and shifts
    them again. ``"sd3"`` is the `FinalStepGrid` of this, which ends with a step to 0. Source: Esser
    et al., arXiv:2403.03206, eq. (23), for the shift.
    """

    shift: float = 3.0
    sigma_min: float = 1e-3

    def __post_init__(self):
        check_positive("the shift", self.shift)
        check_between("sigma_min of SD3", self.sigma_min, 0, 1, "()")

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """See `Grid`."""
        once = self._shifted(self.sigma_min)
        return 1 - self._shifted(1 + u * (once - 1))

    def _shifted(self, noise):
        return self.shift * noise / (1 + (self.shift - 1) * noise)


@dataclass(frozen=True)
class FinalStepGrid:
    """The nodes of diffusers: N at u = i / (N - 1) of a grid, and then t = 1.

    They depend on the number of steps, so they belong to a solve from 0 to 1, or from 1 to 0. One
    step is a step from 0 to 1.
    """

    grid: Grid

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """The grid without its final step; see `Grid`."""
        return self.grid.warp(u, schedule)

    def nodes(self, steps: int, schedule: Schedule) -> Float64[np.ndarray, " {steps+1}"]:
        """The steps + 1 nodes from 0 to 1, float64."""
        return np.array([0.0, *self.warp(np.linspace(0, 1, steps), schedule)[1:], 1.0])


@dataclass(frozen=True)
class CustomGrid:
    """The nodes themselves, strictly increasing or decreasing, in [0, 1].

    Raises:
        InputError: fewer than two nodes, or they are not monotone, not finite, or leave [0, 1].
    """

    times: tuple[float, ...]

    def __post_init__(self):
        times = np.asarray(self.times, np.float64)
        if times.ndim != 1 or len(times) < 2:
            raise InputError(f"a grid is a list of at least two times; got shape {times.shape}.")
        if not np.all((times >= 0) & (times <= 1)):  # NaN too
            raise InputError(f"the times of a grid must lie in [0, 1]; got {_as_text(times)}.")
        steps = np.diff(times)
        if not (np.all(steps > 0) or np.all(steps < 0)):
            raise InputError(
                "the times of a grid must strictly increase, or strictly decrease; "
                f"got {_as_text(times)}."
            )

    def warp(self, u: Float64[np.ndarray, "*u"], schedule: Schedule) -> Float64[np.ndarray, "*u"]:
        """The nodes, linearly interpolated."""
        nodes = np.sort(self.times)
        return np.interp(u, np.linspace(0, 1, len(nodes)), nodes)


GRIDS: dict[str, Callable[[float], Grid]] = {
    "beta": lambda shift: BetaGrid(),
    "beta_diffusers": lambda shift: FinalStepGrid(BetaGrid(sigma_min=1e-3)),
    "cosine": lambda shift: CosineGrid(),
    "edm": lambda shift: EDMGrid(),
    "edm_diffusers": lambda shift: FinalStepGrid(EDMGrid()),
    "exponential": lambda shift: ExponentialGrid(),
    "karras": lambda shift: KarrasGrid(),
    "karras_diffusers": lambda shift: FinalStepGrid(KarrasGrid()),
    "sd3": lambda shift: FinalStepGrid(SD3Grid()),
    "shifted": ShiftedGrid,
    "uniform": lambda shift: UniformGrid(),
}
"""The grids that have a name; ``"shifted"`` is the one that takes a shift."""


def named_grid(name: str, shift: float = 1.0) -> Grid:
    """Returns the grid registered under this name.

    Args:
        name: one of `GRIDS`.
        shift: of ``"shifted"``; ``"uniform"`` with a shift is ``"shifted"``.

    Returns:
        The grid.

    Raises:
        InputError: the name is unknown, or a grid that has no shift is given one.
    """
    check_name("time grid", name, GRIDS)
    if name == "uniform" and shift != 1:
        name = "shifted"
    if name != "shifted" and shift != 1:
        raise InputError(
            f"the {name} grid has its own spacing; leave shift={shift} out, or take grid='uniform'."
        )
    return GRIDS[name](shift)


def time_grid(
    grid: Grid, steps: int, t0: float = 0.0, t1: float = 1.0, schedule: Schedule | None = None
) -> Float64[np.ndarray, " {steps+1}"]:
    """The steps + 1 times of a fixed solve, from t0 to t1 exactly.

    Between other ends than 0 and 1 the steps are spaced as the grid is there; t1 < t0 takes the
    same nodes backwards.

    Args:
        grid: where the steps are.
        steps: how many, at least 1.
        t0: the first time, in [0, 1] unless the grid is `Uniform`.
        t1: the last time, another than t0.
        schedule: of the path, for the grids in its signal-to-noise ratio; None is the straight one.

    Returns:
        float64 (steps + 1,), strictly monotone.

    Raises:
        InputError: t0 or t1 lies outside of the grid; the ends of a custom grid are others, or
            those of a `FinalStepGrid` are not 0 and 1; or two nodes coincide.
    """
    schedule = Linear() if schedule is None else schedule
    if isinstance(grid, CustomGrid):
        return _oriented(np.asarray(grid.times, np.float64), t0, t1)
    if isinstance(grid, FinalStepGrid):
        return _oriented(grid.nodes(steps, schedule), t0, t1)
    if isinstance(grid, UniformGrid):
        return np.linspace(t0, t1, steps + 1)
    if not (0 <= t0 <= 1 and 0 <= t1 <= 1):
        raise InputError(
            f"t0 and t1 must lie in [0, 1] on this grid; got {t0} and {t1}. Take grid='uniform'."
        )
    first, last = (_inverse(grid, t, schedule) for t in (t0, t1))
    # A copy: a grid may answer with its nodes themselves, or with a read-only view of a jax array.
    times = np.array(grid.warp(np.linspace(first, last, steps + 1), schedule), np.float64)
    times[0], times[-1] = t0, t1
    if not np.all(np.diff(times) * (t1 - t0) > 0):
        raise InputError(
            f"{steps} steps from {t0} to {t1} do not fit on {grid}: nodes coincide or turn back. "
            "Take fewer steps, or another grid."
        )
    return times


def time_at_ratio(
    schedule: Schedule, ratio: Float64[np.ndarray, "*ratio"]
) -> Float64[np.ndarray, "*ratio"]:
    """The time at which sigma_t / alpha_t takes a value, float64, computed on the host.

    Args:
        schedule: of the path.
        ratio: values of at least 0, any shape; one that is never taken is answered at the nearest
            end.
    """
    if schedule == Linear():
        return 1 / (1 + ratio)
    with jax.ensure_compile_time_eval(), np.errstate(divide="ignore"):
        times = inverse_log_snr(schedule, jnp.asarray(-2 * np.log(ratio)))
    return np.asarray(times, np.float64)


def fixed_grid(
    steps: int | None,
    grid: str | Grid | Times | None,
    shift: float = 1.0,
    *,
    default: int,
) -> tuple[int, Grid]:
    """How many steps there are on which grid.

    Args:
        steps: how many; None for `default`, or as many as the times of the grid say.
        grid: a name of `GRIDS`, a grid, or the times themselves; None is the uniform one.
        shift: of the uniform grid.
        default: how many steps there are where nobody says.

    Raises:
        InputError: the name is unknown, the shift is not positive or has no grid to shift, the
            number is below 1, or it is not that of the times.
    """
    if grid is None or isinstance(grid, str):
        grid = named_grid("uniform" if grid is None else grid, shift)
    elif shift != 1:
        raise InputError(f"a grid of your own has its own spacing; leave shift={shift} out.")
    elif isinstance(grid, type):
        check_methods("the grid", grid, "warp", such_as="'uniform'")
    elif not hasattr(grid, "warp"):
        grid = CustomGrid(_times_of_grid(grid))
    if isinstance(grid, CustomGrid):
        if steps is not None and check_at_least("steps", steps) != len(grid.times) - 1:
            raise InputError(
                f"the grid has {len(grid.times) - 1} steps, and steps={steps} were asked; "
                "leave steps out."
            )
        steps = len(grid.times) - 1
    steps = check_at_least("steps", default if steps is None else steps)
    return steps, grid  # type: ignore[return-value]  # what is left has a warp


def check_grid_on_manifold(grid: Grid) -> None:
    """Checks that a grid of a solve on a manifold asks nothing of the schedule of an affine path.

    Raises:
        InputError: its times lie in the signal-to-noise ratio, which a manifold has not.
    """
    u = np.linspace(0, 1, 9)
    if not np.array_equal(grid.warp(u, Linear()), grid.warp(u, Cosine())):
        raise InputError(
            f"{grid} lies in the signal-to-noise ratio, which a flow on a manifold has not; take "
            "'uniform', 'cosine' or 'beta', or leave grid out."
        )


def _times_of_grid(times: Times) -> tuple[float, ...]:
    try:
        return tuple(float(t) for t in np.asarray(times, np.float64).ravel())
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the grid must be a name, a grid, or the times themselves; got {times!r:.60}."
        ) from error


def _oriented(
    times: Float64[np.ndarray, " nodes"], t0: float, t1: float
) -> Float64[np.ndarray, " nodes"]:
    for nodes in (times, times[::-1]):
        if nodes[0] == t0 and nodes[-1] == t1:
            return nodes
    raise InputError(
        f"the grid goes from {times[0]:g} to {times[-1]:g}, and the solve from {t0:g} to {t1:g}; "
        "give both the same ends."
    )


def _inverse(grid: Grid, t: float, schedule: Schedule) -> float:
    """u with warp(u) = t, by bisection; the nearest end for a time that the grid never takes."""
    if t in (0.0, 1.0):
        return t
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = float(grid.warp(np.asarray([middle]), schedule)[0]) < t
        low, high = (middle, high) if below else (low, middle)
    return 0.5 * (low + high)


def _power_law(
    u: Float64[np.ndarray, "*u"], start: float, end: float, rho: float
) -> Float64[np.ndarray, "*u"]:
    return (start ** (1 / rho) + u * (end ** (1 / rho) - start ** (1 / rho))) ** rho


def _check_ratios(name: str, low: float, high: float) -> None:
    if not 0 < low < high < math.inf:
        raise InputError(
            f"the {name} grid needs 0 < sigma_min < sigma_max; got {low!r} and {high!r}."
        )


def _as_text(times: np.ndarray) -> str:
    shown = ", ".join(f"{t:g}" for t in times[:6])
    return f"({shown}{', ...' if len(times) > 6 else ''})"
