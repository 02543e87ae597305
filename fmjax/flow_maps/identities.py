"""The identities of a flow map, each as what a network says and what it should have said.

With X_{s,t}(x) = x + (t - s) u(x, s, t) and v(x, t) = u(x, t, t), in the direction of time of this
package (0 is noise, 1 is data):

==============  ==========================================================  ====================
`MeanFlow`      u = v + (t - s) du/ds along the flow (Eulerian)             arXiv:2505.13447
`Lagrangian`    u + (t - s) du/dt = v(X_{s,t}, t)                           arXiv:2505.18825
`Semigroup`     X_{s,t} = X_{m,t} o X_{s,m}                                 arXiv:2410.12557
`AlphaFlow`     between the line of the pair and MeanFlow                   arXiv:2510.20771
`Consistency`   X_{s,1} of two near points of one path agree                arXiv:2303.01469
==============  ==========================================================  ====================

The last two are in `fmjax.flow_maps.interpolated`. On a manifold, that of the path, exp and log
stand in for plus and minus, as `fmjax.flow_maps.curved` says. An identity of your own is a frozen
dataclass with the members of `Identity`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.checks import check_at_least, check_between, check_name, check_positive
from fmjax.conventions import Array, Batched, Span, example_keys, expand
from fmjax.flow_maps.curved import at_the_end, at_the_start, joined
from fmjax.flow_maps.derivatives import Derivative, check_derivative, directional
from fmjax.flow_maps.fields import Averages, Fields, Share, Sides, Step, combined, moved
from fmjax.manifolds import Manifold
from fmjax.sources import NO_NOISE, Law, Shape

Tangent = Literal["pair", "network"]
TANGENTS: tuple[Tangent, ...] = get_args(Tangent)


class Identity(Protocol):
    """What a loss of flow maps needs of an identity.

    Attributes:
        noise: laws by name, of what it draws beside the pair.
        uses_step: whether it changes during training.
    """

    @property
    def noise(self) -> Mapping[str, Law]:
        """The laws of its noise by name."""

    @property
    def uses_step(self) -> bool:
        """Whether it depends on the number of the training step."""

    def sides(
        self,
        fields: Fields,
        x: Batched,
        span: Span,
        v: Averages,
        noise: Mapping[str, Any],
        step: Step,
    ) -> Sides:
        """Both sides at a point.

        Args:
            fields: of the network, and of the teacher where there is one.
            x: points at s (batch, ...).
            span: s and t, each (batch,).
            v: the velocity at (x, s): of the pair, guided where asked, or of the teacher; with the
                divergence there where the network has that head.
            noise: what was drawn of its laws.
            step: the number of the training step, int32 (); None stands for the end.
        """


@dataclass(frozen=True)
class MeanFlow:
    """The Eulerian identity: where a jump leads does not change along the flow.

        u(x, s, t) = v(x, s) + (t - s) du/ds,   du/ds = d_s u + (grad_x u) v

    The velocity of the pair stands for v, of which it is an unbiased estimate. Sources: MeanFlow,
    Geng et al., arXiv:2505.13447, eq. (6) (its time runs backwards); with ``tangent="network"``
    improved MeanFlow, arXiv:2512.02012, whose target depends on x0 and x1 only through x; with a
    teacher Eulerian distillation, arXiv:2406.07507; on spans that end at 1 a consistency model in
    continuous time, arXiv:2410.11081.

    Args:
        tangent: the v in du/ds: of the ``"pair"`` (or the teacher), or what the ``"network"``
            itself predicts, by the second head of its `Output` (``diagonal=``) or else by its
            diagonal.
        derivative: ``"jvp"``, or ``"fd"`` for networks without a forward-mode derivative.
        normalise: c of arXiv:2410.11081, which divides the error g that the gradient follows by
            ``|g| + c``, |g| the root mean square over the features; None leaves it.
        warmup: steps over which the term (t - s) du/ds grows from 0 to what it is, as in
            arXiv:2410.11081; 0 for none.

    Raises:
        InputError: a name is unknown, or a number lies outside its range.
    """

    tangent: Tangent = "pair"
    derivative: Derivative = "jvp"
    normalise: float | None = None
    warmup: int = 0
    noise = NO_NOISE

    def __post_init__(self):
        check_name("tangent", self.tangent, TANGENTS)
        check_derivative(self.derivative)
        check_at_least("warmup of MeanFlow", self.warmup, 0)
        if self.normalise is not None:
            check_positive("normalise of MeanFlow", self.normalise)

    @property
    def uses_step(self) -> bool:
        """Whether the derivative grows over the first steps."""
        return self.warmup > 0

    def sides(self, fields, x, span, v, noise, step) -> Sides:
        """See `Identity.sides`."""
        s, t = span
        along = v["velocity"] if self.tangent == "pair" else fields.predicted(x, s)
        along = jax.lax.stop_gradient(jnp.asarray(along, x.dtype))
        slope = directional(
            lambda x, s: fields.frozen.smooth(x, Span(s, t)),
            (x, s),
            (along, jnp.ones_like(s)),
            s,
            self.derivative,
        )
        if fields.manifold is not None:
            v, slope = self._curved(fields, fields.manifold, x, span, v, slope)
        goal = combined(1.0, v, (t - s) * self._share(step), slope)
        predicted = fields.live(x, span)
        return Sides(predicted, self._nearer(predicted, goal, x, fields.manifold))

    def _curved(
        self,
        fields: Fields,
        manifold: Manifold,
        x: Batched,
        span: Span,
        v: Averages,
        slope: Averages,
    ) -> tuple[Averages, Averages]:
        """The velocity as the end of the jump sees it, and du/ds, both tangent vectors at x."""
        average = fields.frozen(x, span)
        seen = at_the_start(x, span.t - span.s, average, v["velocity"], manifold)
        tangent = manifold.to_tangent(x, slope["velocity"])
        return v | {"velocity": seen}, slope | {"velocity": tangent}

    def _share(self, step: Step) -> Share:
        if not self.warmup or step is None:
            return 1.0
        return jnp.minimum((step + 1) / self.warmup, 1.0)

    def _nearer(
        self, predicted: Averages, goal: Averages, x: Batched, manifold: Manifold | None
    ) -> Averages:
        """The goal, moved so near that the error is normalised."""
        if (least := self.normalise) is None:
            return goal

        def one(name: str) -> Float[Array, "batch ..."]:
            u, g = predicted[name], goal[name]
            error = u - g
            if manifold is None or name != "velocity":
                axes = tuple(range(1, g.ndim))
                size = jnp.sqrt(jnp.mean(jnp.square(error), axis=axes, keepdims=True))
            else:
                square = manifold.inner(x, error, error) / manifold.dim
                size = expand(jnp.sqrt(square.reshape(len(x), -1).mean(axis=1)), error)
            return u - error / (size + least)

        return {name: one(name) for name in goal}


@dataclass(frozen=True)
class Lagrangian:
    """The Lagrangian identity: the end of a jump moves with the velocity there.

        u(x, s, t) + (t - s) du/dt = v(X_{s,t}(x), t)

    The derivative is in t alone, and gradients flow through it. It is the most stable of the
    identities with a derivative. Sources: Boffi et al., arXiv:2505.18825 (LSD), and with a teacher
    arXiv:2406.07507 (LMD); with averaged parameters on the right-hand side terminal velocity
    matching, arXiv:2511.19797.

    Args:
        derivative: as in `MeanFlow`.
    """

    derivative: Derivative = "jvp"
    noise = NO_NOISE
    uses_step: ClassVar[bool] = False

    def __post_init__(self):
        check_derivative(self.derivative)

    def sides(self, fields, x, span, v, noise, step) -> Sides:
        """See `Identity.sides`."""
        s, t = span
        average = fields.live(x, span)
        slope = directional(
            lambda t: fields.live.smooth(x, Span(s, t)),
            (t,),
            (jnp.ones_like(t),),
            t,
            self.derivative,
        )
        predicted = combined(1.0, average, t - s, slope)
        if fields.manifold is None:
            there = jax.lax.stop_gradient(moved(x, t - s, average))
            return Sides(predicted, fields.velocity(there, t))
        rate = predicted["velocity"]
        there, velocity = at_the_end(x, t - s, average, rate, fields.manifold)
        moving = predicted | {"velocity": velocity}
        return Sides(moving, fields.velocity(there, t), place=there)


@dataclass(frozen=True)
class _Uniform:
    """One uniform number for each example."""

    def sample(
        self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape
    ) -> Float[Array, " batch"]:
        """Numbers (batch,) in [0, 1)."""
        return jax.vmap(jax.random.uniform)(example_keys(key, index))


@dataclass(frozen=True)
class Semigroup:
    """The semigroup identity: two jumps lead where one does.

        u(x, s, t) = (1 - h) u(x, s, m) + h u(X_{s,m}(x), m, t),   m = h s + (1 - h) t

    No derivative is needed. Sources: Boffi et al., arXiv:2505.18825 (PSD); with ``split=0.5`` on
    `fmjax.times.DyadicGrid` shortcut models, Frans et al., arXiv:2410.12557; with a teacher and
    `finest` its step, progressive distillation.

    Args:
        split: h, in (0, 1); None draws it uniformly for each example.
        finest: jumps no longer than this are made with the velocity at their start, that of the
            teacher where there is one.

    Raises:
        InputError: a number lies outside its range.
    """

    split: float | None = 0.5
    finest: float = 0.0
    uses_step: ClassVar[bool] = False

    def __post_init__(self):
        if self.split is not None:
            check_between("split of Semigroup", self.split, 0, 1, "()")
        check_between("finest of Semigroup", self.finest, 0, 1)

    @property
    def noise(self) -> Mapping[str, Law]:
        """``"split"``, where it is drawn."""
        return {"split": _Uniform()} if self.split is None else {}

    def sides(self, fields, x, span, v, noise, step) -> Sides:
        """See `Identity.sides`."""
        s, t = span
        h = noise["split"].astype(s.dtype) if self.split is None else self.split
        m = h * s + (1 - h) * t
        first = self._jump(fields, x, s, m)
        middle = moved(x, m - s, first, fields.manifold)
        second = self._jump(fields, middle, m, t)
        goal = joined(x, middle, span, (1 - h, h), (first, second), fields.manifold)
        return Sides(fields.live(x, span), goal)

    def _jump(
        self, fields: Fields, x: Batched, s: Float[Array, " batch"], t: Float[Array, " batch"]
    ) -> Averages:
        average = fields.frozen(x, Span(s, t))
        if not self.finest:
            return average
        short = jnp.abs(t - s) <= self.finest * (1 + 1e-5)  # float32 rounds lengths of a grid
        return jax.tree.map(
            lambda v, u: jnp.where(expand(short, u), v, u), fields.velocity(x, s), average
        )
