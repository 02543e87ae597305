"""The network of these benchmarks: an MLP on Fourier features that open as the noise goes.

Features sin(w d.x) and cos(w d.x), d a random unit vector and w log-spaced from 1 to the scale of
the data, are multiplied by exp(-(1.2 w (1 - t))^2 / 2): at a time t the points of a path are spread
over a width near 1 - t, and what is finer than that is noise to a network.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fmjax import Span

_GATE = 1.2
_TIMES = 8  # cosines of the time


class GatedFourierMLP(nn.Module):
    """A velocity in the space around a manifold, to be projected to it.

    Attributes:
        features: the number of frequencies.
        largest: the largest of them.
        width: of the hidden layers.
        depth: their number; each adds to the one before.
        outputs: how many numbers it gives; None for as many as a point has.
        span: whether it takes two times, ``Span(s, t)``, for the average velocity between them.
    """

    features: int = 128
    largest: float = 100.0
    width: int = 256
    depth: int = 4
    outputs: int | None = None
    span: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array | Span, labels: None = None) -> jax.Array:
        """Numbers shaped as the points x (batch, ...), or (batch, outputs)."""
        flat = x.reshape(len(x), -1)
        s, end = (t.s, t.t) if self.span else (t, None)
        h = jnp.concatenate([flat, self._features(flat, s), _of_time(s)], axis=1)
        h = nn.Dense(self.width, name="first")(h)
        given = _of_time(s) if end is None else jnp.concatenate([_of_time(s), _of_time(end)], 1)
        for k in range(self.depth):
            shift = nn.Dense(self.width, use_bias=False, name=f"time_{k}")(given)
            h = h + nn.silu(nn.Dense(self.width, name=f"hidden_{k}")(h) + shift)
        count = self.outputs or flat.shape[1]
        out = nn.Dense(count, kernel_init=nn.initializers.zeros_init(), name="out")(h)
        return out if self.outputs else out.reshape(x.shape)

    def _features(self, flat: jax.Array, s: jax.Array) -> jax.Array:
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(self.features, flat.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        w = np.geomspace(1, self.largest, self.features)
        phase = flat @ jnp.asarray((w[:, None] * directions).T, flat.dtype)
        gate = jnp.exp(-0.5 * jnp.square(_GATE * jnp.asarray(w[None], s.dtype) * (1 - s)[:, None]))
        return jnp.concatenate([gate * jnp.sin(phase), gate * jnp.cos(phase)], axis=1)


def _of_time(t: jax.Array) -> jax.Array:
    """Cosines of t, and log(1 - t + 0.01), which tells late times apart (batch, 9)."""
    waves = jnp.cos(math.pi * jnp.arange(_TIMES)[None] * t[:, None])
    return jnp.concatenate([waves, jnp.log(1 - t[:, None] + 0.01)], axis=1)
