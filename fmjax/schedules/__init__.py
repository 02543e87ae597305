"""Schedules: the pair (alpha_t, sigma_t) of an affine path, with its derivatives.

A schedule is any hashable object, such as a frozen dataclass, with the four methods of `Schedule`;
t may have any shape. It may also have ``t_at_log_snr(value)``, the inverse of `log_snr`, which
`inverse_log_snr` then calls.

Where sigma_t leaves its end like a square root (`VP`, `DiscreteVP`, `LinearVP`), the true
derivative at t = 1 is infinite. There sigma_t itself stays exact and its derivative is read at most
at t = 1 - `END`: it is exact up to that time and constant after it. Differentiating sigma_t by jax
gives the same.
"""

from fmjax.schedules.base import (
    END,
    Schedule,
    clamp,
    inverse_log_snr,
    log_snr,
    with_slope,
)
from fmjax.schedules.closed_form import VP, Cosine, Linear, LinearVP, Polynomial
from fmjax.schedules.custom import Custom
from fmjax.schedules.discrete import DiscreteVP, at_steps

__all__ = [
    "END",
    "VP",
    "Cosine",
    "Custom",
    "DiscreteVP",
    "Linear",
    "LinearVP",
    "Polynomial",
    "Schedule",
    "at_steps",
    "clamp",
    "inverse_log_snr",
    "log_snr",
    "with_slope",
]
