"""Distilled guidance: the guided velocity in one evaluation, its scale an input of the network."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_returned, check_training_batch, shaped_as_x
from fmjax.conditions import share
from fmjax.conventions import (
    ApplyFn,
    Array,
    Params,
    Span,
    Velocity,
    at_least_float32,
    take_part,
)
from fmjax.guidance.labels import Guided, batch_size, only_labels, per_example
from fmjax.paths import AffinePath, Path


def distilled(velocity: Velocity) -> Velocity:
    """A network that takes its scale as an input, as a guided velocity.

        u(x, t) = velocity(x, t, {"labels": labels, "guidance": w})

    One evaluation where guidance takes two. The networks here take such labels when they are built
    with ``guidance=True``; FLUX.1 [dev] is such a network.

    Args:
        velocity: ``velocity(x, t, {"labels": labels, "guidance": w})``, w (batch,).

    Returns:
        ``guided(x, t, Guided(labels, w))``, labels None for an unconditional network.

    Raises:
        InputError: the velocity is no function. When called: with anything but `Guided`, with a
            negative condition, with w neither one number nor one per example, or with a velocity
            that is not shaped as x.
    """
    velocity = shaped_as_x("the velocity", velocity)

    def guided(
        x: Float[Array, " batch *shape"], t: Float[Array, "batch ..."] | Span, conditions: Guided
    ) -> Float[Array, " batch *shape"]:
        return velocity(x, t, _inputs(x, conditions))

    return guided


def make_distillation_loss_fn(
    apply_fn: ApplyFn, teacher: Velocity, path: Path | None = None
) -> Callable[
    [
        Params,
        Float[Array, " batch *shape"],
        Float[Array, " batch *shape"],
        Float[Array, "batch ..."],
        Guided,
    ],
    Float[Array, ""],
]:
    """Makes the loss that teaches a network what guidance does, its scale as an input.

        L(params) = E |v(x_t, t, {labels, w}) - teacher(x_t, t, Guided(labels, w))|^2 / d

    with d the number of features. Draw w anew for each example, from the range to be used. Source:
    the first stage of Meng et al., arXiv:2210.03142.

    Args:
        apply_fn: the student, ``apply_fn(params, x, t, {"labels": labels, "guidance": w})``.
        teacher: the guided velocity, e.g. ``classifier_free(velocity, null_labels)``.
        path: the path on which they are compared; the straight path if None.

    Returns:
        ``loss_fn(params, x0, x1, t, Guided(labels, w)) -> scalar``, float32; the teacher is not
        differentiated.

    Raises:
        InputError: calling the result raises it when shapes do not fit.
    """
    path = AffinePath() if path is None else path

    def loss_fn(
        params: Params,
        x0: Float[Array, " batch *shape"],
        x1: Float[Array, " batch *shape"],
        t: Float[Array, "batch ..."],
        conditions: Guided,
    ) -> Float[Array, ""]:
        labels = _inputs(x1, conditions)
        check_training_batch(x0, x1, t, labels)
        x_t, t = path.sample(x0, x1, t).x_t, at_least_float32(t)
        taught = teacher(x_t, t, conditions)
        check_returned("the teacher", taught, "x", x_t)
        student = take_part(apply_fn(params, x_t, t, labels), "velocity")
        check_returned("the student", student, "x", x_t)
        goal = jax.lax.stop_gradient(at_least_float32(taught))
        return jnp.mean(jnp.square(at_least_float32(student) - goal))

    return loss_fn


def _inputs(x: Float[Array, "batch ..."], conditions: Guided) -> dict:
    labels = share(only_labels(conditions, "distilled guidance"), batch_size(x))
    return {"labels": labels, "guidance": per_example("w", conditions.w, x)}
