"""Time distributions: how t is drawn in training, and how it is shifted.

A distribution is its quantile function: ``quantile(u)`` turns u uniform on [0, 1) into t, so that
any way of drawing u (independent, stratified, low-discrepancy) serves all of them. Its density
gives the weight that undoes the choice (`importance_weight`).

Of two times, for networks that know both, the distributions are in `fmjax.times.spans`.

Here t = 1 is the data. SD3 (arXiv:2403.03206) and FLUX count the other way, tau = 1 - t; their
distributions and their shift are converted in this package and nowhere else.
"""

from fmjax.times.base import TimeDistribution, stratified
from fmjax.times.distributions import (
    Beta,
    CosMap,
    LogitNormal,
    LogNormal,
    Mode,
    StepStarts,
    Uniform,
    UShaped,
    importance_weight,
)
from fmjax.times.per_element import PerElement
from fmjax.times.shift import Shifted, resolution_shift, shift_time, sqrt_shift
from fmjax.times.spans import (
    AnyPair,
    DyadicGrid,
    FromSource,
    SortedPair,
    SpanDistribution,
    ToData,
    WithDiagonal,
)

__all__ = [
    "AnyPair",
    "Beta",
    "CosMap",
    "DyadicGrid",
    "FromSource",
    "LogNormal",
    "LogitNormal",
    "Mode",
    "PerElement",
    "Shifted",
    "SortedPair",
    "SpanDistribution",
    "StepStarts",
    "TimeDistribution",
    "ToData",
    "UShaped",
    "Uniform",
    "WithDiagonal",
    "importance_weight",
    "resolution_shift",
    "shift_time",
    "sqrt_shift",
    "stratified",
]
