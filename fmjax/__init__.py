"""Flow matching and rectified flow in JAX.

A flow is learned by drawing a **pair** (`couplings`), a **time** (`times`), a point on a **path**
(`paths`, `schedules`), and regressing on it (`losses`) what the network predicts (`predictions`);
`draws` puts the randomness together. It is used by **guiding** the velocity (`guidance`),
**solving** its ODE or SDE (`samplers`), and reading off a **likelihood** (`likelihood`);
`fmjax.testing` holds a flow to what it should be. The convention is stated once, in
`fmjax.conventions`.

Networks are in `fmjax.models`, the training step in `fmjax.training`; data, checkpoints and runs,
which need more packages than this import, in `fmjax.data`, `fmjax.storage`, `fmjax.run`.
"""

from fmjax import couplings
from fmjax.conventions import ApplyFn, Velocity
from fmjax.couplings import Coupling, NearConditions, SameClass, independent, schroedinger_bridge
from fmjax.draws import Draw, LossArgs, normal
from fmjax.errors import InputError
from fmjax.guidance import (
    Between,
    Guided,
    Projected,
    Rescale,
    ZeroStar,
    autoguidance,
    class_weights,
    classifier_free,
    distilled,
    drop_labels,
    interpolated,
    make_distillation_loss_fn,
    over_time,
    scale_from_excess,
)
from fmjax.likelihood import (
    Exact,
    Hutchinson,
    Likelihood,
    bits_per_dim,
    log_likelihood,
    sample_with_log_prob,
)
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
from fmjax.samplers.fit_source import SourceFit, fit_source
from fmjax.samplers.ode import (
    SOLVERS,
    Solution,
    SolveError,
    SolverSpec,
    check_solution,
    invert,
    nodes,
    solve,
    solver_spec,
)
from fmjax.samplers.sde import SDESpec, sde_spec, solve_sde
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
    TimeDistribution,
    Uniform,
    UShaped,
    importance_weight,
    resolution_shift,
    shift_time,
    sqrt_shift,
)

__version__ = "0.3.0"

__all__ = [
    "SOLVERS",
    "VP",
    "Adaptive",
    "AffinePath",
    "ApplyFn",
    "Beta",
    "Between",
    "BrownianBridge",
    "CosMap",
    "Cosine",
    "Coupling",
    "Custom",
    "Draw",
    "Exact",
    "Guided",
    "Hutchinson",
    "InputError",
    "Likelihood",
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
    "Projected",
    "PseudoHuber",
    "Rescale",
    "SDESpec",
    "SameClass",
    "Schedule",
    "Shifted",
    "Solution",
    "SolveError",
    "SolverSpec",
    "SourceFit",
    "TimeDistribution",
    "UShaped",
    "Uniform",
    "Velocity",
    "ZeroStar",
    "as_velocity",
    "autoguidance",
    "bits_per_dim",
    "change_path",
    "check_solution",
    "class_weights",
    "classifier_free",
    "convert",
    "convert_weight",
    "couplings",
    "distilled",
    "drop_labels",
    "fit_source",
    "importance_weight",
    "independent",
    "interpolated",
    "inverse_log_snr",
    "invert",
    "log_likelihood",
    "log_snr",
    "make_distillation_loss_fn",
    "make_flow_and_score_loss_fn",
    "make_loss_fn",
    "make_per_example_loss_fn",
    "nodes",
    "normal",
    "over_time",
    "resolution_shift",
    "sample_with_log_prob",
    "scale_from_excess",
    "schroedinger_bridge",
    "sde_drifts",
    "sde_spec",
    "shift_time",
    "solve",
    "solve_sde",
    "solver_spec",
    "sqrt_shift",
    "squared",
]
