"""Closed forms and checks, for tests of a flow of your own.

`GaussianFlow`, `MixtureFlow` and `FiniteDataFlow` know their velocity, score, density and samples;
they show what a solver, a likelihood or a training loop makes of a flow that is known.
`GaussianMap` knows its flow map, too: the average velocity and divergence of every span. The checks
hold a flow of your own to its own equations. Nothing of it needs a test framework.
"""

from fmjax.testing.convergence import convergence_order
from fmjax.testing.finite import FiniteDataFlow
from fmjax.testing.flow_checks import (
    check_continuity,
    check_density_integrates_to_one,
    check_recovers,
    check_score_matches_density,
    check_velocity_matches_score,
)
from fmjax.testing.gaussian import GaussianFlow
from fmjax.testing.gaussian_map import GaussianMap
from fmjax.testing.mixture import MixtureFlow

__all__ = [
    "FiniteDataFlow",
    "GaussianFlow",
    "GaussianMap",
    "MixtureFlow",
    "check_continuity",
    "check_density_integrates_to_one",
    "check_recovers",
    "check_score_matches_density",
    "check_velocity_matches_score",
    "convergence_order",
]
