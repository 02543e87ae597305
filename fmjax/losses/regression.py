"""The regression losses: a network learns the velocity of a path, or another prediction of it."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_per_example, check_returned, check_training_batch
from fmjax.checks import check_methods, check_name
from fmjax.conventions import ApplyFn, Array, Prediction, at_least_float32, take_part
from fmjax.errors import InputError
from fmjax.losses.base import LossFn, declare
from fmjax.paths import AffinePath, Distance, Path, PathSample, schedule_of
from fmjax.paths.base import check_is_path
from fmjax.paths.distances import distance_on
from fmjax.predictions import PREDICTIONS, target_of
from fmjax.schedules import Linear

Target = Literal["fm", "rf"]
TARGETS: tuple[Target, ...] = get_args(Target)
STRAIGHT = AffinePath(Linear(sigma_min=0.0))


def make_per_example_loss_fn(
    apply_fn: ApplyFn,
    path: Path | None = None,
    target: Target = "fm",
    *,
    prediction: Prediction = "velocity",
    distance: Distance | None = None,
) -> LossFn:
    """Makes ``losses(params, x0, x1, t, labels) -> (batch,)``, the error of each example.

    ``"fm"`` regresses on u_t = d_alpha_t x1 + d_sigma_t x0 of the chosen path (Lipman et al.,
    arXiv:2210.02747, eq. (9)); ``"rf"`` on x1 - x0 along the straight path, whatever the coupling
    (Liu et al., arXiv:2209.03003, eq. (1)). On the linear path with sigma_min = 0 they are equal;
    with sigma_min = s the targets differ by s x0.

    Args:
        apply_fn: the network, ``apply_fn(params, x, t, labels) -> prediction``.
        path: the path of target ``"fm"``; the straight path if None. The noise of a stochastic one
            is that of the loss.
        target: ``"fm"`` or ``"rf"``.
        prediction: what the network predicts and the error is measured in: ``"velocity"``,
            ``"x1"``, ``"x0"``, ``"score"`` or ``"v"`` (see `fmjax.predictions`, which also turns
            such a network into a velocity, and converts weights); on a `GeodesicPath` one of the
            first two.
        distance: ``distance(predicted, target, x_t, t) -> (batch,)``: `fmjax.paths.PseudoHuber`,
            `fmjax.paths.Adaptive`, which on a manifold take the length of the error in its metric;
            or one of your own; the path's own if None.

    Returns:
        A function of params, x0 (batch, ...), x1 (batch, ...), t (batch,) and labels that gives the
        distance of each example, (batch,), in float32 whatever apply_fn computes in. Of an `Output`
        it takes the part named as the prediction, or as ``path.takes`` says.

    Raises:
        InputError: the target or the prediction is unknown, ``"rf"`` is asked on a path that is not
            straight, or anything but the velocity is to be predicted on a path that has no
            schedule. Calling the result raises it when shapes do not fit, the network's included.
    """
    path = STRAIGHT if path is None else path
    check_methods("apply_fn", apply_fn, such_as="adapters.from_linen(module)")
    check_is_path("the path", path)
    if distance is not None:
        check_methods("the distance", distance, such_as="paths.squared")
    if prediction != "velocity" and hasattr(path, "predicting"):
        path, prediction = path.predicting(prediction), "velocity"
    regress = _regression(path, target, prediction)
    part = getattr(path, "takes", prediction)
    measure = distance_on(path, distance)

    def per_example_loss_fn(params, x0, x1, t, labels, *, noise=None):
        check_training_batch(x0, x1, t, labels)
        x_t, goal = regress(x0, x1, t, noise)
        t = jax.tree.map(at_least_float32, t)
        predicted = take_part(apply_fn(params, x_t, t, labels), part)
        if distance is not None:  # a path's own distance checks what it compares
            check_returned("apply_fn", predicted, "its target", goal)
        losses = measure(predicted, goal, x_t, t)
        check_per_example("the distance", losses, jax.tree.leaves(x1)[0].shape[0])
        return losses

    return declare(per_example_loss_fn, noise=path.noise)


def _regression(path: Path, target: Target, prediction: Prediction) -> Callable[..., PathSample]:
    """``regress(x0, x1, t, noise) -> (x_t, what the network is to predict there)``."""
    check_name("target", target, TARGETS)
    check_name("prediction", prediction, PREDICTIONS)
    if target == "rf" and path != STRAIGHT:
        raise InputError(
            f"target 'rf' is x1 - x0 on the straight path; it takes no other path, got {path}. "
            "Write target='fm' for this path, or leave path out."
        )
    if prediction == "velocity":
        return path.sample if target == "fm" else _rectified_flow
    schedule = schedule_of(path)
    if schedule is None:
        raise InputError(
            f"prediction {prediction!r} needs a path with a schedule; on {path} the network "
            "predicts the velocity (its score is trained by make_flow_and_score_loss_fn)."
        )

    def regress(x0, x1, t, noise):
        x_t = path.sample(x0, x1, t, noise).x_t
        return PathSample(x_t, target_of(prediction, schedule, x0, x1, t))

    return regress


def _rectified_flow(
    x0: Float[Array, " batch *shape"],
    x1: Float[Array, " batch *shape"],
    t: Float[Array, "batch ..."],
    noise: None,
) -> PathSample:
    """x1 - x0, written out rather than read off the schedule: the definition holds for any pair."""
    x_t = STRAIGHT.sample(x0, x1, t, noise).x_t
    return PathSample(x_t, at_least_float32(x1) - at_least_float32(x0))


def make_loss_fn(
    apply_fn: ApplyFn,
    path: Path | None = None,
    target: Target = "fm",
    weight: Callable[[Float[Array, " batch"]], Float[Array, " batch"]] | None = None,
    *,
    prediction: Prediction = "velocity",
    distance: Distance | None = None,
) -> LossFn:
    """Makes ``loss_fn(params, x0, x1, t, labels) -> scalar``, deterministic and without a key.

    The mean over the batch of ``weight(t)`` times the per-example loss.

    Args:
        apply_fn: as in `make_per_example_loss_fn`.
        path: as in `make_per_example_loss_fn`.
        target: as in `make_per_example_loss_fn`.
        weight: weights (batch,) from times (batch,); all one if None.
        prediction: as in `make_per_example_loss_fn`.
        distance: as in `make_per_example_loss_fn`.

    Returns:
        The loss function; its value is a float32 scalar.

    Raises:
        InputError: as in `make_per_example_loss_fn`.

    Example:
        >>> loss_fn = make_loss_fn(lambda params, x, t, labels: params * x)
        >>> x0, x1, t = jnp.zeros((4, 2)), jnp.ones((4, 2)), jnp.full(4, 0.5)
        >>> jax.value_and_grad(loss_fn)(0.0, x0, x1, t)  # of |0.5 params - 1|^2
        (Array(1., dtype=float32), Array(-1., dtype=float32, weak_type=True))
    """
    if weight is not None:
        check_methods("the weight", weight, such_as="lambda t: 1 / (1 - t + 0.01)")
    per_example = make_per_example_loss_fn(
        apply_fn, path, target, prediction=prediction, distance=distance
    )

    def loss_fn(params, x0, x1, t, labels, *, noise=None):
        losses = per_example(params, x0, x1, t, labels, noise=noise)
        if weight is None:
            return jnp.mean(losses)
        weights = weight(t)
        check_per_example("the weight", weights, len(losses))
        return jnp.mean(weights * losses)

    return declare(loss_fn, noise=per_example.noise)
