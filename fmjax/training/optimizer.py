"""The optimiser: clipping, AdamW and a learning-rate schedule, all from optax."""

import math
from collections.abc import Callable

import optax

from fmjax.checks import check_between, check_positive
from fmjax.errors import InputError, unknown_name
from fmjax.training.outliers import skip_outliers

SCHEDULES = ("constant", "cosine")


def learning_rate_schedule(
    peak: float, steps: int, warmup_steps: int = 0, schedule: str = "cosine"
) -> Callable[[int], float]:
    """The learning rate by update: a linear warm-up from 0 to the peak, then the schedule.

    Args:
        peak: the highest learning rate, positive.
        steps: updates of the whole run; the cosine ends there, at 0.
        warmup_steps: updates of the linear warm-up, fewer than steps.
        schedule: ``"constant"`` or ``"cosine"``.

    Returns:
        A function from the update's number to its learning rate.

    Raises:
        InputError: the schedule is unknown, the peak not positive, or the warm-up too long.
    """
    if schedule not in SCHEDULES:
        raise unknown_name("learning-rate schedule", schedule, SCHEDULES)
    check_positive("the learning rate", peak)
    if not 0 <= warmup_steps < steps:
        raise InputError(
            f"warm-up must be shorter than training; got {warmup_steps} of {steps} steps."
        )
    if schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if warmup_steps else peak, peak, warmup_steps, steps
        )
    return optax.warmup_constant_schedule(0.0 if warmup_steps else peak, peak, warmup_steps)


def make_optimizer(
    learning_rate: float | Callable[[int], float],
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
    clip_norm: float | None = 1.0,
    skip_above: float | None = None,
) -> optax.GradientTransformation:
    """AdamW after clipping by the global norm.

    Args:
        learning_rate: a number or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        weight_decay: decoupled weight decay (arXiv:1711.05101).
        clip_norm: the largest global gradient norm; None does not clip.
        skip_above: leaves out a step whose norm is so many times the running average of it; None
            takes every step.

    Returns:
        The optax transformation.

    Raises:
        InputError: b1 or b2 lies outside [0, 1), weight_decay outside [0, inf), clip_norm is not
            positive, or skip_above not above 1.
    """
    for name, decay in (("b1", b1), ("b2", b2)):
        check_between(name, decay, 0, 1, "[)")
    check_between("weight_decay", weight_decay, 0, math.inf, "[)")
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm, advice="For no clipping write None.")
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    adamw = optax.adamw(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)
    clipped = optax.chain(clip, adamw)
    return clipped if skip_above is None else skip_outliers(clipped, skip_above)
