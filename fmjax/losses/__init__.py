"""Losses: regress a network on the velocity of a path.

    L(params) = E w(t) D(v(x_t, t, labels), u_t, x_t, t),   D = ||v - u_t||^2 / d

with d the number of features of one example; other distances D are in `fmjax.paths`. The loss is a
function of its arguments alone: x0, t, the coupling, the label drop and noise are drawn before it
(see `fmjax.draws`). Path, target, prediction, distance D and weight w are chosen independently of
each other.

=======================================  ======================================================
`make_loss_fn`                           the loss of a batch, weighted by w(t)
`make_per_example_loss_fn`               the loss of each example
`make_flow_and_score_loss_fn`            velocity and score together, on a Brownian bridge
`declare`                                a loss that needs noise, or averaged parameters
`LossFn`                                 what a loss function is
=======================================  ======================================================
"""

from fmjax.losses.base import LossFn, declare
from fmjax.losses.flow_and_score import make_flow_and_score_loss_fn
from fmjax.losses.regression import (
    STRAIGHT,
    TARGETS,
    make_loss_fn,
    make_per_example_loss_fn,
)

__all__ = [
    "STRAIGHT",
    "TARGETS",
    "LossFn",
    "declare",
    "make_flow_and_score_loss_fn",
    "make_loss_fn",
    "make_per_example_loss_fn",
]
