"""What the identities of a flow map are written in: the network live and frozen, and the velocity.

A network gives an average velocity u and perhaps more that is an average along the same way, such
as the average divergence. All of it obeys the same identities, so that each is written once, for a
dictionary ``{"velocity": u, ...}``; only the velocity moves x.

On a manifold u(x, s, t) is a tangent vector at x and X_{s,t}(x) = exp_x((t - s) u(x, s, t)).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from fmjax.array_checks import check_returned
from fmjax.conventions import (
    ApplyFn,
    Array,
    Batched,
    Labels,
    Output,
    Params,
    Span,
    at_least_float32,
    expand,
    take_part,
)
from fmjax.errors import InputError
from fmjax.manifolds import Manifold

Share = float | Float[Array, ""] | Float[Array, " batch"]
"""One number, or one for each example."""

Step = int | Int[Array, ""] | None
"""The number of a training step; None stands for the end of training."""

Averages = dict[str, Float[Array, "batch ..."]]
"""``{"velocity": u (batch, ...)}``, perhaps with ``"divergence"`` (batch,)."""

HEAD = "diagonal"
"""The part of an `Output` that is a second velocity head: v(x, s), whatever t is."""


@dataclass(frozen=True, eq=False)
class AverageField:
    """A network with its parameters bound: ``field(x, Span(s, t)) -> averages``, at least float32.

    Attributes:
        apply_fn: ``apply_fn(params, x, Span(s, t), labels)``: u shaped as x, or an `Output`.
        derivative_fn: the same network, as it is to be differentiated in time.
        params: its parameters.
        labels: what it takes as labels.
        divergence: whether the part ``"divergence"`` (batch,) is among the averages.
        manifold: to whose tangent space at x every velocity is projected; None in flat space.
    """

    apply_fn: ApplyFn
    derivative_fn: ApplyFn
    params: Params
    labels: Labels
    divergence: bool
    manifold: Manifold | None = None

    def __call__(self, x: Batched, span: Span) -> Averages:
        """The averages from s to t, x being at s."""
        return self._evaluate(self.apply_fn, x, span)

    def smooth(self, x: Batched, span: Span) -> Averages:
        """The same, by the function that is to be differentiated in time."""
        return self._evaluate(self.derivative_fn, x, span)

    def at(self, x: Batched, t: Float[Array, " batch"]) -> Batched:
        """The velocity on the diagonal."""
        u = take_part(self.apply_fn(self.params, x, Span(t, t), self.labels), "velocity")
        check_returned("apply_fn", u, "x", x)
        return self._tangent(x, u)

    def head(self, x: Batched, span: Span) -> Batched | None:
        """The second velocity head; None where the network has none."""
        output = self.apply_fn(self.params, x, span, self.labels)
        if not (isinstance(output, Output) and HEAD in output.parts):
            return None
        check_returned(f"the part {HEAD!r} of apply_fn", output.parts[HEAD], "x", x)
        return self._tangent(x, output.parts[HEAD])

    def _tangent(self, x: Batched, u: Batched) -> Batched:
        u = at_least_float32(u)
        return u if self.manifold is None else self.manifold.to_tangent(x, u)

    def _evaluate(self, apply_fn: ApplyFn, x: Batched, span: Span) -> Averages:
        output = apply_fn(self.params, x, span, self.labels)
        u = take_part(output, "velocity")
        check_returned("apply_fn", u, "x", x)
        if not self.divergence:
            return {"velocity": self._tangent(x, u)}
        # A network that gives one array has no divergence, which `take_part` then says.
        output = output if isinstance(output, Output) else Output(velocity=output)
        head = take_part(output, "divergence")
        check_returned("the divergence of apply_fn", head, "s", span.s)
        return {"velocity": self._tangent(x, u), "divergence": at_least_float32(head)}


class Fields(NamedTuple):
    """The functions that an identity relates.

    Attributes:
        live: of the network, through which gradients flow.
        frozen: of parameters that are constants: the live ones, or their average.
        velocity: ``velocity(x, t) -> averages`` at one time: of the teacher, or of the frozen
            network on its diagonal.
        predicted: ``predicted(x, t) -> v`` of the frozen network, by its second head where it has
            one.
        manifold: where x is; None in flat space.
    """

    live: AverageField
    frozen: AverageField
    velocity: Callable[[Batched, Float[Array, " batch"]], Averages]
    predicted: Callable[[Batched, Float[Array, " batch"]], Batched]
    manifold: Manifold | None = None


class Sides(NamedTuple):
    """The two sides of an identity, for each example.

    Attributes:
        predicted: what the gradient flows through.
        goal: what it is compared with; no gradient flows through it.
        weight: by which the squared difference is multiplied: one number, or (batch,).
        place: on a manifold the points (batch, ...) at which both velocities are tangent vectors,
            where these are not those of x.
    """

    predicted: Averages
    goal: Averages
    weight: Share = 1.0
    place: Batched | None = None


def check_one_array(x1: Any) -> None:
    """Checks that data are one array.

    Raises:
        InputError: they are a pytree of several, or something else.
    """
    if not getattr(x1, "shape", ()):
        raise InputError(
            f"x1 must be one array (batch, ...), as flow maps are learned on; got "
            f"{type(x1).__name__}: concatenate its arrays into one."
        )


def moved(
    x: Batched,
    duration: Float[Array, " batch"],
    averages: Averages,
    manifold: Manifold | None = None,
) -> Batched:
    """x + (t - s) u, or exp_x((t - s) u): where a jump of this duration (batch,) leads."""
    if manifold is None:
        return x + expand(duration, x) * averages["velocity"]
    return manifold.exp(x, expand(duration, x) * averages["velocity"])


def combined(a: Share, left: Averages, b: Share, right: Averages) -> Averages:
    """a * left + b * right, a and b one number or one for each example (batch,)."""

    def one(x, y):
        return expand(jnp.asarray(a, x.dtype), x) * x + expand(jnp.asarray(b, y.dtype), y) * y

    return jax.tree.map(one, left, right)
