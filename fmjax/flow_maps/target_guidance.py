"""Guidance inside the target of a flow map: one evaluation then gives a guided sample.

Guidance of a sampler takes two evaluations a step. A flow map can instead learn the guided flow
itself, at one scale (`FixedGuidance`), or at all of them with the scale an input (`GuidanceInput`).
In both the network's own velocities, with and without its condition, are what guides; the rows of
a batch whose condition was dropped learn the unguided velocity.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, PRNGKeyArray, Shaped

from fmjax.checks import check_between, check_finite_number, check_methods
from fmjax.conditions import check_conditions, null_labels
from fmjax.conventions import Array, Batched, Labels, example_keys, expand
from fmjax.errors import InputError
from fmjax.guidance import Guided
from fmjax.guidance.interval import check_interval
from fmjax.guidance.labels import null_like, stack
from fmjax.sources import NO_NOISE, Law, Shape

Interval = tuple[float, float]
NetworkVelocity = Callable[[Batched, Float[Array, " batch"], Labels], Batched]
"""``velocity(x, t, labels)`` of the frozen network, labels as it takes them."""


class TargetGuidance(Protocol):
    """What a loss of flow maps needs of guidance.

    Attributes:
        noise: laws by name, of what it draws.
    """

    @property
    def noise(self) -> Mapping[str, Law]:
        """The laws of its noise by name."""

    def inputs(self, labels: Labels, noise: Mapping[str, Any]) -> Labels:
        """What the network takes as labels."""

    def taught(self, labels: Labels, noise: Mapping[str, Any]) -> Any:
        """What a teacher takes as labels."""

    def guided(
        self,
        velocity: NetworkVelocity,
        x: Batched,
        s: Float[Array, " batch"],
        v: Batched,
        labels: Labels,
        noise: Mapping[str, Any],
    ) -> Batched:
        """The guided velocity at (x, s), from v, that of the pair (batch, ...)."""


@dataclass(frozen=True)
class FixedGuidance:
    """One scale, built in: the guidance of MeanFlow.

        v_g = omega v + (1 - omega - kappa) u(x, s, s, null) + kappa u(x, s, s, labels)

    where s lies in the interval, else v. At its fixed point u is the flow guided at the scale

        w = omega / (1 - kappa)

    in the convention of this package; `at_scale` turns w round. Source: Geng et al.,
    arXiv:2505.13447, section 4.2 and appendix.

    Args:
        conditions: of the network (`fmjax.conditions`), which have the nulls.
        omega: as above.
        kappa: as above, below 1.
        interval: of s, outside which nothing is guided.

    Raises:
        InputError: omega or kappa give no finite scale, the interval is impossible, or the
            conditions are none.
    """

    conditions: Any
    omega: float = 1.0
    kappa: float = 0.5
    interval: Interval = (0.0, 1.0)
    noise = NO_NOISE

    def __post_init__(self):
        check_finite_number("omega", self.omega)
        check_finite_number("kappa", self.kappa)
        if self.kappa >= 1:
            raise InputError(
                f"kappa must be below 1, so that the scale omega / (1 - kappa) is finite; got "
                f"kappa={self.kappa} with omega={self.omega}. Write FixedGuidance.at_scale(w)."
            )
        _check_guides(self.conditions, self.interval)

    @classmethod
    def at_scale(
        cls, conditions: Any, w: float, kappa: float = 0.5, interval: Interval = (0.0, 1.0)
    ) -> "FixedGuidance":
        """The one whose flow is guided at w: omega = w (1 - kappa)."""
        check_finite_number("the scale w", w)
        return cls(conditions, w * (1 - kappa), kappa, interval)

    @property
    def scale(self) -> float:
        """w = omega / (1 - kappa)."""
        return self.omega / (1 - self.kappa)

    def inputs(self, labels: Labels, noise: Mapping[str, Any]) -> Labels:
        """The labels themselves."""
        return labels

    def taught(self, labels: Labels, noise: Mapping[str, Any]) -> Any:
        """The labels and the scale."""
        return Guided(labels, self.scale)

    def guided(self, velocity, x, s, v, labels, noise) -> Batched:
        """See `TargetGuidance.guided`."""
        branches = stack(null_like(labels, null_labels(self.conditions)), labels)
        null, conditional = jax.vmap(velocity, in_axes=(None, None, 0))(x, s, branches)
        v_g = self.omega * v + (1 - self.omega - self.kappa) * null + self.kappa * conditional
        guides = _inside(s, self.interval) & ~is_dropped(labels, self.conditions)
        return jnp.where(expand(guides, v), v_g, v)


@dataclass(frozen=True)
class PowerLaw:
    """A scale w on [low, high], its density proportional to w^-power.

    Args:
        low: the smallest scale, positive.
        high: the largest, above it.
        power: at least 0; 1 is uniform in log w.

    Raises:
        InputError: a number lies outside its range.
    """

    low: float = 1.0
    high: float = 8.0
    power: float = 1.0

    def __post_init__(self):
        check_between("low of PowerLaw", self.low, 0, 1e6, "(]")
        check_between("high of PowerLaw", self.high, self.low, 1e6, "(]")
        check_between("power of PowerLaw", self.power, 0, 100)

    def sample(
        self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape
    ) -> Float[Array, " batch"]:
        """Scales (batch,); see `fmjax.sources.Law.sample`."""
        u = jax.vmap(jax.random.uniform)(example_keys(key, index))
        if self.power == 1:
            return self.low * jnp.exp(u * jnp.log(self.high / self.low))
        rest = 1 - self.power
        low, high = self.low**rest, self.high**rest
        return (low + u * (high - low)) ** (1 / rest)


@dataclass(frozen=True)
class GuidanceInput:
    """The scale as an input of the network: one network for every w, at one evaluation.

        v_g = v + (1 - 1/w) (u(x, s, s, {labels, w}) - u(x, s, s, {null, 1}))

    where s lies in the interval, else v. At its fixed point u is the flow guided at w. The network
    takes ``{"labels": labels, "guidance": w}``, and is sampled through
    `fmjax.guidance.distilled`. Source: improved MeanFlow, Geng et al., arXiv:2512.02012.

    Args:
        conditions: of the network (`fmjax.conditions`), which have the nulls; None for one without
            labels, which only a teacher can guide.
        scales: the law of w, positive.
        interval: of s, outside which nothing is guided.

    Raises:
        InputError: the interval is impossible, the conditions are none, or the scales no law.
    """

    conditions: Any
    scales: Law = PowerLaw()
    interval: Interval = (0.0, 1.0)

    def __post_init__(self):
        _check_interval(self.interval)
        check_conditions(self.conditions)
        check_methods("the scales", self.scales, "sample", such_as="PowerLaw()")

    @property
    def noise(self) -> Mapping[str, Law]:
        """``"w"``, the scale."""
        return {"w": self.scales}

    def inputs(self, labels: Labels, noise: Mapping[str, Any]) -> Labels:
        """The labels and the scale, as the network takes them."""
        return {"labels": labels, "guidance": noise["w"]}

    def taught(self, labels: Labels, noise: Mapping[str, Any]) -> Any:
        """The labels and the scale, as a guided velocity takes them."""
        return Guided(labels, noise["w"])

    def guided(self, velocity, x, s, v, labels, noise) -> Batched:
        """See `TargetGuidance.guided`."""
        if self.conditions is None:
            return v
        w = noise["w"]
        null = null_like(labels, null_labels(self.conditions))
        branches = stack(self.inputs(null, {"w": jnp.ones_like(w)}), self.inputs(labels, noise))
        without, conditional = jax.vmap(velocity, in_axes=(None, None, 0))(x, s, branches)
        guides = _inside(s, self.interval) & ~is_dropped(labels, self.conditions)
        excess = jnp.where(guides, 1 - 1 / w, 0.0).astype(v.dtype)
        return v + expand(excess, v) * (conditional - without)


def is_dropped(labels: Labels, conditions: Any) -> Bool[Array, " batch"]:
    """Which examples have nothing but nulls for labels, bool (batch,)."""
    null = null_like(labels, null_labels(conditions))

    def same(
        x: Shaped[Array, "batch ..."], null: Shaped[Array, "batch ..."]
    ) -> Bool[Array, " batch"]:
        return jnp.all(jnp.reshape(x == null, (x.shape[0], -1)), axis=1)

    each = jax.tree.leaves(jax.tree.map(same, labels, null))
    return jnp.all(jnp.stack(each), axis=0)


def _check_interval(interval: Interval) -> None:
    check_interval(interval)
    if interval[0] == interval[1]:
        raise InputError(
            "an interval of one time alone guides nothing in training; write (low, high) with "
            f"0 <= low < high <= 1; got {interval}."
        )


def _check_guides(conditions: Any, interval: Interval) -> None:
    _check_interval(interval)
    check_conditions(conditions)
    if conditions is None:
        raise InputError(
            "there is nothing to guide without conditions: give those of the network, such as "
            "ClassIds(10), or leave the guidance out."
        )


def _inside(s: Float[Array, " batch"], interval: Interval) -> Bool[Array, " batch"]:
    return (s >= interval[0]) & (s <= interval[1])
