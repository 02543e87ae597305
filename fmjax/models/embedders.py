"""Embeddings of time, class, guidance scale and position.

Time is embedded in float32 (float64 if `t` is) whatever the network computes in: half of the times
0, 1/1000, ..., 1 coincide in bfloat16.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

TIME_SCALE = 1000.0
GUIDANCE_SCALE = 10.0  # of a scale w up to 10: angles up to 100, smooth between scales
_normal = nn.initializers.normal(0.02)


def sinusoidal(
    t: jax.Array, dim: int, *, scale: float = TIME_SCALE, max_period: float = 10_000.0
) -> jax.Array:
    """Cosines, then sines, of the time at geometrically spaced frequencies.

    With h = dim / 2 and k = 0, ..., h - 1:

        f_k = max_period^(-k / h),    out = [cos(scale t f_0), ..., sin(scale t f_{h-1})]

    The frequencies are those of DiT (arXiv:2212.09748), which counts 1000 diffusion steps; our t
    lies in [0, 1], so that `scale` is 1000 to use the same frequencies on the same range.

    Args:
        t: times in [0, 1], shape (B,).
        dim: number of features, even.
        scale: what t is multiplied by.
        max_period: the ratio of the fastest to the slowest frequency (approached, not reached).

    Returns:
        Shape (B, dim), float32 (float64 if t is).
    """
    t = t.astype(jnp.promote_types(t.dtype, jnp.float32))
    half = dim // 2
    frequencies = np.exp(-np.log(max_period) * np.arange(half) / half)
    angles = t[:, None] * jnp.asarray(scale * frequencies, t.dtype)[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def sincos_2d(rows: int, columns: int, width: int) -> np.ndarray:
    """The fixed position embedding of a grid of patches (MAE, arXiv:2111.06377, as in DiT).

    With q = width / 4 and w_k = 10000^(-k / q), the patch in row i and column j, number
    i * columns + j, gets

        [sin(j w), cos(j w), sin(i w), cos(i w)]

    Args:
        rows: number of rows of patches.
        columns: number of columns of patches.
        width: number of features, a multiple of 4.

    Returns:
        A NumPy array of shape (rows * columns, width), float32: a constant, not a parameter.
    """
    quarter = width // 4
    frequencies = 10_000.0 ** (-np.arange(quarter) / quarter)
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    across, down = (np.outer(k.ravel(), frequencies) for k in (j, i))
    parts = [np.sin(across), np.cos(across), np.sin(down), np.cos(down)]
    return np.concatenate(parts, axis=1).astype(np.float32)


class TimeEmbed(nn.Module):
    """Sinusoidal features of the time, then Dense, SiLU, Dense (arXiv:2212.09748, section 3.2).

    Attributes:
        width: number of output features.
        features: number of sinusoidal features, even.
        scale: what t in [0, 1] is multiplied by first; see `sinusoidal`.
        zero_init: whether the embedding is zero at first.
    """

    width: int
    features: int = 256
    scale: float = TIME_SCALE
    zero_init: bool = False

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        """Embed t of shape (B,) as (B, width), float32 (float64 if t is)."""
        h = sinusoidal(t, self.features, scale=self.scale)
        h = nn.silu(nn.Dense(self.width, kernel_init=_normal, name="dense_0")(h))
        init = nn.initializers.zeros_init() if self.zero_init else _normal
        return nn.Dense(self.width, kernel_init=init, name="dense_1")(h)


class LabelEmbed(nn.Module):
    """One learned vector per class, and one more for "no class" (arXiv:2207.12598).

    Attributes:
        num_classes: number of classes; the null class is row `num_classes` of the table.
        width: number of features.
    """

    num_classes: int
    width: int

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        """Embed class ids (B,), or weights over the classes, as (B, width), float32.

        Weights are of floating dtype and of shape (B, num_classes + 1); they embed as the weighted
        sum of the rows, a row of the identity as its class. Ids out of range become NaN.
        """
        table = self.param("table", _normal, (self.num_classes + 1, self.width), jnp.float32)
        if jnp.issubdtype(labels.dtype, jnp.floating):
            return jnp.matmul(labels, table, precision=jax.lax.Precision.HIGHEST)
        # An id out of range would otherwise be clipped, or wrap to the null class, in silence.
        return (
            jnp.asarray(table)
            .at[labels]
            .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        )


class Condition(nn.Module):
    """The vector that conditions a network: embeddings of time, of class, and of guidance scale.

    Attributes:
        width: number of features.
        num_classes: number of classes, or None for time alone.
        time_features: number of sinusoidal features.
        time_scale: what t in [0, 1] is multiplied by; see `sinusoidal`.
        guidance: whether a guidance scale is embedded, too. That embedding is zero at first, so
            that a network which takes its other weights from a trained one starts as that one.
    """

    width: int
    num_classes: int | None = None
    time_features: int = 256
    time_scale: float = TIME_SCALE
    guidance: bool = False

    @nn.compact
    def __call__(
        self, t: jax.Array, labels: jax.Array | None = None, w: jax.Array | None = None
    ) -> jax.Array:
        """Embed t (B,), labels (B,) and w (B,) as (B, width), float32 (float64 if t is)."""
        c = TimeEmbed(self.width, self.time_features, self.time_scale, name="time")(t)
        if self.num_classes is not None:
            c = c + LabelEmbed(self.num_classes, self.width, name="label")(labels)
        if self.guidance:
            embed = TimeEmbed(self.width, self.time_features, GUIDANCE_SCALE, True, name="guidance")
            c = c + embed(w)
        return c
