"""Flow matching and rectified flow in JAX.

A flow is learned by drawing a **pair** (`couplings`) from a **source** (`sources`) and the data, a
**time** (`times`), a point on a **path** (`paths`, `schedules`), and regressing on it (`losses`)
what the network predicts (`predictions`), under **conditions** (`conditions`); `draws` puts the
randomness together. It is used by **guiding** the velocity (`guidance`),
**solving** its ODE or SDE (`samplers`), and reading off a **likelihood** (`likelihood`);
`fmjax.testing` holds a flow to what it should be. The convention is stated once, in
`fmjax.conventions`.

The names that most programs need are here; each of these packages has the others of its kind.
Networks are in `fmjax.models`, the training step in `fmjax.training`, distances between sets of
samples in `fmjax.metrics`; data, checkpoints and commands, which need more packages than this
import, in `fmjax.data`, `fmjax.storage` and `fmjax.run`.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from fmjax import (
    conditions,
    conventions,
    couplings,
    draws,
    guidance,
    likelihood,
    losses,
    paths,
    predictions,
    samplers,
    schedules,
    sources,
    times,
)
from fmjax.conditions import ClassIds, Vector
from fmjax.conventions import ApplyFn, Output, Span, Velocity, diagonal
from fmjax.draws import Draw, LossArgs
from fmjax.errors import InputError
from fmjax.guidance import Guided, autoguidance, classifier_free, scale_from_excess
from fmjax.likelihood import Exact, Hutchinson, bits_per_dim, log_likelihood, sample_with_log_prob
from fmjax.losses import make_loss_fn
from fmjax.paths import AffinePath, BrownianBridge, GeodesicPath, Joint, NoisyStraight
from fmjax.predictions import as_velocity, convert
from fmjax.samplers import (
    Solution,
    SolveError,
    check_solution,
    invert,
    sde_spec,
    solve,
    solve_sde,
    solver_spec,
)
from fmjax.sources import StandardNormal

if TYPE_CHECKING:  # what `__getattr__` gives, with its types
    from fmjax import (  # noqa: F401
        discrete,
        flow_maps,
        manifolds,
        metrics,
        models,
        testing,
        training,
    )

__version__ = "0.3.0"

_WHEN_USED = ("discrete", "flow_maps", "manifolds", "metrics", "models", "testing", "training")

__all__ = [
    "AffinePath",
    "ApplyFn",
    "BrownianBridge",
    "ClassIds",
    "Draw",
    "Exact",
    "GeodesicPath",
    "Guided",
    "Hutchinson",
    "InputError",
    "Joint",
    "LossArgs",
    "NoisyStraight",
    "Output",
    "Solution",
    "SolveError",
    "Span",
    "StandardNormal",
    "Vector",
    "Velocity",
    "as_velocity",
    "autoguidance",
    "bits_per_dim",
    "check_solution",
    "classifier_free",
    "conditions",
    "conventions",
    "convert",
    "couplings",
    "diagonal",
    "draws",
    "guidance",
    "invert",
    "likelihood",
    "log_likelihood",
    "losses",
    "make_loss_fn",
    "paths",
    "predictions",
    "sample_with_log_prob",
    "samplers",
    "scale_from_excess",
    "schedules",
    "sde_spec",
    "solve",
    "solve_sde",
    "solver_spec",
    "sources",
    "times",
]


def __getattr__(name: str) -> ModuleType:
    """Imports a package that few programs need when it is first used."""
    if name in _WHEN_USED:
        return importlib.import_module(f"fmjax.{name}")
    raise AttributeError(f"module 'fmjax' has no attribute {name!r}")
