"""Losses: regress a network on the velocity of a path.

    L(params) = E w(t) D(v(x_t, t, labels) - u_t),   D(e) = ||e||^2 / d

with d the number of features of one example. The loss is a function of its arguments alone: x0, t,
the coupling and the label drop are drawn before it (see `fmjax.draws`). Path, target, prediction,
distance D and weight w are chosen independently of each other.

=======================================  ======================================================
`make_loss_fn`                           the loss of a batch, weighted by w(t)
`make_per_example_loss_fn`               the loss of each example
`make_flow_and_score_loss_fn`            velocity and score together, on a Brownian bridge
`squared`, `PseudoHuber`, `Adaptive`     the distances D
`LossFn`, `Distance`                     what a loss function and a distance are
=======================================  ======================================================
"""

from fmjax.losses.base import LossFn
from fmjax.losses.distances import Adaptive, Distance, PseudoHuber, squared
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
    "Adaptive",
    "Distance",
    "LossFn",
    "PseudoHuber",
    "make_flow_and_score_loss_fn",
    "make_loss_fn",
    "make_per_example_loss_fn",
    "squared",
]
