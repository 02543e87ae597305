"""Flow matching and rectified flow in JAX.

A flow is learned by drawing a **pair** (`couplings`), a **time** (`times`), a point on a **path**
(`paths`, `schedules`), and regressing on it (`losses`) what the network predicts (`predictions`);
`draws` puts the randomness together. It is used by **guiding** the velocity (`guidance`) and
**solving** its ODE (`samplers`). The convention is stated once, in `fmjax.conventions`.

Networks are in `fmjax.models`, the training step in `fmjax.training`; data, checkpoints and runs,
which need more packages than this import, in `fmjax.data`, `fmjax.checkpoint` and `fmjax.run`.
"""

from fmjax import couplings
from fmjax.conventions import ApplyFn, Velocity
from fmjax.couplings import Coupling, NearConditions, SameClass, independent, schroedinger_bridge
from fmjax.draws import Draw, LossArgs, normal
from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free, drop_labels, scale_from_excess
from fmjax.losses import (
    Adaptive,
    PseudoHuber,
    make_flow_and_score_loss_fn,
    make_loss_fn,
    make_per_example_loss_fn,
    squared,
)
from fmjax.paths import (
    AffinePath,
    BrownianBridge,
    Noisy,
    NoisyStraight,
    Path,
    PathSample,
    sde_drifts,
)
from fmjax.predictions import as_velocity, change_path, convert, convert_weight
from fmjax.samplers.ode import SOLVERS, Solution, SolverSpec, invert, nodes, solve, solver_spec
from fmjax.schedules import (
    VP,
    Cosine,
    Custom,
    Linear,
    LinearVP,
    Polynomial,
    Schedule,
    inverse_log_snr,
    log_snr,
)
from fmjax.times import (
    Beta,
    CosMap,
    LogitNormal,
    LogNormal,
    Mode,
    Shifted,
    TimeLaw,
    Uniform,
    UShaped,
    importance_weight,
    resolution_shift,
    shift_time,
    sqrt_shift,
)

__version__ = "0.2.0"

__all__ = [
    "SOLVERS",
    "VP",
    "Adaptive",
    "AffinePath",
    "ApplyFn",
    "Beta",
    "BrownianBridge",
    "CosMap",
    "Cosine",
    "Coupling",
    "Custom",
    "Draw",
    "Guided",
    "InputError",
    "Linear",
    "LinearVP",
    "LogNormal",
    "LogitNormal",
    "LossArgs",
    "Mode",
    "NearConditions",
    "Noisy",
    "NoisyStraight",
    "Path",
    "PathSample",
    "Polynomial",
    "PseudoHuber",
    "SameClass",
    "Schedule",
    "Shifted",
    "Solution",
    "SolverSpec",
    "TimeLaw",
    "UShaped",
    "Uniform",
    "Velocity",
    "as_velocity",
    "change_path",
    "classifier_free",
    "convert",
    "convert_weight",
    "couplings",
    "drop_labels",
    "importance_weight",
    "independent",
    "inverse_log_snr",
    "invert",
    "log_snr",
    "make_flow_and_score_loss_fn",
    "make_loss_fn",
    "make_per_example_loss_fn",
    "nodes",
    "normal",
    "resolution_shift",
    "scale_from_excess",
    "schroedinger_bridge",
    "sde_drifts",
    "shift_time",
    "solve",
    "solver_spec",
    "sqrt_shift",
    "squared",
]
