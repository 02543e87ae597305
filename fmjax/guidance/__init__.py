"""Guidance: from a velocity to a velocity, so that every sampler takes every guidance.

What belongs to one example travels in ``labels``, which the samplers carry, split and map over; a
guided velocity takes `Guided` (labels and scale) where the plain one takes labels.

=====================================  ========================================================
`classifier_free`                      (1 - w) u_null + w u_cond, in one call of the network
`guide_each`, `guide_in_turn`          a scale for each condition: alone, or added to those before
`autoguidance`                         (1 - w) u_weak + w u, a weaker network in place of null
`interpolated`, `over_time`            between two conditions; changing over time
`class_weights`, `spherical_weights`   between two classes in the embedding
`distilled`                            guidance learned by a network, w one of its inputs
`make_distillation_loss_fn`            how it learns it
`linear`, `Rescale`, `ZeroStar`        how the two velocities are put together: the ``rule``
`Projected`                            the rule of APG
`SCALE_SCHEDULES`                      how w depends on t
`GuidanceInterval`, `network_calls`    when nothing is computed, and what the rest costs
`drop_labels`                          training without a condition now and then
=====================================  ========================================================
"""

from fmjax.guidance.branches import autoguidance, classifier_free
from fmjax.guidance.by_name import guide_each, guide_in_turn
from fmjax.guidance.distillation import distilled, make_distillation_loss_fn
from fmjax.guidance.interpolation import (
    Between,
    class_weights,
    interpolated,
    over_time,
    slerp,
    spherical_weights,
)
from fmjax.guidance.interval import GuidanceInterval, network_calls
from fmjax.guidance.labels import Guided, Nested, drop_labels, null_like, scale_from_excess
from fmjax.guidance.rules import Projected, Rescale, Rule, ZeroStar, linear
from fmjax.guidance.scale_schedules import SCALE_SCHEDULES

__all__ = [
    "SCALE_SCHEDULES",
    "Between",
    "GuidanceInterval",
    "Guided",
    "Nested",
    "Projected",
    "Rescale",
    "Rule",
    "ZeroStar",
    "autoguidance",
    "class_weights",
    "classifier_free",
    "distilled",
    "drop_labels",
    "guide_each",
    "guide_in_turn",
    "interpolated",
    "linear",
    "make_distillation_loss_fn",
    "network_calls",
    "null_like",
    "over_time",
    "scale_from_excess",
    "slerp",
    "spherical_weights",
]
