"""Samplers: from a velocity and source points to samples.

- `ode`: `solve` and `invert`, by the solvers of `spec`, which is how a solve is described;
- `sde`: `solve_sde`, sampling with noise, and `sde_spec`, how it is described;
- `time_grids`: where fixed steps are taken; `diffusion_coefficients`: how much noise is added;
- `solution`: what every solve gives back; `fit_source`: inverse problems;
- `diffrax_steps`: the steps that diffrax does not have.
"""

from fmjax.samplers.diffusion_coefficients import DIFFUSIONS
from fmjax.samplers.fit_source import SourceFit, fit_source
from fmjax.samplers.ode import evaluation_times, invert, nodes, solve
from fmjax.samplers.sde import METHODS, SDESpec, sde_spec, solve_sde
from fmjax.samplers.solution import Solution, SolveError, check_solution
from fmjax.samplers.spec import SOLVERS, SolverSpec, solver_spec
from fmjax.samplers.time_grids import GRIDS

__all__ = [
    "DIFFUSIONS",
    "GRIDS",
    "METHODS",
    "SOLVERS",
    "SDESpec",
    "Solution",
    "SolveError",
    "SolverSpec",
    "SourceFit",
    "check_solution",
    "evaluation_times",
    "fit_source",
    "invert",
    "nodes",
    "sde_spec",
    "solve",
    "solve_sde",
    "solver_spec",
]
