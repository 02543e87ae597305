"""The five targets as combinations of x1 and x0, and their conversions."""

import functools
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fmjax.array_checks import as_floats, check_returned, check_shaped_as, times_of
from fmjax.checks import check_between, check_methods, check_name
from fmjax.conventions import (
    ApplyFn,
    Array,
    Prediction,
    Span,
    TimeFunction,
    at_least_float32,
    expand,
    take_part,
    time_of,
)
from fmjax.manifolds import Manifold
from fmjax.predictions.geodesic import geodesic_velocity
from fmjax.schedules import END, Schedule, clamp
from fmjax.schedules.base import check_schedule

PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)

END_DISTANCES = (END, 1e-4, 1e-3, 1e-2, 1e-1)
"""How far from an end a singular conversion is read instead: the first where it can be divided."""


class Endpoints(NamedTuple):
    """The two ends of the path that a prediction implies at x_t, both shaped as x_t."""

    x0: Float[Array, " batch *shape"]
    x1: Float[Array, " batch *shape"]


def coefficients(
    target: Prediction, schedule: Schedule, t: Float[Array, "*t"]
) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
    """(a, b) such that the target is a x1 + b x0; the table is in `fmjax.predictions`.

    Args:
        target: a name of `PREDICTIONS`.
        schedule: the schedule of the path.
        t: times, any shape.

    Returns:
        a and b, shaped as t; b of ``"score"`` is bounded where sigma_t vanishes.

    Raises:
        InputError: the target is unknown.
    """
    _check_prediction(target)
    t = at_least_float32(t)
    if target == "score":
        return jnp.zeros_like(t), _score_of_x0(schedule, t)
    return {
        "velocity": lambda: (schedule.d_alpha(t), schedule.d_sigma(t)),
        "x1": lambda: (jnp.ones_like(t), jnp.zeros_like(t)),
        "x0": lambda: (jnp.zeros_like(t), jnp.ones_like(t)),
        "v": lambda: (-schedule.sigma(t), schedule.alpha(t)),
    }[target]()


def target_of(
    target: Prediction,
    schedule: Schedule,
    x0: Float[Array, " batch *shape"],
    x1: Float[Array, " batch *shape"],
    t: Float[Array, "batch ..."],
) -> Float[Array, " batch *shape"]:
    """The value that a network is trained to predict, a x1 + b x0.

    Args:
        target: a name of `PREDICTIONS`.
        schedule: the schedule of the path.
        x0: source points (batch, ...).
        x1: data points (batch, ...).
        t: times (batch,).

    Returns:
        An array shaped as x1, in float32 or wider.

    Raises:
        InputError: the target is unknown.
    """
    x0, x1 = as_floats("x0", x0), as_floats("x1", x1)
    check_shaped_as("x0", x0, "x1", x1.shape)
    a, b = coefficients(target, schedule, expand(times_of(t, x1), x1))
    return a * x1 + b * x0


def convert(
    prediction: Float[Array, " batch *shape"],
    x_t: Float[Array, " batch *shape"],
    t: Float[Array, "batch ..."],
    schedule: Schedule,
    *,
    source: Prediction,
    target: Prediction,
) -> Float[Array, " batch *shape"]:
    """Turns a prediction of one target into one of another.

    A ``"score"`` is -E[x0 | x_t] / sigma, which is grad log p_t only if x0 is standard normal and
    independent of x1: not under a coupling such as minibatch transport, after reflow, or from a
    source of another distribution. The other conversions hold under any coupling.

    Args:
        prediction: what the network predicted at x_t (batch, ...).
        x_t: the point on the path (batch, ...).
        t: times (batch,).
        schedule: the schedule of the path.
        source: what was predicted, a name of `PREDICTIONS`.
        target: what is wanted, a name of `PREDICTIONS`.

    Returns:
        The target, shaped as x_t, in float32 or wider.

    Raises:
        InputError: a name is unknown, an array is not of floats, or the prediction is not shaped as
            x_t.

    Example:
        >>> x1, x_t, t = jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.array([0.5])
        >>> convert(x1, x_t, t, schedules.Linear(), source="x1", target="velocity")
        Array([[-2.]], dtype=float32)
    """
    check_schedule("the schedule", schedule)
    x_t = as_floats("x_t", x_t)
    t = times_of(t, x_t)
    check_returned("the network", prediction, "x_t", x_t)
    prediction = at_least_float32(prediction)
    of_x_t, of_prediction = _linear(schedule, expand(t, x_t), source, target)
    return of_x_t * x_t + of_prediction * prediction


def endpoints(
    prediction: Float[Array, " batch *shape"],
    x_t: Float[Array, " batch *shape"],
    t: Float[Array, "batch ..."],
    schedule: Schedule,
    *,
    source: Prediction,
) -> Endpoints:
    """The x0 and x1 that a prediction at x_t implies; arguments and errors as in `convert`."""
    return Endpoints(
        *(convert(prediction, x_t, t, schedule, source=source, target=end) for end in ("x0", "x1"))
    )


def error_ratio(
    t: Float[Array, "*t"], schedule: Schedule, *, source: Prediction, target: Prediction
) -> Float[Array, "*t"]:
    """What an error of 1 in the prediction of `source` becomes after its conversion to `target`.

    det_target / det_source, with its sign: on the straight path, an error in the velocity is
    1 - t times as large in x1, and -t times in x0.

    Args:
        t: times, any shape.
        schedule: the schedule of the path.
        source: what was predicted, a name of `PREDICTIONS`.
        target: what it is converted to, a name of `PREDICTIONS`.

    Returns:
        The factor, shaped as t.

    Raises:
        InputError: a name is unknown.
    """
    return _linear(schedule, at_least_float32(t), source, target)[1]


def convert_weight(
    weight: TimeFunction | None,
    schedule: Schedule,
    *,
    source: Prediction,
    target: Prediction,
) -> TimeFunction:
    """The weight under which training on `target` is the same loss as `weight` on `source`.

    weight_target(t) = weight_source(t) r(t)^2, with r the `error_ratio` from target to source; then
    weight_source |error in source|^2 = weight_target |error in target|^2 at every t and x_t.

    Args:
        weight: the loss weight of `source`, a function of t (batch,); 1 if None.
        schedule: the schedule of the path.
        source: the target that `weight` belongs to, a name of `PREDICTIONS`.
        target: the target that the network predicts, a name of `PREDICTIONS`.

    Returns:
        The loss weight of `target`, a function of t (batch,). It is bounded: where the conversion
        is singular it is read a little inside (see `fmjax.predictions`).

    Raises:
        InputError: a name is unknown.
    """
    for name in (source, target):
        _check_prediction(name)

    def converted(t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        square = jnp.square(error_ratio(t, schedule, source=target, target=source))
        if weight is None:
            return square
        given = weight(t)
        check_returned("the weight", given, "t", square)
        return given * square

    return converted


def as_velocity(
    apply_fn: ApplyFn,
    schedule: Schedule,
    prediction: Prediction = "velocity",
    margin: float = 0.02,
    *,
    manifold: Manifold | None = None,
) -> ApplyFn:
    """The network as one that predicts velocities, for guidance, sampling and likelihood.

    At an end where the prediction says nothing of the velocity (x1 at t = 1, x0 at t = 0) `convert`
    divides by next to nothing, and multiplies the error of a network by 100,000. Solvers evaluate
    there; so nearer to such an end than the margin, the velocity is the one at the margin.

    Args:
        apply_fn: the network, ``apply_fn(params, x, t, labels) -> prediction``.
        schedule: the schedule it was trained on.
        prediction: what it predicts, a name of `PREDICTIONS`.
        margin: how near, in (0, 0.5); errors grow at most by about its inverse.
        manifold: of a flow that was trained on a `fmjax.paths.GeodesicPath`, whose ``kappa`` is
            then the schedule. The velocity is a tangent vector at x, and of a network that predicts
            x1 it is d_kappa / (1 - kappa) log_x(x1), x1 projected to the manifold.

    Returns:
        ``apply_fn(params, x, t, labels) -> velocity``; of an `fmjax.conventions.Output` it takes
        the part named as the prediction. Of a network of two times the prediction is that of an
        average velocity, converted at the time s of x.

    Raises:
        InputError: the name is unknown, or on a manifold neither "velocity" nor "x1"; or the margin
            lies outside (0, 0.5).

    Example:
        >>> to_zero = as_velocity(lambda params, x, t, labels: 0 * x, schedules.Linear(), "x1")
        >>> to_zero(None, jnp.ones((1, 1)), jnp.array([0.5]), None)
        Array([[-2.]], dtype=float32)
    """
    _check_prediction(prediction)
    check_schedule("the schedule", schedule)
    check_between("the margin", margin, 0, 0.5, "()")
    check_methods("apply_fn", apply_fn, such_as="lambda params, x, t, labels: ...")

    def predict(params, x, t, labels):
        predicted = take_part(apply_fn(params, x, t, labels), prediction)
        check_returned("the network", predicted, "x", x)
        return predicted

    if manifold is not None:
        check_methods("the manifold", manifold, "exp", "log", such_as="manifolds.Sphere(2)")
        return geodesic_velocity(predict, schedule, prediction, margin, manifold)
    if prediction == "velocity":
        return predict
    low, high = _reach_of_det(schedule, "x0" if prediction == "score" else prediction)
    low, high = margin if low > 0 else 0.0, 1.0 - margin if high < 1 else 1.0

    def velocity_fn(params, x, t, labels):
        here = clamp(time_of(t), low, high)
        t = Span(here, jnp.where(t.t == t.s, here, t.t)) if isinstance(t, Span) else here
        predicted = predict(params, x, t, labels)
        return convert(predicted, x, here, schedule, source=prediction, target="velocity")

    return velocity_fn


def _check_prediction(target: Prediction) -> None:
    check_name("prediction target", target, PREDICTIONS)


def det_of(schedule: Schedule, target: Prediction, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
    """alpha b - sigma a: 0 where the target says no more than x_t itself."""
    a, b = coefficients(target, schedule, t)
    return schedule.alpha(t) * b - schedule.sigma(t) * a


def reach(f: TimeFunction) -> tuple[float, float]:
    """The interval of t in which f may divide: [0, 1], shortened at an end where f vanishes.

    There it ends at the first of `END_DISTANCES` at which f can be divided by.

    f depends on no data, so it is evaluated here and now, in a traced program too.
    """
    with jax.ensure_compile_time_eval():
        near = jnp.asarray([0.0, *END_DISTANCES])
        at_ends = np.abs(np.asarray(f(jnp.stack([near, 1.0 - near]))))  # one row for each end
    divisible = at_ends[:, 1:] > 1e-14
    divisible[:, -1] = True
    low, high = np.where(
        at_ends[:, 0] > 1e-6, 0.0, np.asarray(END_DISTANCES)[divisible.argmax(axis=1)]
    )
    return float(low), 1.0 - float(high)


@functools.lru_cache(maxsize=256)
def _reach_of_det(schedule: Schedule, target: Prediction) -> tuple[float, float]:
    return reach(functools.partial(det_of, schedule, target))


def _score_of_x0(schedule: Schedule, t: Array) -> Array:
    # |det| of a prediction of x1 is sigma.
    return -1.0 / schedule.sigma(clamp(t, *_reach_of_det(schedule, "x1")))


def _linear(
    schedule: Schedule, t: Array, source: Prediction, target: Prediction
) -> tuple[Array, Array]:
    """(A, B) such that the target is A x_t + B prediction, shaped as t."""
    _check_prediction(source)
    _check_prediction(target)
    # A score is x0 in another unit, and that unit alone is infinite at t = 1: convert x0 itself.
    base, wanted = ("x0" if name == "score" else name for name in (source, target))
    of_x_t, of_prediction = jnp.zeros_like(t), jnp.ones_like(t)
    if base != wanted:
        inner = clamp(t, *_reach_of_det(schedule, base))
        a, b = coefficients(base, schedule, inner)
        c, d = coefficients(wanted, schedule, inner)
        alpha, sigma = schedule.alpha(inner), schedule.sigma(inner)
        det = alpha * b - sigma * a
        of_x_t, of_prediction = (c * b - d * a) / det, (alpha * d - sigma * c) / det
    if source == target:
        return of_x_t, of_prediction
    if source == "score":
        of_prediction = of_prediction * -schedule.sigma(t)
    if target == "score":
        unit = _score_of_x0(schedule, t)
        of_x_t, of_prediction = unit * of_x_t, unit * of_prediction
    return of_x_t, of_prediction
