"""The exponential moving average of the parameters, and the warm-up of its decay."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from fmjax.conventions import Array


def ema_decay(step: Int[Array, "*step"], decay: float) -> Float[Array, "*step"]:
    """The decay with warm-up, min(decay, (1 + step) / (10 + step)).

    Early averages forget the initial parameters quickly instead of dragging them along for
    1 / (1 - decay) steps. Source: the rule of tf.train.ExponentialMovingAverage(num_updates).
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + step) / (10 + step))


def update_ema(ema_params: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """The average after a step, d ema + (1 - d) params with d = ema_decay(step, decay).

    Args:
        ema_params: the average so far, float32.
        params: the parameters after the step; taken in float32.
        step: updates made before this one, int32 scalar.
        decay: reached after the warm-up.
    """
    new = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    return optax.incremental_update(new, ema_params, 1 - ema_decay(step, decay))
