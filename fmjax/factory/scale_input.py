"""Networks that take the scale of guidance as an input, as networks that take labels alone."""

from typing import Any

import jax
import jax.numpy as jnp

from fmjax.conventions import ApplyFn


def at_scale_one(scaled: ApplyFn) -> ApplyFn:
    """A network that takes ``{"labels": labels, "guidance": w}``, at w = 1."""

    def apply_fn(params: Any, x: jax.Array, t: Any, labels: Any = None) -> Any:
        return scaled(params, x, t, {"labels": labels, "guidance": jnp.ones(len(x))})

    return apply_fn


def among_labels(network: ApplyFn, usual: float) -> ApplyFn:
    """A network that has the scale among its labels, as FLUX.1-dev has.

    Args:
        network: ``network(params, x, t, {**labels, "guidance": w})``.
        usual: the scale where none comes.

    Returns:
        ``apply_fn(params, x, t, labels)``; labels may be ``{"labels": labels, "guidance": w}``.
    """

    def apply_fn(params: Any, x: jax.Array, t: Any, labels: Any) -> Any:
        scale = jnp.full(len(x), usual)
        if labels.keys() == {"labels", "guidance"}:
            labels, scale = labels["labels"], labels["guidance"]
        return network(params, x, t, {**labels, "guidance": scale})

    return apply_fn
