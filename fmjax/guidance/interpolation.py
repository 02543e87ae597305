"""Between two conditions, in the velocity or in the embedding, and changing over time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Real

from fmjax.array_checks import shaped_as_x
from fmjax.checks import check_methods, check_name
from fmjax.conditions import share
from fmjax.conventions import Array, Labels, Span, Velocity, at_least_float32, expand
from fmjax.errors import InputError
from fmjax.guidance.labels import Scale, batch_size, per_example, stack

PARALLEL_MARGIN = 1e-6
"""How near 1 a cosine is read as 1: nearer, the angle is lost in the rounding of float32."""


class Between(NamedTuple):
    """A condition between two.

    Attributes:
        start: the conditions at s = 0, whatever the velocity takes: labels, or `Guided`; lone ones
            are shared by the batch.
        end: the conditions at s = 1, built as start.
        s: one number or one per example (batch,).
    """

    start: Any
    end: Any
    s: Scale


def interpolated(velocity: Velocity, how: str = "linear") -> Velocity:
    """Velocities between two conditions, both by `jax.vmap` in one call of the network.

        u(x, t) = (1 - s) u(x, t, start) + s u(x, t, end)        "linear"
        u(x, t) = slerp(u(x, t, start), u(x, t, end), s)         "spherical", see `slerp`

    With guidance it goes either way: ``interpolated(classifier_free(velocity, null))`` takes
    ``Between(Guided(a, w), Guided(b, w), s)``, and
    ``classifier_free(interpolated(velocity), Between(null, null, 0.0))`` takes
    ``Guided(Between(a, b, s), w)``.

    Args:
        velocity: ``velocity(x, t, labels)``, of an array or of a pytree of arrays.
        how: ``"linear"`` or ``"spherical"``.

    Returns:
        ``velocity(x, t, Between(start, end, s))``, shaped as x.

    Raises:
        InputError: how is unknown. When called: with anything but `Between`, with ends that are not
            built alike, or with s neither one number nor one per example.
    """
    check_name("interpolation", how, _BLENDS)
    blend, velocity = _BLENDS[how], shaped_as_x("the velocity", velocity)

    def between(x: Any, t: Float[Array, "batch ..."] | Span, conditions: Between) -> Any:
        if not isinstance(conditions, Between):
            raise InputError(
                "an interpolated velocity takes Between(start, end, s); "
                f"got {type(conditions).__name__}."
            )
        batch = batch_size(x)
        ends = stack(share(conditions.start, batch), share(conditions.end, batch))

        def one(u, x):
            start, end = u
            return blend(start, end, per_example("s", conditions.s, x))

        both = jax.vmap(velocity, in_axes=(None, None, 0))(x, t, ends)
        return jax.tree.map(one, both, x)

    return between


def over_time(velocity: Velocity, labels_at: Callable[[Labels, Any], Labels]) -> Velocity:
    """A velocity under conditions that change over time.

        u(x, t) = velocity(x, t, labels_at(labels, t))

    Around a guided velocity `labels_at` makes a `Guided`; inside `classifier_free` it makes labels,
    and is asked about the null condition, too.

    Args:
        velocity: ``velocity(x, t, labels)``.
        labels_at: ``labels_at(labels, t) -> labels``, t (batch,), any pytree of conditions with a
            leading batch axis into one that the velocity takes.

    Returns:
        ``velocity(x, t, labels)``.

    Raises:
        InputError: the velocity or labels_at is no function.
    """
    check_methods("labels_at", labels_at, such_as="lambda labels, t: ...")
    velocity = shaped_as_x("the velocity", velocity)

    def changing(x: Any, t: Float[Array, "batch ..."] | Span, labels: Labels) -> Any:
        return velocity(x, t, labels_at(labels, t))

    return changing


def _lerp(
    start: Float[Array, " batch *shape"],
    end: Float[Array, " batch *shape"],
    s: Float[Array, " batch"],
) -> Float[Array, " batch *shape"]:
    s = expand(s, start)
    return (1 - s) * start + s * end


def slerp(
    start: Float[Array, " batch *shape"],
    end: Float[Array, " batch *shape"],
    s: Float[Array, " batch"],
) -> Float[Array, " batch *shape"]:
    """Turns from one array to the other along the arc between them, example by example.

    With the lengths r, the directions d and the angle W between them,

        ((1 - s) r_0 + s r_1) (sin((1 - s) W) d_0 + sin(s W) d_1) / sin(W)

    Where the two are parallel, opposed or of length 0, it is linear. The arc is Shoemake's
    (SIGGRAPH 1985); the length goes linearly from one to the other.

    Args:
        start: (batch, ...), of one direction over all axes but the batch.
        end: shaped as start.
        s: (batch,).

    Returns:
        An array shaped as start; finite, and of finite gradient.
    """
    r_0, r_1 = _length(start), _length(end)
    no_length = (r_0 == 0) | (r_1 == 0)
    r_0, r_1 = (jnp.where(no_length, 1.0, r) for r in (r_0, r_1))
    cosine = jnp.sum(start * end, axis=tuple(range(1, start.ndim))) / (r_0 * r_1)
    a, b, flat = _arc(cosine, s)
    r = (1 - s) * r_0 + s * r_1
    a = jnp.where(flat | no_length, 1 - s, r * a / r_0)
    b = jnp.where(flat | no_length, s, r * b / r_1)
    return expand(a, start) * start + expand(b, end) * end


def _length(u: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """Norms (batch,); the derivative at length 0 is 0."""
    square = jnp.sum(jnp.square(u), axis=tuple(range(1, u.ndim)))
    return jnp.where(square == 0, 0.0, jnp.sqrt(jnp.where(square == 0, 1.0, square)))


def _arc(cosine: Array, s: Array) -> tuple[Array, Array, Array]:
    """sin((1 - s) W) / sin(W), sin(s W) / sin(W), and where W is too near 0 or pi to divide by.

    There the two are 1 - s and s.
    """
    flat = jnp.abs(cosine) > 1 - PARALLEL_MARGIN
    angle = jnp.arccos(jnp.where(flat, 0.0, cosine))
    a, b = (jnp.sin(part * angle) / jnp.sin(angle) for part in (1 - s, s))
    return jnp.where(flat, 1 - s, a), jnp.where(flat, s, b), flat


def class_weights(
    a: Int[ArrayLike, "*shape"],
    b: Int[ArrayLike, "*shape"],
    s: Real[ArrayLike, "..."],
    num_classes: int,
) -> Float[Array, "*shape {num_classes+1}"]:
    """Weights over classes between a and b, for a network that takes weights in place of class ids.

        (1 - s) onehot(a) + s onehot(b)

    The network's condition is then (1 - s) embed(a) + s embed(b).

    Args:
        a: class ids, any shape, 0 to num_classes; num_classes is the null class.
        b: class ids, shaped as a.
        s: one number, or shaped as a.
        num_classes: number of classes, the null class not counted.

    Returns:
        Weights (..., num_classes + 1), float32 or wider; NaN for an id that is no class.
    """
    a, b, s = _ids_and_s(a, b, s)
    return _soft_labels(a, b, 1 - s, s, num_classes + 1)


def spherical_weights(
    a: Int[ArrayLike, "*shape"],
    b: Int[ArrayLike, "*shape"],
    s: Real[ArrayLike, "..."],
    table: Float[Array, "rows width"],
) -> Float[Array, "*shape rows"]:
    """As `class_weights`, along the arc between the embeddings of the two classes.

        (sin((1 - s) W) onehot(a) + sin(s W) onehot(b)) / sin(W)

    with W the angle between rows a and b of the table; linear where they are parallel or opposed.

    Args:
        a: class ids, any shape.
        b: class ids, shaped as a.
        s: one number, or shaped as a.
        table: the embeddings, (num_classes + 1, width), the null class last:
            ``params["condition"]["label"]["table"]`` of our networks.

    Returns:
        Weights (..., num_classes + 1), float32 or wider; NaN for an id that is no class.
    """
    a, b, s = _ids_and_s(a, b, s)
    table = jnp.asarray(table)
    directions = table / jnp.maximum(_length(table), 1e-12)[:, None]
    start, end = (directions.at[ids].get(mode="clip") for ids in (a, b))
    first, second, _ = _arc(jnp.sum(start * end, axis=-1), s)
    return _soft_labels(a, b, first, second, len(table))


def _ids_and_s(a: Any, b: Any, s: Any) -> tuple[Array, Array, Array]:
    a, b, s = jnp.asarray(a), jnp.asarray(b), at_least_float32(s)
    if a.shape != b.shape or s.shape not in ((), a.shape):
        raise InputError(
            "a and b must have one shape, and s that shape or none; "
            f"got a {a.shape}, b {b.shape} and s {s.shape}."
        )
    return a, b, jnp.broadcast_to(s, a.shape)


def _soft_labels(a: Array, b: Array, of_a: Array, of_b: Array, rows: int) -> Array:
    def part(ids, weight):
        # A row of zeros would pass for a condition; NaN is what an id out of range embeds as.
        # Chosen last: compiled, a product of NaN with the zeros of one_hot may become 0.
        hot = jax.nn.one_hot(ids, rows, dtype=weight.dtype)
        known = (ids >= 0) & (ids < rows)
        return jnp.where(known[..., None], weight[..., None] * hot, jnp.nan)

    return part(a, of_a) + part(b, of_b)


_BLENDS = {"linear": _lerp, "spherical": slerp}
