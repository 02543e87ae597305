"""Prediction targets: what a network may predict instead of the velocity, and how each converts.

On the path x_t = alpha x1 + sigma x0 every target is a x1 + b x0:

==============  =====================  =========================================================
``"velocity"``  (alpha', sigma')       u_t of the flow
``"x1"``        (1, 0)                 the data
``"x0"``        (0, 1)                 the noise
``"score"``     (0, -1 / sigma)        grad log p_t(x) of standard normal x0
``"v"``         (-sigma, alpha)        v of Salimans and Ho, arXiv:2202.00512: alpha x0 - sigma x1
==============  =====================  =========================================================

A prediction and x_t are two linear equations in x1 and x0, so that one formula converts every pair.
With det = alpha b - sigma a, a target (c, d) follows from a prediction p of (a, b) by

    ((c b - d a) x_t + (alpha d - sigma c) p) / det.

Velocity, x1, x0 and v are then expectations given x_t under any coupling of x0 and x1. A
``"score"`` is -E[x0 | x_t] / sigma, which is grad log p_t only if x0 is standard normal and
independent of x1: not under minibatch transport, after reflow, or from another source.

Where det vanishes at an end (x1 predicted at t = 1, where x_t is x1 and says nothing of x0), the
coefficients are read a little inside instead, at a distance `END` or, if det is smaller than 1e-14
there, at the first of 1e-4, 1e-3, 1e-2 and 0.1 where it is not. Conversions are then finite, in
value and in gradient, at every t, and exact wherever det does not vanish.
"""

from fmjax.predictions.change_path import change_path
from fmjax.predictions.conversions import (
    PREDICTIONS,
    Endpoints,
    as_velocity,
    coefficients,
    convert,
    convert_weight,
    endpoints,
    error_ratio,
    target_of,
)

__all__ = [
    "PREDICTIONS",
    "Endpoints",
    "as_velocity",
    "change_path",
    "coefficients",
    "convert",
    "convert_weight",
    "endpoints",
    "error_ratio",
    "target_of",
]
