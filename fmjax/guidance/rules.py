"""Rules: how a conditional velocity and a reference make the guided one.

``rule(u_ref, u_cond, w, x, t) -> u``, with velocities (batch, ...) at the points x (batch, ...) and
the times t (batch,), and one scale per example, w (batch,). The reference is the null branch, the
negative condition, or a weaker network. At w = 1 every rule here gives u_cond.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_between, check_positive
from fmjax.conventions import Array, Batched, at_least_float32, expand
from fmjax.errors import InputError
from fmjax.manifolds import Manifold
from fmjax.predictions import convert, error_ratio
from fmjax.schedules import Linear, Schedule
from fmjax.schedules.base import check_schedule

Rule = Callable[
    [Batched, Batched, Float[Array, " batch"], Batched, Float[Array, "batch ..."]], Batched
]
"""``rule(u_ref, u_cond, w, x, t) -> u``."""


def check_rule_on_manifold(rule: Rule, manifold: Manifold) -> None:
    """Checks that a rule makes a tangent vector of tangent vectors, whatever the coordinates are.

    Raises:
        InputError: it measures velocities in the coordinates of flat space, or predicts x1 there.
    """
    if isinstance(rule, Rescale | ZeroStar | Projected):
        raise InputError(
            f"{type(rule).__name__} measures velocities in flat space, and the flow is on "
            f"{manifold}; take rule=linear, which holds for tangent vectors."
        )


def linear(
    u_ref: Batched,
    u_cond: Batched,
    w: Float[Array, " batch"],
    x: Batched,
    t: Float[Array, "batch ..."],
) -> Batched:
    """u = (1 - w) u_ref + w u_cond: exactly u_ref at w = 0 and u_cond at w = 1."""
    w = expand(w, u_cond)
    return (1 - w) * u_ref + w * u_cond


@dataclass(frozen=True)
class Rescale:
    """The linear rule brought back towards the spread of the conditional velocity.

    u = (phi std(u_cond) / std(u_lin) + 1 - phi) u_lin,

    with u_lin of `linear` and the standard deviations over all axes but the batch; where one of
    them is 0 the factor is 1. It is for images: over a handful of features the ratio is wild.
    Source: Lin et al., arXiv:2305.08891, section 3.4.

    Args:
        phi: how far, in [0, 1]; 0 is the linear rule.

    Raises:
        InputError: phi lies outside [0, 1].
    """

    phi: float = 0.7

    def __post_init__(self):
        check_between("phi of Rescale", self.phi, 0, 1)

    def __call__(
        self,
        u_ref: Batched,
        u_cond: Batched,
        w: Float[Array, " batch"],
        x: Batched,
        t: Float[Array, "batch ..."],
    ) -> Batched:
        """The guided velocity, shaped as u_cond."""
        u = linear(u_ref, u_cond, w, x, t)
        wanted, found = (jnp.var(v, axis=_features(v)) for v in (u_cond, u))
        flat = (wanted == 0) | (found == 0)
        ratio = jnp.sqrt(jnp.where(flat, 1.0, wanted) / jnp.where(flat, 1.0, found))
        return expand(self.phi * ratio + (1 - self.phi), u) * u


@dataclass(frozen=True)
class ZeroStar:
    """CFG-Zero*: the reference is first scaled to lie nearest to the conditional velocity.

    u = (1 - w) s u_ref + w u_cond,  s = <u_cond, u_ref> / |u_ref|^2  per example,

    s = 0 where u_ref = 0. At w = 0 it is s u_ref. Its other half, the zero velocity of the first
    steps, is ``zero_until`` of `classifier_free`. Source: Fan et al., arXiv:2503.18886.
    """

    def __call__(
        self,
        u_ref: Batched,
        u_cond: Batched,
        w: Float[Array, " batch"],
        x: Batched,
        t: Float[Array, "batch ..."],
    ) -> Batched:
        """The guided velocity, shaped as u_cond."""
        return linear(_projection_factor(u_cond, u_ref) * u_ref, u_cond, w, x, t)


@dataclass(frozen=True)
class Projected:
    """Adaptive projected guidance (APG), in the space of the predicted x1, without momentum.

    With D the prediction of x1 that a velocity implies, and d = D_cond - D_ref, shortened to the
    threshold where it is longer, and split along D_cond and across it,

    D = D_cond + (w - 1) (d_across + eta d_along).

    D is affine in u, so that this is computed, and is exact, at t = 1 too, where D does not depend
    on u. The momentum of the paper is a state between steps, which a velocity has not; it is left
    out. Source: Sadat et al., arXiv:2410.02416.

    Args:
        eta: what is kept of the part along D_cond, which brings oversaturation; 1 keeps it all and
            is, without a threshold, the linear rule.
        norm_threshold: the longest d, as an L2 norm over the features of an example; None for any.
        schedule: the schedule of the path.

    Raises:
        InputError: eta is not a finite number of at least 0, or the threshold is not positive.
    """

    eta: float = 0.0
    norm_threshold: float | None = None
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self):
        check_between("eta of Projected", self.eta, 0, math.inf, "[)")
        check_schedule("the schedule of Projected", self.schedule)
        if self.norm_threshold is not None:
            name = "norm_threshold of Projected"
            check_positive(name, self.norm_threshold, advice="For none write None.")

    def __call__(
        self,
        u_ref: Batched,
        u_cond: Batched,
        w: Float[Array, " batch"],
        x: Batched,
        t: Float[Array, "batch ..."],
    ) -> Batched:
        """The guided velocity, shaped as u_cond."""
        x1 = convert(u_cond, x, t, self.schedule, source="velocity", target="x1")
        difference = u_cond - u_ref
        if self.norm_threshold is not None:
            difference = self._shortened(difference, t, self.norm_threshold)
        along = _projection_factor(difference, x1) * x1
        change = difference - along + self.eta * along
        return u_cond + expand(w - 1, u_cond) * change.astype(u_cond.dtype)

    def _shortened(
        self, difference: Batched, t: Float[Array, "batch ..."], longest: float
    ) -> Batched:
        """The difference of velocities, such that the one of D keeps to the threshold."""
        to_x1 = error_ratio(at_least_float32(t), self.schedule, source="velocity", target="x1")
        square = jnp.square(to_x1) * jnp.sum(jnp.square(difference), axis=_features(difference))
        long = square > longest**2
        factor = longest / jnp.sqrt(jnp.where(long, square, 1.0))
        return expand(jnp.where(long, factor, 1.0), difference) * difference


def _features(u: Array) -> tuple[int, ...]:
    return tuple(range(1, u.ndim))


def _projection_factor(u: Array, direction: Array) -> Array:
    """c per example, ready to broadcast, such that c times the direction is nearest to u.

    It is 0 for a direction of length 0.
    """
    square = jnp.sum(jnp.square(direction), axis=_features(direction))
    product = jnp.sum(u * direction, axis=_features(u))
    nowhere = square == 0
    return expand(jnp.where(nowhere, 0.0, product / jnp.where(nowhere, 1.0, square)), u)
