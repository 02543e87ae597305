"""Couplings: which source point is paired with which data point.

A coupling re-pairs a batch: ``coupling(key, x0, x1, labels) -> (x0, x1, labels)``.
"""

from fmjax.couplings.base import Coupling, independent

__all__ = ["Coupling", "independent"]
