"""Drifting: a generator of one step without a time, moved towards data and away from itself.

The generated points drift along a field that data attract and generated points repel, and which is
zero where both have one distribution. The generator learns to be where its points have drifted:

    L(params) = E |f - stop_gradient(f + V(f))|^2,   f = features(generator(params, x0))

For points x_i, with y_j data, or else generated points, the field of one radius R is

    A_ij = q_j sqrt(max(softmax_j(-d_ij / R) softmax_i(-d_ij / R), 1e-6)),
    V_i  = sum_{j in data} sum_{k in others} A_ij A_ik (y_j - y_k),

where d_ij = |x_i - y_j| over its mean. Swapping the data and the others turns it round. Source:
Deng et al., arXiv:2602.04770.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Real

from fmjax.array_checks import (
    check_finite,
    check_floats,
    check_leading_size,
    check_returned,
    check_shaped_as,
    is_concrete,
    shape_of,
)
from fmjax.checks import check_methods, check_positive
from fmjax.conventions import Array, Labels, Params, at_least_float32
from fmjax.errors import InputError

RADII = (0.2, 0.05, 0.02)
_LEAST_AFFINITY = 1e-6  # data that are far from every generated point attract them still
_LEAST_SCALE = 1e-3
_LEAST_DISTANCE = 1e-8  # squared
_SELF = 100.0  # the distance of a point to itself, in units of the mean: it does not repel itself

Generator = Callable[[Params, Float[Array, "n ..."], Labels], Float[Array, "n ..."]]
"""``generator(params, x0, labels) -> x``: noise (n, ...) and labels (n, ...) to points (n, ...)."""

Features = Callable[[Float[Array, "n ..."]], Any]
"""``features(x)``: points (n, ...) to an array (n, ...), or a pytree of them."""


def drift_field(
    distances: Float[Array, "n columns"],
    data: Float[Array, "p features"],
    others: Float[Array, "k features"],
    radius: float,
    weights: Float[Array, " columns"],
) -> tuple[Float[Array, "n features"], Float[Array, "n columns"]]:
    """The field of one radius, as coefficients of the points that attract and repel.

        V_i = sum_{j in data} C_ij y_j + sum_{k in others} C_ik y_k,   sum_j C_ij + sum_k C_ik = 0

    Args:
        distances: d (n, k + p), of n points to k others, and then to p data.
        data: p data (p, features).
        others: k points that repel (k, features).
        radius: R, in the unit of the distances.
        weights: q of each column of the distances (k + p,).

    Returns:
        V (n, features), and C (n, k + p).

    Raises:
        InputError: an array is not of floats or has another shape, or the radius is not
            positive.
    """
    _check_field(distances, data, others, radius, weights)
    logits = -distances / radius
    affinity = jax.nn.softmax(logits, axis=1) * jax.nn.softmax(logits, axis=0)
    affinity = jnp.sqrt(jnp.maximum(affinity, _LEAST_AFFINITY)) * weights[None]
    repelling, attracting = jnp.split(affinity, [len(others)], axis=1)
    pull = attracting * jnp.sum(repelling, axis=1, keepdims=True)
    push = repelling * jnp.sum(attracting, axis=1, keepdims=True)
    coefficients = jnp.concatenate([-push, pull], axis=1)
    return pull @ data - push @ others, coefficients


def make_drifting_loss_fn(
    generator: Generator, *, features: Features | None = None, radii: Sequence[float] = RADII
) -> Callable[..., Float[Array, ""]]:
    """Makes ``loss_fn(params, x0, x1, labels, ...) -> scalar`` of a generator without a time.

        L = sum over features of mean |f - stop_gradient(f + sum_R V_R / rms(V_R))|^2

    f in units in which its distances have mean sqrt(features). Points drift within their group, a
    class or any other condition. Since each V_R is divided by its root mean square, the loss does
    not fall as the generator learns; watch a distance between samples. Source: Deng et al.,
    arXiv:2602.04770, with f the activations of a network for images.

    Args:
        generator: ``generator(params, x0, labels)``: noise (n, ...) to points (n, ...). A network
            with a time takes it at zero: ``lambda p, x0, y: apply_fn(p, x0, jnp.zeros(len(x0)),
            y)``. With a guidance scale its labels are ``{"labels": labels, "guidance": w}``.
        features: ``features(x)``, of points (n, ...): one array (n, ...), or a pytree of arrays,
            each with a field of its own; the points themselves if None.
        radii: R of each field, over the mean distance. The default is the paper's, for features of
            many dimensions, whose distances differ little. In the plane it made all points one, at
            the mean of eight Gaussians, which (0.5, 0.2, 0.05) learned.

    Returns:
        ``loss_fn(params, x0, x1, labels=None, *, unconditional=None, guidance=None)``, with

        - x0: noise (groups, n, ...), n at least 2;
        - x1: data of each group (groups, p, ...), p at least 2;
        - labels: of each group, arrays (groups, ...), or None;
        - unconditional: data of all kinds (k, ...), which repel, for guidance;
        - guidance: w of each group (groups,), at least 1, by which they do: their weight is
          (w - 1)(n - 1) / k.

    Raises:
        InputError: a function is none, or a radius is not positive. Calling the result raises it
            when an array does not fit, or when a group has fewer than two points.
    """
    check_methods("the generator", generator, such_as="lambda params, x0, labels: ...")
    if features is not None:
        check_methods("the features", features, such_as="lambda x: x")
    radii = _checked_radii(radii)

    def loss_fn(
        params: Params,
        x0: Float[Array, "groups n *noise"],
        x1: Float[Array, "groups p *shape"],
        labels: Labels = None,
        *,
        unconditional: Float[Array, " k *shape"] | None = None,
        guidance: Real[Array, " groups"] | None = None,
    ) -> Float[Array, ""]:
        _check_batch(x0, x1, labels)
        _check_guidance(x1, unconditional, guidance)
        groups, n = x0.shape[:2]
        points = _generate(generator, params, x0, x1, labels, guidance)
        if unconditional is None or guidance is None:  # none of them, of weight zero
            unconditional, guidance = jnp.zeros((0, *x1.shape[2:])), jnp.ones(groups)
        fixed = (x1.reshape(-1, *x1.shape[2:]), unconditional)
        found = _featured(features, points, "the points")
        data, free = (_featured(features, at_least_float32(x), "the data") for x in fixed)
        weight = (at_least_float32(guidance) - 1) * (n - 1) / max(len(unconditional), 1)

        def one(
            x: Float[Array, "a ..."], y: Float[Array, "b ..."], z: Float[Array, "c ..."]
        ) -> Float[Array, ""]:
            x, y = x.reshape(groups, n, -1), y.reshape(groups, x1.shape[1], -1)
            z = z.reshape(len(unconditional), x.shape[-1])
            each = jax.vmap(lambda x, y, w: _group_loss(x, y, z, w, radii))
            return jnp.mean(each(x, y, weight.astype(x.dtype)))

        parts = map(one, *map(jax.tree.leaves, (found, data, free)))
        return sum(parts)  # type: ignore[return-value]  # there is one at least

    return loss_fn


def _group_loss(
    x: Float[Array, "n features"],
    data: Float[Array, "p features"],
    free: Float[Array, "k features"],
    weight: Float[Array, ""],
    radii: Sequence[float],
) -> Float[Array, ""]:
    """The mean over points x (n, features) of one group, and over their features."""
    fixed, data, free = jax.lax.stop_gradient((x, data, free))
    n = len(fixed)
    others = jnp.concatenate([fixed, free])
    weights = jnp.concatenate(
        [jnp.ones(n, x.dtype), jnp.full(len(free), weight), jnp.ones(len(data), x.dtype)]
    )
    distances = _distances(fixed, jnp.concatenate([others, data]))
    scale = jnp.mean(distances * weights[None]) / jnp.mean(weights)
    unit = jnp.maximum(scale / jnp.sqrt(x.shape[-1]), _LEAST_SCALE)
    distances = distances / jnp.maximum(scale, _LEAST_SCALE)
    distances = distances.at[jnp.arange(n), jnp.arange(n)].add(_SELF)
    field = jnp.zeros_like(fixed)
    for radius in radii:
        v = drift_field(distances, data / unit, others / unit, radius, weights)[0]
        field = field + v / jnp.sqrt(jnp.maximum(jnp.mean(v**2), 1e-8))
    goal = jax.lax.stop_gradient(fixed / unit + field)
    return jnp.mean((x / unit - goal) ** 2)


def _check_field(distances: Any, data: Any, others: Any, radius: Any, weights: Any) -> None:
    check_positive("radius", radius)
    given = {"distances": distances, "data": data, "others": others, "weights": weights}
    for name, x in given.items():
        check_floats(name, x)
        axes = 1 if name == "weights" else 2
        if jnp.ndim(x) != axes:
            raise InputError(f"{name} must have {axes} axes; got shape {jnp.shape(x)}.")
    columns = len(others) + len(data)
    check_shaped_as("others", others, "points of data", (len(others), data.shape[1]))
    check_shaped_as("distances", distances, "others and data", (len(distances), columns))
    check_shaped_as("weights", weights, "others and data", (columns,))


def _distances(x: Float[Array, "n features"], y: Float[Array, "m features"]) -> Float[Array, "n m"]:
    """The Euclidean distances (n, m) of points (n, features) and (m, features)."""
    squares = jnp.sum((x[:, None] - y[None]) ** 2, axis=-1)
    return jnp.sqrt(jnp.maximum(squares, _LEAST_DISTANCE))


def _generate(
    generator: Generator,
    params: Params,
    x0: Float[Array, "groups n *_noise"],
    x1: Float[Array, "groups p *shape"],
    labels: Labels,
    guidance: Any,
) -> Float[Array, " points *shape"]:
    """The points (groups * n, ...) of all groups, in at least float32."""
    groups, n = x0.shape[:2]
    spread = jax.tree.map(lambda y: jnp.repeat(jnp.asarray(y), n, axis=0), labels)
    if guidance is not None:
        spread = {"labels": spread, "guidance": jnp.repeat(at_least_float32(guidance), n)}
    points = generator(params, x0.reshape(groups * n, *x0.shape[2:]), spread)
    like = jax.ShapeDtypeStruct((groups * n, *x1.shape[2:]), "float32")
    check_returned("the generator", points, "as many points of data", like)
    return at_least_float32(points)


def _featured(features: Features | None, x: Array, what: str) -> Any:
    found = x if features is None else features(x)
    if not jax.tree.leaves(found):
        raise InputError(f"the features of {what} must be one array or more; got {found!r}.")
    check_leading_size(found, len(x), f"the features of {what}")
    return jax.tree.map(at_least_float32, found)


def _checked_radii(radii: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(radii, Sequence) or isinstance(radii, str) or not len(radii):
        raise InputError(f"radii must be one or more positive numbers; got {radii!r}.")
    for radius in radii:
        check_positive("a radius of drifting", radius)
    return tuple(radii)


def _check_batch(x0: Array, x1: Array, labels: Labels) -> None:
    for name, x in (("x0", x0), ("x1", x1)):
        if getattr(x, "ndim", 0) < 3:
            raise InputError(
                f"{name} must be of shape (groups, points, ...), a group for each class; got "
                f"{getattr(x, 'shape', type(x).__name__)}. One group is {name}[None]."
            )
        check_floats(name, x)
        if not x.shape[0]:
            raise InputError(f"{name} must have at least one group; got shape {x.shape}.")
        if x.shape[1] < 2:
            raise InputError(
                f"drifting needs two points of each class or more, and {name} has {x.shape[1]} of "
                "each: draw fewer classes a batch, and more points of each."
            )
        check_finite(name, x)
    if x0.shape[0] != x1.shape[0]:
        raise InputError(
            f"x0 and x1 must have the same groups; got {x0.shape[0]} and {x1.shape[0]}."
        )
    check_leading_size(labels, x0.shape[0], "labels, one for each group,")


def _check_guidance(x1: Array, unconditional: Array | None, guidance: Array | None) -> None:
    if unconditional is None and guidance is None:
        return
    if unconditional is None or guidance is None:
        raise InputError(
            "guidance needs both the unconditional data and the scales; give unconditional= and "
            "guidance=, or neither."
        )
    if shape_of("unconditional", unconditional)[1:] != x1.shape[2:] or not len(unconditional):
        raise InputError(
            f"the unconditional data must be points as those of x1, (k, "
            f"{', '.join(map(str, x1.shape[2:]))}), at least one; got {jnp.shape(unconditional)}."
        )
    check_floats("unconditional", unconditional)
    check_finite("unconditional", unconditional)
    if shape_of("guidance", guidance) != x1.shape[:1]:
        raise InputError(
            f"guidance must be one scale for each group, {x1.shape[:1]}; got {jnp.shape(guidance)}."
        )
    at_least_float32(guidance, "guidance")  # which refuses complex numbers
    if is_concrete(guidance):
        with jax.ensure_compile_time_eval():
            least = float(jnp.min(jnp.asarray(guidance)))
        if not least >= 1:
            raise InputError(f"scales of guidance must be at least 1 in drifting; got {least:g}.")
