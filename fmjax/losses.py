"""Losses: regress a network on the velocity of a path.

    L(params) = E || v(x_t, t, labels) - u_t ||^2 / d

with d the number of features of one example. The loss is a function of its arguments alone: x0, t,
the coupling and the label drop are drawn before it (see `fmjax.draws`).
"""

from collections.abc import Callable

import jax.numpy as jnp

from fmjax.conventions import ApplyFn, Array, Labels, Params, at_least_float32, check_batch
from fmjax.errors import InputError, unknown_name
from fmjax.paths import AffinePath, PathSample
from fmjax.schedules import Linear

TARGETS = ("fm", "rf")
STRAIGHT = AffinePath(Linear(sigma_min=0.0))

LossFn = Callable[[Params, Array, Array, Array, Labels], Array]


def _flow_matching(path: AffinePath, x0: Array, x1: Array, t: Array) -> PathSample:
    return path.sample(x0, x1, t)


def _rectified_flow(path: AffinePath, x0: Array, x1: Array, t: Array) -> PathSample:
    """x1 - x0, written out rather than read off the schedule: the definition holds for any pair."""
    return PathSample(path.sample(x0, x1, t).x_t, at_least_float32(x1) - at_least_float32(x0))


def make_per_example_loss_fn(
    apply_fn: ApplyFn, path: AffinePath | None = None, target: str = "fm"
) -> LossFn:
    """Makes ``losses(params, x0, x1, t, labels) -> (batch,)``, the squared error of each example.

    ``"fm"`` regresses on u_t = d_alpha_t x1 + d_sigma_t x0 of the chosen path (Lipman et al.,
    arXiv:2210.02747, eq. (9)); ``"rf"`` on x1 - x0 along the straight path, whatever the coupling
    (Liu et al., arXiv:2209.03003, eq. (1)). On the linear path with sigma_min = 0 they are equal;
    with sigma_min = s the targets differ by s x0.

    Args:
        apply_fn: the network, ``apply_fn(params, x, t, labels) -> velocity``.
        path: the path of target ``"fm"``; the straight path if None.
        target: ``"fm"`` or ``"rf"``.

    Returns:
        A function of params, x0 (batch, ...), x1 (batch, ...), t (batch,) and labels that gives the
        mean over features of the squared error, (batch,), in float32 whatever apply_fn computes in.

    Raises:
        InputError: the target is unknown, or ``"rf"`` is asked on a path that is not straight.
            Calling the result raises it when shapes do not fit, the network's output included.
    """
    if target not in TARGETS:
        raise unknown_name("target", target, TARGETS)
    path = STRAIGHT if path is None else path
    if target == "rf" and path != STRAIGHT:
        raise InputError(
            f"target 'rf' is x1 - x0 on the straight path; it takes no other path, got {path}. "
            "Write target='fm' for this path, or leave path out."
        )
    sample = {"fm": _flow_matching, "rf": _rectified_flow}[target]

    def per_example_loss_fn(params, x0, x1, t, labels=None):
        check_batch(x0, x1, t, labels)
        x_t, u_t = sample(path, x0, x1, t)
        velocity = apply_fn(params, x_t, at_least_float32(t), labels)
        if velocity.shape != u_t.shape:
            raise InputError(
                f"apply_fn must return a velocity shaped as x, {u_t.shape}; got {velocity.shape}."
            )
        error = at_least_float32(velocity) - u_t
        return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))

    return per_example_loss_fn


def make_loss_fn(
    apply_fn: ApplyFn,
    path: AffinePath | None = None,
    target: str = "fm",
    weight: Callable[[Array], Array] | None = None,
) -> LossFn:
    """Makes ``loss_fn(params, x0, x1, t, labels) -> scalar``, deterministic and without a key.

    The mean over the batch of ``weight(t)`` times the per-example loss.

    Args:
        apply_fn: as in `make_per_example_loss_fn`.
        path: as in `make_per_example_loss_fn`.
        target: as in `make_per_example_loss_fn`.
        weight: weights (batch,) from times (batch,); all one if None.

    Returns:
        The loss function; its value is a float32 scalar.

    Raises:
        InputError: as in `make_per_example_loss_fn`.
    """
    per_example = make_per_example_loss_fn(apply_fn, path, target)

    def loss_fn(params, x0, x1, t, labels=None):
        losses = per_example(params, x0, x1, t, labels)
        return jnp.mean(losses if weight is None else weight(t) * losses)

    return loss_fn
