"""Guidance by a second velocity: that of no condition, of a negative one, of a weaker network."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from fmjax.array_checks import check_leading_size, check_returned, shaped_as_x
from fmjax.checks import check_methods
from fmjax.conditions import share
from fmjax.conventions import Array, Labels, Span, Velocity, expand, time_of
from fmjax.errors import InputError
from fmjax.guidance.interval import GuidanceInterval, evaluate_in_interval
from fmjax.guidance.labels import (
    Guided,
    Nested,
    checked_batch_size,
    null_like,
    only_labels,
    per_example,
    stack,
)
from fmjax.guidance.rules import Rule, check_rule_on_manifold, linear
from fmjax.guidance.scale_schedules import ScaleSchedule, scale_schedule
from fmjax.manifolds import Manifold, in_tangent_space


def classifier_free(
    velocity: Velocity,
    null_labels: Labels,
    *,
    rule: Rule = linear,
    schedule: str | ScaleSchedule = "constant",
    interval: tuple[float, float] | None = None,
    zero_until: float = 0.0,
    manifold: Manifold | None = None,
) -> Velocity:
    """Classifier-free guidance, all branches by `jax.vmap` in one call of the network.

        u(x, t) = (1 - w) u(x, t, null) + w u(x, t, labels)

    w = 0 is the unconditional field and w = 1 the conditional one, both exactly. Work that depends
    on x and t alone is done once. Sources: Ho & Salimans, arXiv:2207.12598; for velocities Zheng et
    al., arXiv:2311.13443, eq. (7). The other convention, (1 + s) u_cond - s u_null, is w = 1 + s:
    see `scale_from_excess`.

    A tuple of K `Guided` is a composition of conditions, in K + 1 branches of the same call:

        u(x, t) = u_null + sum_k w_k (u_k - u_null)

    (Liu et al., arXiv:2206.01714; a negative w_k is its negation). Another rule than the linear one
    then gives ``u_null + sum_k (rule(u_null, u_k, w_k) - u_null)``. With `Nested` conditions the
    reference of each is the one before it, ``u_null + sum_k w_k (u_k - u_{k-1})``, u_0 = u_null.
    `fmjax.guidance.guide_each` and `guide_in_turn` make either of the conditions of one network.

    The average velocity of a flow map, at a `fmjax.conventions.Span`, is guided in the same way;
    what depends on t (schedule, interval, zero_until, rule) is read where the jump starts, as for
    the Euler step between the same times.

    Args:
        velocity: ``velocity(x, t, labels)``, of an array or of a pytree of arrays.
        null_labels: the condition that stands for none, without a batch axis: the null class id, or
            a pytree shaped as one example's condition.
        rule: how the two velocities make one, see `fmjax.guidance.rules`; each array of a pytree by
            itself.
        schedule: how w depends on t: a name of `fmjax.guidance.SCALE_SCHEDULES`, or
            ``schedule(w, t) -> w_t`` with all three (batch,).
        interval: (lo, hi); outside it every scale is 1 and the null branch is not computed, unless
            another example of the batch is inside. A composition of K > 1 needs it nevertheless.
        zero_until: before this time the velocity is 0 and the network is not called.
        manifold: of a flow on one: the guided velocity is projected to be tangent, and rules that
            measure velocities in flat space are refused.

    Returns:
        ``guided(x, t, Guided(labels, w))``, a tuple of `Guided` or `Nested` in its place;
        shaped as x, in its dtype, at least float32.

    Raises:
        InputError: the schedule is unknown, the interval or zero_until impossible, or the rule is
            none for a manifold. When called:
            without labels, with w neither one number nor one per example, with no condition at all,
            with a negative one among several, or with labels that the null condition does not fit.

    Example:
        >>> velocity = classifier_free(lambda x, t, labels: x * labels[:, None], null_labels=0)
        >>> velocity(jnp.ones((2, 1)), jnp.zeros(2), Guided(jnp.array([1, 2]), w=2.0))
        Array([[2.],
               [4.]], dtype=float32)
    """
    check_methods("the rule", rule, such_as="guidance.Rescale()")
    if manifold is not None:
        check_rule_on_manifold(rule, manifold)
    velocity, at = shaped_as_x("the velocity", velocity), scale_schedule(schedule)
    when = GuidanceInterval(interval, zero_until)

    def guided(
        x: Any,
        t: Float[Array, "batch ..."] | Span,
        conditions: Guided | tuple[Guided, ...] | Nested,
    ) -> Any:
        nested = isinstance(conditions, Nested)
        several = _as_tuple(conditions.parts if isinstance(conditions, Nested) else conditions)
        batch, here = checked_batch_size(x, t), time_of(t)
        labels = [jax.tree.map(jnp.asarray, share(c.labels, batch)) for c in several]
        check_leading_size(labels, batch)
        scales = [at(per_example("w", c.w, x), here) for c in several]
        negative = several[0].negative
        reference = null_like(labels[0], null_labels if negative is None else negative)
        branches = stack(reference, *labels)

        def conditional():
            return _as(x, velocity(x, t, labels[-1]))

        def every(inside):
            def combined(us, x):
                first, *us = us
                references = [first, *us[:-1]] if nested else [first] * len(us)
                added = zip(references, us, scales, strict=True)
                parts = [(_by(rule, inside, ref, u, w, x, here), ref) for ref, u, w in added]
                return parts[0][0] if len(us) == 1 else first + sum(u - ref for u, ref in parts)

            us = _as(x, jax.vmap(velocity, in_axes=(None, None, 0))(x, t, branches))
            return jax.tree.map(combined, us, x)

        alone = nested or len(several) == 1
        return evaluate_in_interval(when, x, here, conditional if alone else None, every)

    return guided if manifold is None else in_tangent_space(guided, manifold)


def autoguidance(
    velocity: Velocity,
    weak_velocity: Velocity,
    *,
    rule: Rule = linear,
    schedule: str | ScaleSchedule = "constant",
    interval: tuple[float, float] | None = None,
    manifold: Manifold | None = None,
) -> Velocity:
    """Guides a network by a weaker one: smaller, or trained less, but on the same data.

        u(x, t) = (1 - w) u_weak(x, t, labels) + w u(x, t, labels)

    The errors that the two share are pushed away, and the diversity of classifier-free guidance at
    w = 1 is kept. It needs no condition. Source: Karras et al., arXiv:2406.02507.

    Args:
        velocity: ``velocity(x, t, labels)``, of an array or of a pytree of arrays.
        weak_velocity: the same of the weaker network.
        rule: as in `classifier_free`, with the weaker network for reference.
        schedule: as in `classifier_free`.
        interval: (lo, hi), outside which the weaker network is not called.
        manifold: as in `classifier_free`.

    Returns:
        ``guided(x, t, Guided(labels, w))``, labels None for an unconditional network.

    Raises:
        InputError: as in `classifier_free`.

    Example:
        >>> velocity = autoguidance(lambda x, t, labels: 2 * x, lambda x, t, labels: x)
        >>> velocity(jnp.ones((1, 1)), jnp.zeros(1), Guided(jnp.array([0]), w=2.0))
        Array([[3.]], dtype=float32)
    """
    check_methods("the rule", rule, such_as="guidance.Rescale()")
    if manifold is not None:
        check_rule_on_manifold(rule, manifold)
    velocity = shaped_as_x("the velocity", velocity)
    weak_velocity = shaped_as_x("the weak velocity", weak_velocity)
    at = scale_schedule(schedule)
    when = GuidanceInterval(interval)

    def guided(x: Any, t: Float[Array, "batch ..."] | Span, conditions: Guided) -> Any:
        batch = checked_batch_size(x, t)
        labels = share(only_labels(conditions, "autoguidance"), batch)
        check_leading_size(labels, batch)
        here = time_of(t)
        w = at(per_example("w", conditions.w, x), here)

        def strong():
            return _as(x, velocity(x, t, labels))

        def both(inside):
            def combined(weak, strong, x):
                return _by(rule, inside, weak, strong, w, x, here)

            return jax.tree.map(combined, _as(x, weak_velocity(x, t, labels)), strong(), x)

        return evaluate_in_interval(when, x, here, strong, both)

    return guided if manifold is None else in_tangent_space(guided, manifold)


def _as_tuple(conditions: Any) -> tuple[Guided, ...]:
    """One `Guided` or several as a tuple."""
    if isinstance(conditions, tuple) and not conditions:
        raise InputError("a tuple of conditions must have at least one Guided(labels, w); got ().")
    several = (conditions,) if isinstance(conditions, Guided) else conditions
    several = several if isinstance(several, tuple) else (several,)
    for one in several:
        if not isinstance(one, Guided) or one.labels is None:
            raise InputError(
                "a guided velocity takes Guided(labels, w) with labels that are not None; "
                f"got {type(one).__name__}. An unconditional model has nothing to guide."
            )
        if one.negative is not None and len(several) > 1:
            raise InputError(
                "a negative condition among several has no one place; give what to lead away from "
                "as a condition of its own, with a negative w."
            )
    return several


def _as(x: Any, u: Any) -> Any:
    """A velocity at x in its dtype, or several on a leading axis."""
    return jax.tree.map(lambda x, u: u.astype(jnp.promote_types(x.dtype, jnp.float32)), x, u)


def _by(rule: Rule, inside: Bool[Array, " batch"] | None, u_ref, u_cond, w, x, t) -> Array:
    """The rule for the examples inside, u_cond for the others; of one array."""
    u = rule(u_ref, u_cond, w.astype(u_cond.dtype), x, t)
    check_returned("the rule", u, "x", u_cond)
    return u if inside is None else jnp.where(expand(inside, u), u, u_cond)
