"""Paths: from a pair (x0, x1) and a time to a point and the velocity it moves with.

====================================  ==========================================================
`AffinePath`                          deterministic, alpha_t x1 + sigma_t x0 of any schedule
`BrownianBridge`, `NoisyStraight`     stochastic, the straight line with noise z around it
`GeodesicPath`                        deterministic, on a manifold, of any schedule
`Joint`                               a path for each part of a pytree
`Path`, `PathSample`                  what a loss asks of a path, and what it gets
`squared`, `PseudoHuber`, `Adaptive`  distances between what is predicted and the target
`sde_drifts`                          the SDEs with the marginals of a flow
====================================  ==========================================================

A stochastic path declares its noise, and takes it as an argument, so that every path is a function
of its arguments.
"""

from fmjax.paths.affine import AffinePath
from fmjax.paths.base import Path, PathSample, manifold_of, schedule_of
from fmjax.paths.distances import Adaptive, Distance, PseudoHuber, squared
from fmjax.paths.drifts import Drifts, sde_drifts
from fmjax.paths.geodesic import GeodesicPath
from fmjax.paths.joint import Joint
from fmjax.paths.stochastic import BrownianBridge, NoisyStraight

__all__ = [
    "Adaptive",
    "AffinePath",
    "BrownianBridge",
    "Distance",
    "Drifts",
    "GeodesicPath",
    "Joint",
    "NoisyStraight",
    "Path",
    "PathSample",
    "PseudoHuber",
    "manifold_of",
    "schedule_of",
    "sde_drifts",
    "squared",
]
