"""Losses: regress a network on the velocity of a path.

    L(params) = E w(t) D(v(x_t, t, labels) - u_t),   D(e) = ||e||^2 / d

with d the number of features of one example. The loss is a function of its arguments alone: x0, t,
the coupling and the label drop are drawn before it (see `fmjax.draws`). Path, target, prediction,
distance D and weight w are chosen independently of each other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fmjax.conventions import ApplyFn, Array, Labels, Params, at_least_float32, check_batch, expand
from fmjax.errors import InputError, unknown_name
from fmjax.paths import AffinePath, BrownianBridge, Path
from fmjax.predictions import TARGETS as PREDICTIONS
from fmjax.predictions import target_of
from fmjax.schedules import Linear

TARGETS = ("fm", "rf")
STRAIGHT = AffinePath(Linear(sigma_min=0.0))

LossFn = Callable[[Params, Array, Array, Array, Labels], Array]
Distance = Callable[[Array], Array]
"""From errors (batch, ...) to one number per example (batch,)."""


def _sum_of_squares(error: Array) -> Array:
    return jnp.sum(jnp.square(error), axis=tuple(range(1, error.ndim)))


def squared(error: Array) -> Array:
    """The mean squared error over the features, ``||e||^2 / d``: (batch, ...) -> (batch,)."""
    return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))


@dataclass(frozen=True)
class PseudoHuber:
    """The pseudo-Huber distance: quadratic below c, linear above, smooth everywhere.

    D(e) = sqrt(||e||^2 + c^2) - c, with ||e||^2 summed over the d features. Source: Song and
    Dhariwal, arXiv:2310.14189, section 3.3, where c = 0.00054 sqrt(d).

    Args:
        c: where it turns linear, positive; 0.00054 sqrt(d) if None.

    Raises:
        InputError: c is not positive.
    """

    c: float | None = None

    def __post_init__(self):
        if self.c is not None and not self.c > 0:
            raise InputError(f"c of the pseudo-Huber distance must be positive; got {self.c!r}.")

    def __call__(self, error: Array) -> Array:
        """Distances (batch,) of errors (batch, ...)."""
        c = 0.00054 * (error[0].size ** 0.5) if self.c is None else self.c
        square = _sum_of_squares(error)
        # sqrt(s + c^2) - c without the cancellation at small errors.
        return square / (jnp.sqrt(square + c**2) + c)


@dataclass(frozen=True)
class Adaptive:
    """The squared error divided by a power of itself, the divisor taken as a constant.

    D(e) = ||e||^2 / stop_gradient(||e||^2 + c)^p, with ||e||^2 summed over the features: p = 0 is
    the squared error, p = 0.5 has the gradient of a pseudo-Huber distance. Source: Geng et al.,
    arXiv:2505.13447, eq. (22) and the text after it.

    Args:
        power: p, in [0, 1].
        c: positive; keeps the weight of small errors finite.

    Raises:
        InputError: power lies outside [0, 1], or c is not positive.
    """

    power: float = 1.0
    c: float = 1e-3

    def __post_init__(self):
        if not 0 <= self.power <= 1:
            raise InputError(f"the power of the adaptive weight must lie in [0, 1]; got {self!r}.")
        if not self.c > 0:
            raise InputError(f"c of the adaptive weight must be positive; got {self.c!r}.")

    def __call__(self, error: Array) -> Array:
        """Weighted errors (batch,) of errors (batch, ...)."""
        square = _sum_of_squares(error)
        return square / jax.lax.stop_gradient((square + self.c) ** self.power)


def make_per_example_loss_fn(
    apply_fn: ApplyFn,
    path: Path | None = None,
    target: str = "fm",
    *,
    prediction: str = "velocity",
    distance: Distance = squared,
) -> LossFn:
    """Makes ``losses(params, x0, x1, t, labels) -> (batch,)``, the error of each example.

    ``"fm"`` regresses on u_t = d_alpha_t x1 + d_sigma_t x0 of the chosen path (Lipman et al.,
    arXiv:2210.02747, eq. (9)); ``"rf"`` on x1 - x0 along the straight path, whatever the coupling
    (Liu et al., arXiv:2209.03003, eq. (1)). On the linear path with sigma_min = 0 they are equal;
    with sigma_min = s the targets differ by s x0.

    Args:
        apply_fn: the network, ``apply_fn(params, x, t, labels) -> prediction``.
        path: the path of target ``"fm"``; the straight path if None. A stochastic one takes
            ``Noisy(x0, z)`` for x0.
        target: ``"fm"`` or ``"rf"``.
        prediction: what the network predicts and the error is measured in: ``"velocity"``,
            ``"x1"``, ``"x0"``, ``"score"`` or ``"v"`` (see `fmjax.predictions`, which also turns
            such a network into a velocity, and converts weights).
        distance: from errors (batch, ...) to (batch,): `squared`, `PseudoHuber`, `Adaptive`, any.

    Returns:
        A function of params, x0 (batch, ...), x1 (batch, ...), t (batch,) and labels that gives the
        distance of each example, (batch,), in float32 whatever apply_fn computes in.

    Raises:
        InputError: the target or the prediction is unknown, ``"rf"`` is asked on a path that is not
            straight, or anything but the velocity is to be predicted on a path that has no
            schedule. Calling the result raises it when shapes do not fit, the network's included.
    """
    path = STRAIGHT if path is None else path
    regress = _regression(path, target, prediction)

    def per_example_loss_fn(params, x0, x1, t, labels=None):
        check_batch(x0, x1, t, labels)
        x_t, goal = regress(x0, x1, t)
        predicted = apply_fn(params, x_t, at_least_float32(t), labels)
        return distance(_error(predicted, goal))

    return per_example_loss_fn


def _error(predicted: Array, goal: Array) -> Array:
    if predicted.shape != goal.shape:
        raise InputError(
            f"apply_fn must return an array shaped as x, {goal.shape}; got {predicted.shape}."
        )
    return at_least_float32(predicted) - goal


def _regression(path: Path, target: str, prediction: str) -> Callable:
    """``regress(x0, x1, t) -> (x_t, what the network is to predict there)``."""
    if target not in TARGETS:
        raise unknown_name("target", target, TARGETS)
    if prediction not in PREDICTIONS:
        raise unknown_name("prediction", prediction, PREDICTIONS)
    if target == "rf" and path != STRAIGHT:
        raise InputError(
            f"target 'rf' is x1 - x0 on the straight path; it takes no other path, got {path}. "
            "Write target='fm' for this path, or leave path out."
        )
    if prediction == "velocity":
        return path.sample if target == "fm" else _rectified_flow
    if path.stochastic:
        raise InputError(
            f"prediction {prediction!r} needs a path with a schedule; on {path} the network "
            "predicts the velocity (its score is trained by make_flow_and_score_loss_fn)."
        )

    def regress(x0, x1, t):
        x0, x1, t = at_least_float32(x0), at_least_float32(x1), at_least_float32(t)
        return path.sample(x0, x1, t).x_t, target_of(prediction, path.schedule, x0, x1, t)

    return regress


def _rectified_flow(x0: Array, x1: Array, t: Array) -> tuple[Array, Array]:
    """x1 - x0, written out rather than read off the schedule: the definition holds for any pair."""
    return STRAIGHT.sample(x0, x1, t).x_t, at_least_float32(x1) - at_least_float32(x0)


def make_loss_fn(
    apply_fn: ApplyFn,
    path: Path | None = None,
    target: str = "fm",
    weight: Callable[[Array], Array] | None = None,
    *,
    prediction: str = "velocity",
    distance: Distance = squared,
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
    """
    per_example = make_per_example_loss_fn(
        apply_fn, path, target, prediction=prediction, distance=distance
    )

    def loss_fn(params, x0, x1, t, labels=None):
        losses = per_example(params, x0, x1, t, labels)
        return jnp.mean(losses if weight is None else weight(t) * losses)

    return loss_fn


def make_flow_and_score_loss_fn(
    flow_fn: ApplyFn, score_fn: ApplyFn, bridge: BrownianBridge
) -> LossFn:
    """Makes the loss of flow and score together on a Brownian bridge, for one set of parameters.

    L = E ||v(x_t, t) - u_t||^2 / d + E ||std_t s(x_t, t) + z||^2 / d,

    the score weighted by the bridge's standard deviation std_t, under which its target, -z, has
    variance one at every t. Source: Tong et al., arXiv:2307.03672 ([SF]2M), section 3, whose
    weight is 2 std_t / sigma^2.

    Args:
        flow_fn: the velocity network, ``flow_fn(params, x, t, labels)``.
        score_fn: the score network, ``score_fn(params, x, t, labels)``.
        bridge: the path.

    Returns:
        ``loss_fn(params, Noisy(x0, z), x1, t, labels) -> scalar``.

    Raises:
        InputError: calling the result raises it when shapes do not fit.
    """

    def loss_fn(params, x0, x1, t, labels=None):
        check_batch(x0, x1, t, labels)
        x_t, u_t = bridge.sample(x0, x1, t)
        t = at_least_float32(t)
        flow = _error(flow_fn(params, x_t, t, labels), u_t)
        scaled = expand(bridge.std(t), x_t) * score_fn(params, x_t, t, labels)
        score = _error(scaled, -at_least_float32(x0.z))
        return jnp.mean(squared(flow)) + jnp.mean(squared(score))

    return loss_fn
