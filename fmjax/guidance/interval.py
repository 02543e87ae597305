"""The guidance interval: at which times a velocity is guided, and which branches that spares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Bool, Float, Int

from fmjax.checks import check_between
from fmjax.conventions import AnyArray, Array, Times, at_least_float32, expand
from fmjax.errors import InputError

SLACK = 1e-6
"""The rounding of a solver's float32 times, which must not decide at the end of an interval."""

STILL, CONDITIONAL, GUIDED = 0, 1, 2  # the levels, each costing more than the one before


@dataclass(frozen=True)
class GuidanceInterval:
    """When a velocity is guided: before `zero_until` it is 0, outside `interval` conditional.

    Both ends of the interval lie inside; times are compared to within 1e-6.

    Args:
        interval: (lo, hi), 0 <= lo <= hi <= 1; None for always. Source: Kynkaanniemi et al.,
            arXiv:2404.07724.
        zero_until: in [0, 1). Source: the zero-init of Fan et al., arXiv:2503.18886.

    Raises:
        InputError: the interval is upside down or leaves [0, 1], or zero_until leaves [0, 1).
    """

    interval: tuple[float, float] | None = None
    zero_until: float = 0.0

    def __post_init__(self):
        if self.interval is not None:
            check_interval(self.interval)
        check_between("zero_until", self.zero_until, 0, 1, "[)")

    @property
    def open(self) -> bool:
        """Whether the velocity is guided at every t."""
        return self.interval is None and self.zero_until == 0

    def level(self, t: Float[AnyArray, "*t"]) -> Int[AnyArray, "*t"]:
        """0 where the velocity is 0, 1 where it is conditional, 2 where it is guided."""
        lo, hi = (0.0, 1.0) if self.interval is None else self.interval
        inside = (t >= lo - SLACK) & (t <= hi + SLACK)
        return (CONDITIONAL + inside) * (t >= self.zero_until - SLACK)


def check_interval(interval: Any) -> None:
    """Checks an interval of times.

    Raises:
        InputError: it is upside down, leaves [0, 1], or is none.
    """
    try:
        lo, hi = interval
        inside = 0 <= lo <= hi <= 1
    except (TypeError, ValueError):
        inside = False
    if not inside:
        raise InputError(
            "the guidance interval must be (lo, hi) with 0 <= lo <= hi <= 1, in our time: "
            f"0 is the noise, 1 the data; got {interval!r}."
        )


def evaluate_in_interval(
    when: GuidanceInterval,
    x: Any,
    t: Float[Array, "batch ..."],
    conditional: Callable[[], Any] | None,
    guided: Callable[[Bool[Array, "batch ..."] | None], Any],
) -> Any:
    """The guided velocity; what no example of the batch needs at its time is not computed.

    Args:
        when: when the velocity is 0, conditional or guided.
        x: points (batch, ...), or a pytree of such arrays.
        t: times (batch,).
        conditional: gives the conditional velocity; None if that takes every branch anyway.
        guided: ``guided(inside)`` gives the guided velocity of the examples that are inside, bool
            (batch,), and the conditional one of the others; None if all are.

    Returns:
        A velocity shaped as x.
    """
    if when.open:
        return guided(None)
    level = when.level(jax.lax.stop_gradient(at_least_float32(t)))

    def still(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))

    def moving(u: Any) -> Any:
        return jax.tree.map(lambda u: jnp.where(expand(level > STILL, u), u, 0.0), u)

    fields = [
        lambda: jax.tree.map(still, x),
        lambda: moving(guided(level == GUIDED)),
    ]
    if conditional is not None and when.interval is not None:
        fields.insert(CONDITIONAL, lambda: moving(conditional()))
    return jax.lax.switch(
        largest_level(level), fields
    )  # which reads a number too large as the last


@custom_vmap
def largest_level(level: Int[Array, "..."]) -> Int[Array, ""]:
    """The largest level, over every axis that is mapped, too.

    A condition that is mapped becomes a selection, for which every branch is computed. This one
    stays one decision for all: each field is right for all examples of its level and below.
    """
    return jnp.max(level, initial=STILL)


@largest_level.def_vmap
def _largest_of_mapped(axis_size, in_batched, level):
    return largest_level(level), False


def network_calls(
    times: Times,
    *,
    branches: int = 2,
    interval: tuple[float, float] | None = None,
    zero_until: float = 0.0,
) -> int:
    """The network evaluations for one example of a guided solve that evaluates at these times.

    Args:
        times: when the solver evaluates the velocity.
        branches: evaluations where it is guided: 2, or K + 1 for K conditions at once, which need
            all their branches outside the interval as well.
        interval: as in `GuidanceInterval`.
        zero_until: as in `GuidanceInterval`.

    Returns:
        Their number.

    Raises:
        InputError: as in `GuidanceInterval`.
    """
    levels = GuidanceInterval(interval, zero_until).level(np.asarray(times, np.float32))
    outside = 1 if branches <= 2 else branches
    return int(np.array([0, outside, branches])[levels].sum())
