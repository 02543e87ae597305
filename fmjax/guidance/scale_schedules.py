"""Scale schedules: how the guidance scale w depends on the time t."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_name
from fmjax.conventions import Array, at_least_float32

ScaleSchedule = Callable[
    [Float[Array, " batch"], Float[Array, "batch ..."]], Float[Array, " batch"]
]
"""From scales w (batch,) and times t (batch,) to the scales at those times (batch,)."""

SCALE_SCHEDULES: dict[str, ScaleSchedule] = {
    "constant": lambda w, t: w,
    "linear": lambda w, t: 1 + (w - 1) * 2 * t,
    "cosine": lambda w, t: 1 + (w - 1) * (1 - jnp.cos(jnp.pi * t)),
}
"""How w depends on t, by name. The excess w - 1 is multiplied by 1, 2 t or 1 - cos(pi t), each of
mean 1, so that w = 1 stays the conditional field. Source: Wang et al., arXiv:2404.13040, where the
factors are written in noise time, 1 - t here."""


def scale_schedule(schedule: str | ScaleSchedule) -> ScaleSchedule:
    """A schedule by name or as it is, its result checked.

    Raises:
        InputError: the name is unknown; or, when called, it does not give one scale per example.
    """
    if not callable(schedule):
        check_name("guidance schedule", schedule, SCALE_SCHEDULES)
    given = schedule if callable(schedule) else SCALE_SCHEDULES[schedule]

    def at(w: Float[Array, " batch"], t: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        scale = given(w, at_least_float32(t))
        if isinstance(scale, int):
            scale = float(scale)
        one_for_all = jax.ShapeDtypeStruct((), w.dtype)
        wanted = w if getattr(scale, "ndim", 0) else one_for_all
        check_returned("the guidance schedule", scale, "the scales", wanted)
        return jnp.broadcast_to(jnp.asarray(scale, w.dtype), w.shape)

    return at
