"""Samplers: from a velocity and source points to samples.

- `ode`: `solve` and `invert`; `sde`: `solve_sde`, sampling with noise;
- `base`: what every solver is; `ode_solver` and `sde_solver`: those of this package, their names
  and `solver_spec` and `sde_spec`, which make them; `ode_integration` and `sde_integration`: how
  they call diffrax; `diffrax_steps`: the steps that diffrax does not have;
- `fixed_steps`: the steps of a solver of your own;
- `time_grids`: where fixed steps are taken; `diffusion_coefficients`: how much noise is added;
- `solution`: what every solve gives back; `fit_source`: inverse problems.
"""

from fmjax.samplers.base import Solver
from fmjax.samplers.diffusion_coefficients import DIFFUSIONS
from fmjax.samplers.fit_source import SourceFit, fit_source
from fmjax.samplers.fixed_steps import take_steps
from fmjax.samplers.ode import invert, solve
from fmjax.samplers.ode_solver import SOLVERS, ODESolver, solver_spec
from fmjax.samplers.sde import solve_sde
from fmjax.samplers.sde_solver import METHODS, SDESolver, sde_spec
from fmjax.samplers.solution import Solution, SolveError, check_solution
from fmjax.samplers.time_grids import GRIDS

__all__ = [
    "DIFFUSIONS",
    "GRIDS",
    "METHODS",
    "SOLVERS",
    "ODESolver",
    "SDESolver",
    "Solution",
    "SolveError",
    "Solver",
    "SourceFit",
    "check_solution",
    "fit_source",
    "invert",
    "sde_spec",
    "solve",
    "solve_sde",
    "solver_spec",
    "take_steps",
]
