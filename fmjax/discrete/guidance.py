"""Guidance of tokens: the rates of a condition to a power, against those without it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.array_checks import check_leading_size, is_concrete, times_of
from fmjax.checks import check_methods
from fmjax.conditions import share
from fmjax.conventions import Array, Labels, at_least_float32, take_part
from fmjax.discrete.base import LOGITS
from fmjax.discrete.guess import GuidedLogits
from fmjax.discrete.solvers import Denoiser
from fmjax.errors import InputError
from fmjax.guidance import Guided
from fmjax.guidance.interval import GUIDED, GuidanceInterval, largest_level
from fmjax.guidance.labels import null_like, per_example, stack
from fmjax.guidance.scale_schedules import ScaleSchedule, scale_schedule


def predictor_free(
    denoiser: Denoiser,
    null_labels: Labels,
    *,
    schedule: str | ScaleSchedule = "constant",
    interval: tuple[float, float] | None = None,
) -> Denoiser:
    """Guides tokens by a condition, both branches by `jax.vmap` in one call of the network.

        R(y, x) = R_c(y, x)^w R_u(y, x)^(1-w)       for y != x

    with the rates R_c under the condition and R_u without it: w = 0 is unconditional, w = 1
    conditional, both exactly, and w > 1 guided. Source: Nisonoff et al., arXiv:2406.01572.

    Args:
        denoiser: the network with its parameters bound, ``denoiser(x, t, labels) -> logits``.
        null_labels: the condition that stands for none, as in `fmjax.classifier_free`.
        schedule: how w depends on t, as in `fmjax.classifier_free`.
        interval: (lo, hi); outside it every scale is 1, and where no example of the batch is inside
            the branch without the condition is not computed.

    Returns:
        ``guided(x, t, Guided(labels, w))``, which gives `GuidedLogits` for every solver of tokens;
        a negative condition takes the place of the null one.

    Raises:
        InputError: the schedule is unknown, or the interval impossible. When called: without
            labels, with w below 0, or neither one number nor one per example, or with labels that
            the null condition does not fit.
    """
    check_methods("the network", denoiser, such_as="lambda x, t, labels: ...")
    at, when = scale_schedule(schedule), GuidanceInterval(interval)

    def guided(x: Array, t: Array, conditions: Guided) -> GuidedLogits:
        labels, reference = _conditions(x, conditions, null_labels)
        times = times_of(t, x)
        w = per_example("w", conditions.w, x)
        _check_scale(conditions.w)
        w = at(w, times)

        def logits(labels: Labels) -> Array:
            return at_least_float32(take_part(denoiser(x, t, labels), LOGITS))

        def conditional() -> GuidedLogits:
            given = logits(labels)
            return GuidedLogits(given, given, jnp.ones_like(w))

        def both(inside: Array | None) -> GuidedLogits:
            without, given = jax.vmap(logits)(stack(reference, labels))
            scale = w if inside is None else jnp.where(inside, w, 1.0)
            return GuidedLogits(without, given, scale)

        if when.open:
            return both(None)
        level = when.level(jax.lax.stop_gradient(times))
        some = largest_level(level) == GUIDED
        return jax.lax.cond(some, lambda: both(level == GUIDED), conditional)

    return guided


def _conditions(x: Array, conditions: Guided, null_labels: Labels) -> tuple[Labels, Labels]:
    """The labels, and what stands for none."""
    if not isinstance(conditions, Guided) or conditions.labels is None:
        raise InputError(
            "guided tokens take Guided(labels, w) with labels that are not None; got "
            f"{type(conditions).__name__}. An unconditional model has nothing to guide."
        )
    labels = jax.tree.map(jnp.asarray, share(conditions.labels, x.shape[0]))
    check_leading_size(labels, x.shape[0])
    negative = conditions.negative
    return labels, null_like(labels, null_labels if negative is None else negative)


def _check_scale(w: Any) -> None:
    """Refuses scales below 0 as the caller gave them: what is made of them, a solver traces."""
    if not is_concrete(w):
        return
    least = np.min(np.asarray(w))
    if least < 0:
        raise InputError(
            f"w must be at least 0 for tokens, 0 without the condition; got {least:g}. "
            "To lead away from a condition write Guided(labels, w, negative=...)."
        )
