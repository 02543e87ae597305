"""The loss of a flow map: one of the identities, on the draws of flow matching.

    L(params) = E weight(s, t) D(predicted, stop_gradient(goal))

with predicted and goal the two sides of an identity at x_s, and on the diagonal, where s = t,

    predicted = u(x_s, s, s),   goal = v,

which is flow matching. On a manifold, that of the path, both sides are tangent vectors, and D is in
its metric. The share of the diagonal is that of the drawn spans
(`fmjax.times.WithDiagonal`); identities that need the velocity of the network itself need it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import (
    check_per_example,
    check_returned,
    check_training_batch,
)
from fmjax.checks import check_flag, check_methods
from fmjax.conventions import (
    ApplyFn,
    Array,
    Batched,
    Labels,
    Span,
    Velocity,
    at_least_float32,
    expand,
)
from fmjax.errors import InputError
from fmjax.flow_maps.divergence_head import DivergenceHead
from fmjax.flow_maps.fields import (
    AverageField,
    Averages,
    Fields,
    Sides,
    Step,
    check_one_array,
)
from fmjax.flow_maps.identities import Identity
from fmjax.flow_maps.target_guidance import TargetGuidance
from fmjax.losses import STRAIGHT, LossFn, declare
from fmjax.manifolds import Manifold
from fmjax.paths import Path, manifold_of
from fmjax.paths.base import check_is_path
from fmjax.paths.distances import Distance, distance_on


class _Setting(NamedTuple):
    """What `make_flow_map_loss_fn` was given, checked."""

    apply_fn: ApplyFn
    derivative_fn: ApplyFn
    identity: Identity
    path: Path
    teacher: Velocity | None
    guidance: TargetGuidance | None
    divergence: DivergenceHead | None
    distance: Distance
    manifold: Manifold | None


def make_flow_map_loss_fn(
    apply_fn: ApplyFn,
    identity: Identity,
    path: Path | None = None,
    *,
    teacher: Velocity | None = None,
    guidance: TargetGuidance | None = None,
    averaged: bool = False,
    divergence: DivergenceHead | None = None,
    distance: Distance | None = None,
    weight: Callable[[Span], Float[Array, " batch"]] | None = None,
    derivative_fn: ApplyFn | None = None,
) -> LossFn:
    """Makes ``loss_fn(params, x0, x1, Span(s, t), labels) -> scalar`` of one identity.

    Args:
        apply_fn: the network of two times, ``apply_fn(params, x, Span(s, t), labels)``: the average
            velocity u, or an `Output` that has it as ``velocity``; with a part ``diagonal``, a
            second head that predicts v(x, s), that head is trained beside it.
        identity: `MeanFlow`, `Lagrangian`, `Semigroup`, `AlphaFlow`, `Consistency`, or your own.
        path: between x0 and x1; the straight path if None. A velocity is what it must have. With
            `fmjax.paths.GeodesicPath` the flow map is one on its manifold: velocities are projected
            to be tangent, and X_{s,t}(x) = exp_x((t - s) u).
        teacher: ``teacher(x, t, labels)``, the velocity of a trained flow, whose map is to be
            learned; it takes the place of the pair's velocity and of the network's own. No gradient
            flows through it. With `guidance` it gets ``Guided(labels, w)``.
        guidance: `FixedGuidance` or `GuidanceInput`; with a teacher, which is guided itself, only
            what the network and the teacher take as labels is asked of it.
        averaged: whether the frozen side uses the averaged parameters instead of the live ones.
        divergence: trains the part ``divergence`` of the output, too.
        distance: ``distance(predicted, target, x_s, s) -> (batch,)``, such as
            `fmjax.paths.Adaptive`; the path's own, the mean squared error, if None.
        weight: ``weight(Span(s, t)) -> (batch,)``; all one if None.
        derivative_fn: computes what is differentiated in time, in the place of apply_fn: the same
            network in float32 where apply_fn computes in bfloat16, or with attention that has a
            forward-mode derivative.

    Returns:
        The loss function, its value a float32 scalar; ``noise``, ``uses_target`` and ``uses_step``
        say what it takes beside its five arguments.

    Raises:
        InputError: an object is not what it is to be. Calling the result raises it when shapes do
            not fit, when t is not a `Span`, or when labels that guide are missing.
    """
    path = STRAIGHT if path is None else path
    check_methods("apply_fn", apply_fn, such_as="adapters.from_linen(module)")
    check_methods("the identity", identity, "sides", "noise", such_as="MeanFlow()")
    check_is_path("the path", path)
    check_flag("averaged", averaged)
    for what, option, methods, such_as in (
        ("the teacher", teacher, (), "lambda x, t, labels: ..."),
        ("the guidance", guidance, ("guided", "inputs", "noise"), "FixedGuidance(...)"),
        ("the divergence", divergence, ("averages", "noise"), "DivergenceHead()"),
        ("the distance", distance, (), "paths.squared"),
        ("the weight", weight, (), "lambda span: 1 / (1 - span.s + 0.01)"),
        ("derivative_fn", derivative_fn, (), "adapters.from_linen(module)"),
    ):
        if option is not None:
            check_methods(what, option, *methods, such_as=such_as)
    setting = _Setting(
        apply_fn,
        apply_fn if derivative_fn is None else derivative_fn,
        identity,
        path,
        teacher,
        guidance,
        divergence,
        distance_on(path, distance),
        manifold_of(path),
    )
    laws = dict(path.noise) | dict(identity.noise)
    for piece in (guidance, divergence):
        laws |= {} if piece is None else dict(piece.noise)

    def loss_fn(params, x0, x1, t, labels, *, noise=None, target_params=None, step=None):
        span = _checked_span(x0, x1, t, labels, guidance)
        frozen = jax.lax.stop_gradient(params if target_params is None else target_params)
        losses = _losses(setting, params, frozen, x0, x1, span, labels, noise or {}, step)
        if weight is not None:
            given = weight(span)
            check_per_example("the weight", given, len(losses))
            losses = given * losses
        return jnp.mean(losses)

    uses_step = bool(getattr(identity, "uses_step", False))
    return declare(loss_fn, noise=laws, uses_target=averaged, uses_step=uses_step)


def _losses(
    setting: _Setting,
    params: Any,
    frozen: Any,
    x0: Batched,
    x1: Batched,
    span: Span,
    labels: Labels,
    noise: Mapping[str, Any],
    step: Step,
) -> Float[Array, " batch"]:
    """The loss of each example (batch,)."""
    x, pair = setting.path.sample(x0, x1, span.s, _only(setting.path, noise))
    fields = _fields(setting, params, frozen, labels, noise)
    v = _velocity_here(setting, fields, x, span.s, pair, labels, noise)
    given = _only(setting.identity, noise)
    sides = setting.identity.sides(fields, x, span, v, given, step)
    predicted, goal, weight, place = _on_diagonal(sides, v, x, span)
    losses = setting.distance(predicted["velocity"], goal["velocity"], place, span.s)
    check_per_example("the distance", losses, len(x))
    losses = weight * losses
    if setting.divergence is not None:
        error = predicted["divergence"] - goal["divergence"]
        losses = losses + setting.divergence.weight * weight * jnp.square(error)
    head = fields.live.head(x, span)
    if head is not None:
        target = jax.lax.stop_gradient(v["velocity"])
        losses = losses + setting.distance(head, target, x, span.s)
    return losses


def _fields(
    setting: _Setting, params: Any, frozen_params: Any, labels: Labels, noise: Mapping[str, Any]
) -> Fields:
    live = _field(setting, params, _inputs(setting, labels, noise))
    frozen = dataclasses.replace(live, params=frozen_params)

    def taught(teacher: Velocity, x: Batched, t: Float[Array, " batch"]) -> Batched:
        asked = labels if setting.guidance is None else setting.guidance.taught(labels, noise)
        v = teacher(x, t, asked)
        check_returned("the teacher", v, "x", x)
        v = at_least_float32(v)
        return v if setting.manifold is None else setting.manifold.to_tangent(x, v)

    at_time: Callable[[Array, Array], Array] = frozen.at
    if setting.teacher is not None:
        at_time = functools.partial(taught, setting.teacher)

    def velocity(x: Batched, t: Float[Array, " batch"]) -> Averages:
        if setting.divergence is None:
            return {"velocity": at_time(x, t)}
        return setting.divergence.averages(at_time, x, t, noise, setting.manifold)

    def predicted(x: Batched, t: Float[Array, " batch"]) -> Batched:
        head = frozen.head(x, Span(t, t))
        return frozen.at(x, t) if head is None else head

    return Fields(live, frozen, velocity, predicted, setting.manifold)


def _field(setting: _Setting, params: Any, inputs: Labels) -> AverageField:
    has_divergence = setting.divergence is not None
    functions = setting.apply_fn, setting.derivative_fn
    return AverageField(*functions, params, inputs, has_divergence, setting.manifold)


def _velocity_here(
    setting: _Setting,
    fields: Fields,
    x: Batched,
    s: Float[Array, " batch"],
    pair: Batched,
    labels: Labels,
    noise: Mapping[str, Any],
) -> Averages:
    """The velocity at (x, s): the teacher's, or that of the pair, guided."""
    if setting.teacher is not None:
        return fields.velocity(x, s)
    v = {"velocity": pair}
    if setting.divergence is not None:
        v = fields.velocity(x, s) | v
    if setting.guidance is None:
        return v

    def network(x: Batched, t: Float[Array, " batch"], inputs: Labels) -> Batched:
        return _field(setting, fields.frozen.params, inputs).at(x, t)

    guided = setting.guidance.guided(network, x, s, pair, labels, noise)
    check_returned("the guidance", guided, "x", x)
    return v | {"velocity": guided}


def _on_diagonal(sides: Sides, v: Averages, x: Batched, span: Span) -> Sides:
    """The same, with the velocity for a goal wherever s = t, and no gradient through the goal."""
    place = x if sides.place is None else sides.place
    here = span.s == span.t
    goal = jax.tree.map(lambda v, g: jnp.where(expand(here, g), v, g), v, sides.goal)
    weight = jnp.where(here, 1.0, sides.weight)
    return Sides(sides.predicted, jax.lax.stop_gradient(goal), weight, place)


def _inputs(setting: _Setting, labels: Labels, noise: Mapping[str, Any]) -> Labels:
    return labels if setting.guidance is None else setting.guidance.inputs(labels, noise)


def _only(piece: Any, noise: Mapping[str, Any]) -> dict[str, Any]:
    """The noise that a piece of the loss declared."""
    return {name: noise[name] for name in piece.noise}


def _checked_span(
    x0: Any, x1: Any, t: Any, labels: Labels, guidance: TargetGuidance | None
) -> Span:
    """The span, in float32 or wider, once everything fits."""
    if not isinstance(t, Span):
        raise InputError(
            "the loss of a flow map takes Span(s, t), two times for each example, and got "
            f"{type(t).__name__}: draw them by Draw(time_distribution=times.SortedPair())."
        )
    check_one_array(x1)
    check_training_batch(x0, x1, t, labels)
    for time in t:
        if jnp.ndim(time) != 1:
            raise InputError(
                f"a span has two times for each example, (batch,); got shape {jnp.shape(time)}."
            )
    if guidance is not None and labels is None and getattr(guidance, "conditions", None):
        raise InputError(
            "guidance in the target needs labels, and none came: give those of the batch, or "
            "leave the guidance out."
        )
    return Span(*map(at_least_float32, t))
