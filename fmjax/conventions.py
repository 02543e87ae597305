"""The one convention, stated once.

====================  ==============================================================================
time                  t = 0 is the source x0 (noise), t = 1 is the data x1; t has shape (batch,)
path                  x_t = alpha_t x1 + sigma_t x0
velocity              u_t = d_alpha_t x1 + d_sigma_t x0
network               any pure function ``apply_fn(params, x, t, labels) -> velocity``, shaped as x
labels                class ids (batch,), a pytree of per-example conditions, or None
loss                  ``loss_fn(params, x0, x1, t, labels) -> scalar``: no key, no hidden state
guidance              u = (1 - w) u_null + w u_cond: 0 unconditional, 1 conditional, above 1 guided
====================  ==============================================================================

SD3 and FLUX count time the other way round (t = 1 is noise); what is taken from them is converted
where it enters, and its docstring says so.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Params = Any
Labels = Any

ApplyFn = Callable[[Params, Array, Array, Labels], Array]
"""A network: ``apply_fn(params, x, t, labels) -> velocity``."""

Velocity = Callable[[Array, Array, Labels], Array]
"""A network with its parameters bound: ``velocity(x, t, labels) -> velocity``."""


def expand(t: Array, x: Array) -> Array:
    """Appends axes of size one to t (batch,) until ``t * x`` is a product per example."""
    return jnp.reshape(t, t.shape + (1,) * (x.ndim - t.ndim))


def at_least_float32(x: Array) -> Array:
    """Casts half-precision and integer arrays to float32; float32 and float64 stay as they are.

    Half of 1001 equally spaced times coincide in bfloat16, so the path is never computed in it.
    """
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
