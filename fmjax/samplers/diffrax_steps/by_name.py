"""The diffrax solver behind each name, and how often and when it evaluates the velocity.

This module imports diffrax, so it is imported late.
"""

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Int

from fmjax.conventions import Array
from fmjax.manifolds import Euclidean, Manifold
from fmjax.samplers.diffrax_steps.multistep import RK4, AdamsBashforth, LogSNRMultistep
from fmjax.samplers.diffrax_steps.on_manifold import GeodesicEuler, GeodesicHeun, Projected
from fmjax.schedules import Schedule


def diffrax_solver(
    name: str, schedule: Schedule, manifold: Manifold | None = None
) -> diffrax.AbstractSolver:
    """The diffrax solver of a name of `fmjax.samplers.ode_solver.SOLVERS`.

    One in geodesics that is asked for the times of its stages alone needs no manifold.

    Args:
        name: of the solver.
        schedule: of the path, for solvers in its signal-to-noise ratio.
        manifold: where its steps are to end; None for any place.
    """
    any_place = Euclidean(1) if manifold is None else manifold
    own = {
        "ab2": lambda: AdamsBashforth(2),
        "ab3": lambda: AdamsBashforth(3),
        "geodesic_euler": lambda: GeodesicEuler(any_place),
        "geodesic_heun": lambda: GeodesicHeun(any_place),
        "dpmpp_2m": lambda: LogSNRMultistep(schedule),
        "rk4": RK4,
        "unipc": lambda: LogSNRMultistep(schedule, "paper"),
        "unipc_interpolated": lambda: LogSNRMultistep(schedule, "interpolated"),
    }
    solver = own[name]() if name in own else getattr(diffrax, name.capitalize())()
    if manifold is None or isinstance(solver, GeodesicEuler | GeodesicHeun):
        return solver
    return Projected(solver, manifold)


def evaluations(
    name: str, solver: diffrax.AbstractSolver, num_steps: Int[Array, ""]
) -> Int[Array, ""]:
    """Evaluations of the velocity behind a number of steps, rejected ones included.

    A first-same-as-last method evaluates once at the start and then one stage fewer per step.
    """
    tableau = getattr(solver, "tableau", None)  # Euler and the multistep methods have none
    stages = 1 if tableau is None else tableau.num_stages
    start = int(name == "ab3") if tableau is None else int(tableau.fsal)
    fsal = 0 if tableau is None else start
    return (start + (stages - fsal) * num_steps).astype(jnp.int32)


def stage_times(
    name: str, solver: diffrax.AbstractSolver, times: Float64[np.ndarray, " nodes"]
) -> Float64[np.ndarray, " times"]:
    """When the velocity is evaluated in fixed steps between these times, in order; float64."""
    tableau = getattr(solver, "tableau", None)
    if tableau is None:
        ahead = times[1:2] if name == "ab3" else times[:0]
        return np.concatenate([times[:1], ahead, times[1:-1]])
    stages = np.concatenate([[0.0], np.asarray(tableau.c, np.float64)])
    first = times[:1] if tableau.fsal else times[:0]
    each = times[:-1, None] + np.diff(times)[:, None] * stages[None, int(tableau.fsal) :]
    return np.concatenate([first, each.ravel()])
