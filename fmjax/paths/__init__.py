"""Paths: from a pair (x0, x1) and a time to a point and the velocity it moves with.

===================================  ===========================================================
`AffinePath`                         deterministic, alpha_t x1 + sigma_t x0 of any schedule
`BrownianBridge`, `NoisyStraight`    stochastic, the straight line with noise z around it
`Noisy`                              the source ``(x0, z)`` that stochastic paths take for x0
`Path`, `PathSample`                 what a loss asks of a path, and what it gets
`sde_drifts`                         the SDEs with the marginals of a flow
===================================  ===========================================================

A stochastic path takes its noise with the source point, so that every path is a function of its
arguments.
"""

from fmjax.paths.affine import AffinePath
from fmjax.paths.base import Noisy, Path, PathSample
from fmjax.paths.drifts import Drifts, sde_drifts
from fmjax.paths.stochastic import BrownianBridge, NoisyStraight

__all__ = [
    "AffinePath",
    "BrownianBridge",
    "Drifts",
    "Noisy",
    "NoisyStraight",
    "Path",
    "PathSample",
    "sde_drifts",
]
