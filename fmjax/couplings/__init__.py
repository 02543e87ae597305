"""Couplings: which source point is paired with which data point.

A coupling re-pairs a batch: ``coupling(key, x0, x1, labels) -> (x0, x1, labels)``. Keys go in, no
state is held, and equal arguments make equal couplings, so they may stand in a configuration.

====================================  ==========================================================
`independent`                         as drawn
`exact`                               optimal transport of the batch, a permutation
`sinkhorn`, `schroedinger_bridge`     entropic transport, rounded to a permutation or sampled
`unbalanced`, `partial`               far points are given up; pairs drawn again from the plan
`SameClass`, `NearConditions`         given to any of these as ``conditions=``: the labels count
`in_groups`, `gathered`               where they run: block by block, or over all devices
`chain`                               snapshots in time, lined up through couplings of neighbours
`HostCoupling`, `host_exact`          numpy, for the data pipeline
====================================  ==========================================================
"""

from fmjax.couplings.base import Coupling, independent
from fmjax.couplings.conditions import NearConditions, SameClass
from fmjax.couplings.devices import gathered, in_groups
from fmjax.couplings.entropic import schroedinger_bridge, sinkhorn, unbalanced
from fmjax.couplings.host import HostCoupling, host_exact
from fmjax.couplings.minibatch import MinibatchCoupling, exact
from fmjax.couplings.multi_marginal import chain
from fmjax.couplings.partial import partial

__all__ = [
    "Coupling",
    "HostCoupling",
    "MinibatchCoupling",
    "NearConditions",
    "SameClass",
    "chain",
    "exact",
    "gathered",
    "host_exact",
    "in_groups",
    "independent",
    "partial",
    "schroedinger_bridge",
    "sinkhorn",
    "unbalanced",
]
