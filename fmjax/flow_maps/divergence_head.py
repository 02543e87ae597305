"""The average divergence as a second output of a flow map, for the likelihood in a few jumps.

    D(x, s, t) = 1 / (c (t - s)) int_s^t div v(X_{s,r}(x), r) dr

It obeys the identities that the average velocity obeys, with div v in the place of v. Source:
F2D2, arXiv:2512.02636.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_name, check_positive
from fmjax.conventions import Array, Batched
from fmjax.flow_maps.fields import Averages
from fmjax.likelihood.divergence import EXACT_TRACE, Hutchinson, velocity_and_divergence
from fmjax.manifolds import Manifold
from fmjax.sources import STANDARD_NORMAL, Law

TRACES = ("hutchinson", "exact")
_ONE_PROBE = Hutchinson(1, "gaussian")


@dataclass(frozen=True)
class DivergenceHead:
    """How the part ``divergence`` (batch,) of a network's `Output` is trained.

    Args:
        scale: c, by which the divergence is divided, so that the head has values near 1: of the
            order of the number of features.
        weight: of its squared error in the loss.
        trace: of the velocity that it learns from: ``"hutchinson"``, one Gaussian probe for each
            example, drawn anew each step, or ``"exact"``.

    Raises:
        InputError: a number is not positive, or the trace is unknown.
    """

    scale: float = 10.0
    weight: float = 1.0
    trace: str = "hutchinson"

    def __post_init__(self):
        check_positive("scale of the divergence", self.scale)
        check_positive("weight of the divergence", self.weight)
        check_name("trace", self.trace, TRACES)

    @property
    def noise(self) -> Mapping[str, Law]:
        """``"probe"``, where the trace is estimated."""
        return {"probe": STANDARD_NORMAL} if self.trace == "hutchinson" else {}

    def averages(
        self,
        velocity: Callable[[Batched, Float[Array, " batch"]], Batched],
        x: Batched,
        t: Float[Array, " batch"],
        noise: Mapping[str, Any],
        manifold: Manifold | None = None,
    ) -> Averages:
        """The velocity at (x, t) and its divergence over c.

        Args:
            velocity: ``velocity(x, t)``.
            x: points (batch, ...).
            t: times (batch,).
            noise: with ``"probe"`` (batch, ...) where the trace is estimated.
            manifold: where x is; None in flat space.
        """
        exact = self.trace == "exact"
        probes = None if exact else jnp.asarray(noise["probe"], x.dtype)[:, None]
        if probes is not None and manifold is not None:
            # Coordinates in the tangent space: as many of the independent numbers as it has.
            probes = probes.reshape(len(x), 1, -1)[..., : manifold.dim]
        trace = EXACT_TRACE if exact else _ONE_PROBE
        v, columns = velocity_and_divergence(
            lambda x, t, labels: velocity(x, t), x, t, None, trace, probes, manifold
        )
        return {"velocity": v, "divergence": jnp.mean(columns, axis=1) / self.scale}
