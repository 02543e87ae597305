"""A network that is the closed form of a flow map between Gaussians, and a little else."""

import jax.numpy as jnp
import numpy as np

from fmjax import Output, Span
from fmjax.conventions import expand
from fmjax.schedules import Cosine, Linear
from fmjax.testing import GaussianMap

MEANS = np.array([0.5, -1.0]), np.array([2.0, 1.0])
STDS = 1.3, 0.4
FLOWS = {
    "linear": GaussianMap(MEANS[0], STDS[0], MEANS[1], STDS[1], Linear()),
    "cosine": GaussianMap(MEANS[0], STDS[0], MEANS[1], STDS[1], Cosine()),
}
EXACT = {"shift": 0.0, "stretch": 0.0, "later": 0.0, "curve": 0.0, "divergence": 0.0}
"""Parameters at which the network is the closed form; each adds something else."""


def network(flow, *, divergence=None, head=False):
    """``apply_fn(params, x, Span(s, t), labels)``: u, perhaps with D / divergence and a head."""

    def apply_fn(params, x, span, labels):
        length = expand(span.t - span.s, x)
        u = (
            flow.average_velocity(x, span)
            + params["shift"]
            + params["stretch"] * x
            + params["later"] * length * jnp.sin(x)
            + params["curve"] * length**2
        )
        parts = {}
        if divergence is not None:
            wrong = params["divergence"] * (1 + span.t - span.s)
            parts["divergence"] = flow.average_divergence(x, span) / divergence + wrong
        if head:
            parts["diagonal"] = flow.velocity(x, span.s)
        return Output(velocity=u, **parts) if parts else u

    return apply_fn


def spans(n, seed=0, *, ordered=True, shortest=0.1, dtype=np.float32):
    """n spans no shorter than `shortest`."""
    rng = np.random.default_rng(seed)
    s, t = rng.uniform(size=(2, 8 * n)).astype(dtype)
    s, t = (np.minimum(s, t), np.maximum(s, t)) if ordered else (s, t)
    long = np.abs(t - s) >= shortest
    return Span(jnp.asarray(s[long][:n]), jnp.asarray(t[long][:n]))


def pairs(n, seed=1, dtype=np.float32):
    """Independent x0 and x1 of the two Gaussians."""
    rng = np.random.default_rng(seed)
    points = [mean + std * rng.normal(size=(n, 2)) for mean, std in zip(MEANS, STDS, strict=True)]
    return tuple(jnp.asarray(x.astype(dtype)) for x in points)
