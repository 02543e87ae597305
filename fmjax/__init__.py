"""Flow matching and rectified flow in JAX.

A flow is learned by drawing a **pair** (`couplings`), a **time** (`times`), a point on a **path**
(`paths`, `schedules`), and regressing a velocity on it (`losses`); `draws` puts the randomness
together. It is used by **guiding** the velocity (`guidance`) and **solving** its ODE (`samplers`).
The convention is stated once, in `fmjax.conventions`.

Networks are in `fmjax.models`, the training step in `fmjax.training`; data, checkpoints and runs,
which need more packages than this import, in `fmjax.data`, `fmjax.checkpoint` and `fmjax.run`.
"""

from fmjax.conventions import ApplyFn, Velocity
from fmjax.couplings import Coupling, independent
from fmjax.draws import Draw, LossArgs, normal
from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free, drop_labels, scale_from_excess
from fmjax.losses import make_loss_fn, make_per_example_loss_fn
from fmjax.paths import AffinePath, PathSample
from fmjax.samplers.ode import SOLVERS, Solution, SolverSpec, solve, solver_spec
from fmjax.schedules import Linear, Schedule
from fmjax.times import LogitNormal, TimeLaw, Uniform

__version__ = "0.1.0"

__all__ = [
    "SOLVERS",
    "AffinePath",
    "ApplyFn",
    "Coupling",
    "Draw",
    "Guided",
    "InputError",
    "Linear",
    "LogitNormal",
    "LossArgs",
    "PathSample",
    "Schedule",
    "Solution",
    "SolverSpec",
    "TimeLaw",
    "Uniform",
    "Velocity",
    "classifier_free",
    "drop_labels",
    "independent",
    "make_loss_fn",
    "make_per_example_loss_fn",
    "normal",
    "scale_from_excess",
    "solve",
    "solver_spec",
]
