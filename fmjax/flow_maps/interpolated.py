"""Identities that compare a jump with one that starts a little later: alpha-Flow, consistency.

    u(x, s, t) = alpha v + (1 - alpha) u(x_m, m, t),   m = s + alpha (t - s)

At alpha = 1 this is flow matching along the line of the pair, as alpha falls to 0 it becomes
`MeanFlow`; neither needs a derivative while alpha > 0. With v of the pair and 0 < alpha < 1 the
fixed point is biased, by an amount that vanishes with alpha.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_returned, is_concrete
from fmjax.checks import check_at_least, check_between, check_methods, check_positive
from fmjax.conventions import Array, Batched, Span
from fmjax.errors import InputError
from fmjax.flow_maps.curved import joined
from fmjax.flow_maps.derivatives import Derivative
from fmjax.flow_maps.fields import Averages, Fields, Share, Sides, Step, moved
from fmjax.flow_maps.identities import MeanFlow
from fmjax.sources import NO_NOISE


@dataclass(frozen=True)
class SigmoidDecay:
    """A number that falls from 1 to 0 during training, along a sigmoid.

        alpha(k) = 1 - sigmoid(gamma (k - (begin + end) / 2) / (end - begin))

    with values within `clamp` of 1 and 0 set to these. Source: arXiv:2510.20771.

    Args:
        begin: the step at which the fall begins.
        end: the step at which it ends, after begin.
        gamma: its steepness.
        clamp: in [0, 0.5).

    Raises:
        InputError: a number lies outside its range.
    """

    begin: int
    end: int
    gamma: float = 25.0
    clamp: float = 0.005

    def __post_init__(self):
        check_at_least("begin of SigmoidDecay", self.begin, 0)
        check_at_least("end of SigmoidDecay", self.end, self.begin + 1)
        check_positive("gamma of SigmoidDecay", self.gamma)
        check_between("clamp of SigmoidDecay", self.clamp, 0, 0.5, "[)")

    def __call__(self, step: Step) -> Float[Array, ""]:
        """alpha at a step, float32 (); 0 at the end of training, where step is None."""
        if step is None:
            return jnp.zeros(())
        middle, length = (self.begin + self.end) / 2, self.end - self.begin
        alpha = 1 - jax.nn.sigmoid(self.gamma * (step - middle) / length)
        alpha = jnp.where(alpha > 1 - self.clamp, 1.0, alpha)
        return jnp.where(alpha < self.clamp, 0.0, alpha)


@dataclass(frozen=True)
class AlphaFlow:
    """alpha-Flow: from flow matching to MeanFlow, with one number that may fall during training.

        alpha^-1 |u(x, s, t) - [alpha v + (1 - alpha) u(x + (m - s) v, m, t)]|^2

    Source: Zhang et al., arXiv:2510.20771.

    Args:
        alpha: in [0, 1]; or ``alpha(step) -> float32 ()``, such as `SigmoidDecay`, which also gets
            None for the end of training. At 0 the identity is `MeanFlow`.
        derivative: of `MeanFlow`, once alpha is 0.

    Raises:
        InputError: alpha lies outside [0, 1], or is a class; when called, it gives no number.
    """

    alpha: float | Callable[[Step], Float[Array, ""]] = 0.5
    derivative: Derivative = "jvp"
    noise = NO_NOISE

    def __post_init__(self):
        MeanFlow(derivative=self.derivative)
        if callable(self.alpha):
            check_methods("alpha of AlphaFlow", self.alpha, such_as="SigmoidDecay(0, 1000)")
        else:
            check_between("alpha of AlphaFlow", self.alpha, 0, 1)

    @property
    def uses_step(self) -> bool:
        """Whether alpha changes during training."""
        return callable(self.alpha)

    def sides(self, fields, x, span, v, noise, step) -> Sides:
        """See `fmjax.flow_maps.identities.Identity.sides`."""
        limit = MeanFlow(derivative=self.derivative)
        if not callable(self.alpha):
            if self.alpha == 0:
                return limit.sides(fields, x, span, v, noise, step)
            goal = _later(fields, x, span, v, self.alpha)
            return Sides(fields.live(x, span), goal, 1 / self.alpha)
        alpha = self.alpha(step)
        check_returned("alpha", alpha, "one number", jax.ShapeDtypeStruct((), "float32"))
        alpha = jnp.asarray(alpha, span.s.dtype)
        goal = jax.lax.cond(
            alpha > 0,
            lambda: _later(fields, x, span, v, alpha),
            lambda: limit.sides(fields, x, span, v, noise, step).goal,
        )
        return Sides(fields.live(x, span), goal, jnp.where(alpha > 0, 1 / alpha, 1.0))


@dataclass(frozen=True)
class ECTSteps:
    """How near the second point of easy consistency tuning is, in terms of the noise level.

        r = sigma (1 - q^-(stage + 1) (1 + k sigmoid(-b sigma))),   stage = floor(step / double)

    with sigma = (1 - s) / s the noise level of the straight path at s, and r that of the second
    point. Source: Geng et al., arXiv:2406.14548.

    Args:
        q: by which the gap shrinks from stage to stage, above 1.
        k: how much wider it is at low noise.
        b: where that begins.
        double: steps of a stage.
        stages: the last stage, which `step` None stands for.

    Raises:
        InputError: a number lies outside its range.
    """

    q: float = 2.0
    k: float = 8.0
    b: float = 1.0
    double: int = 10_000
    stages: int = 8

    def __post_init__(self):
        check_between("q of ECTSteps", self.q, 1, 1e6, "(]")
        check_between("k of ECTSteps", self.k, 0, 1e6)
        check_positive("b of ECTSteps", self.b)
        check_at_least("double of ECTSteps", self.double)
        check_at_least("stages of ECTSteps", self.stages, 0)

    def __call__(self, s: Float[Array, " batch"], step: Step) -> Float[Array, " batch"]:
        """The time of the second point (batch,), in [s, 1]."""
        stage = self.stages if step is None else jnp.minimum(step // self.double, self.stages)
        noise = (1 - s) / jnp.maximum(s, 1e-6)
        gap = self.q ** -(stage + 1.0) * (1 + self.k * jax.nn.sigmoid(-self.b * noise))
        ratio = jnp.maximum(1 - gap, 0.0)
        return s / (s + ratio * (1 - s))


@dataclass(frozen=True)
class Consistency:
    """Consistency training: jumps to the data from two near points of one path agree.

        X_{s,1}(x_s) = X_{m,1}(x_m),   x_m = x_s + (m - s) v,   s < m <= 1

    as `AlphaFlow` on spans that end at t = 1 (`fmjax.times.ToData`), with alpha = (m - s)/(1 - s).
    On the straight path x_m has the noise and the data of x_s. With a teacher this is consistency
    distillation by an Euler step. The limit of small gaps is `MeanFlow` on the same spans. Sources:
    Song et al., arXiv:2303.01469; Geng et al., arXiv:2406.14548.

    Args:
        steps: ``steps(s, step) -> m`` (batch,), such as `ECTSteps`; or the share alpha itself, the
            same at all times, in (0, 1].

    Raises:
        InputError: the share lies outside (0, 1], or is a class; called with spans that do not end
            at 1, or when the function does not give one time for each.
    """

    steps: float | Callable[[Float[Array, " batch"], Step], Float[Array, " batch"]] = field(
        default_factory=ECTSteps
    )
    noise = NO_NOISE

    def __post_init__(self):
        if callable(self.steps):
            check_methods("steps of Consistency", self.steps, such_as="ECTSteps()")
        else:
            check_between("steps of Consistency", self.steps, 0, 1, "(]")

    @property
    def uses_step(self) -> bool:
        """Whether the gap changes during training."""
        return callable(self.steps)

    def sides(self, fields, x, span, v, noise, step) -> Sides:
        """See `fmjax.flow_maps.identities.Identity.sides`."""
        s, t = span
        _check_ends_at_data(span)
        if callable(self.steps):
            m = self.steps(s, step)
            check_returned("steps", m, "s", s)
            alpha = jnp.clip((m - s) / jnp.maximum(t - s, 1e-6), 1e-4, 1.0)
        else:
            alpha = jnp.full_like(s, self.steps)
        return Sides(fields.live(x, span), _later(fields, x, span, v, alpha), 1 / alpha)


def _later(fields: Fields, x: Batched, span: Span, v: Averages, alpha: Share) -> Averages:
    """alpha v + (1 - alpha) u(x_m, m, t), from a point a share alpha of the way later."""
    s, t = span
    m = s + alpha * (t - s)
    middle = moved(x, m - s, v, fields.manifold)
    rest = fields.frozen(middle, Span(m, t))
    return joined(x, middle, span, (alpha, 1 - alpha), (v, rest), fields.manifold)


def _check_ends_at_data(span: Span) -> None:
    if not (is_concrete(span.s) and is_concrete(span.t)):
        return
    with jax.ensure_compile_time_eval():
        wrong = bool(jnp.any((span.t != 1) & (span.t != span.s)))
    if wrong:
        raise InputError(
            "Consistency takes spans that end at the data, t = 1, or on the diagonal; draw them "
            "by times.ToData(), or take AlphaFlow for spans that end anywhere."
        )
