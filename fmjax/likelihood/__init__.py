"""Likelihoods: how dense a flow is at a point, in nats, and in bits per dimension."""

from fmjax.likelihood.density import (
    Likelihood,
    bits_per_dim,
    check_path,
    log_likelihood,
    sample_with_log_prob,
)
from fmjax.likelihood.divergence import (
    Exact,
    Hutchinson,
    Trace,
    draw_probes,
    velocity_and_divergence,
)

__all__ = [
    "Exact",
    "Hutchinson",
    "Likelihood",
    "Trace",
    "bits_per_dim",
    "check_path",
    "draw_probes",
    "log_likelihood",
    "sample_with_log_prob",
    "velocity_and_divergence",
]
