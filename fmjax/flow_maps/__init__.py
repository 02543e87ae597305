"""Flow maps: networks that jump from one time to another in one evaluation.

A flow map is a network of two times, ``apply_fn(params, x, Span(s, t), labels)``, the average
velocity u from s to t:

    X_{s,t}(x) = x + (t - s) u(x, s, t),   u(x, t, t) = v(x, t)

Its diagonal is an ordinary velocity (`fmjax.diagonal`), which every solver, guidance and likelihood
of this package takes. It is trained by one of several identities, `fmjax.flow_maps.identities`,
from data alone or from a trained flow. On a manifold, that of the path, exp and log stand in for
plus and minus: X_{s,t}(x) = exp_x((t - s) u(x, s, t)).

=================================  ============================================================
`make_flow_map_loss_fn`            the loss of an identity
`MeanFlow` ... `Consistency`       the identities
`FixedGuidance`, `GuidanceInput`   guidance inside the target
`DivergenceHead`                   the average divergence, for the likelihood in a few jumps
`few_step_log_likelihood`          that likelihood
`FiniteDifference`                 the derivative of networks without forward mode
`Jumps`                            the solver: a chain of jumps, with noise drawn anew if asked
=================================  ============================================================

The distributions of spans are `fmjax.times.SortedPair` and its neighbours.
"""

from fmjax.flow_maps.derivatives import FiniteDifference
from fmjax.flow_maps.divergence_head import DivergenceHead
from fmjax.flow_maps.identities import Identity, Lagrangian, MeanFlow, Semigroup
from fmjax.flow_maps.interpolated import AlphaFlow, Consistency, ECTSteps, SigmoidDecay
from fmjax.flow_maps.jumps import Jumps
from fmjax.flow_maps.likelihood import few_step_log_likelihood
from fmjax.flow_maps.loss import make_flow_map_loss_fn
from fmjax.flow_maps.target_guidance import FixedGuidance, GuidanceInput, PowerLaw

__all__ = [
    "AlphaFlow",
    "Consistency",
    "DivergenceHead",
    "ECTSteps",
    "FiniteDifference",
    "FixedGuidance",
    "GuidanceInput",
    "Identity",
    "Jumps",
    "Lagrangian",
    "MeanFlow",
    "PowerLaw",
    "Semigroup",
    "SigmoidDecay",
    "few_step_log_likelihood",
    "make_flow_map_loss_fn",
]
