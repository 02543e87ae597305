"""Rotary position embeddings along several axes (RoPE, arXiv:2104.09864).

A head of d numbers is d / 2 pairs. Pair k of the part that belongs to an axis, n numbers wide, is
turned in its plane by the angle

    position period^(-2 k / n),    k = 0, ..., n / 2 - 1

so that the product of a query and a key depends on the difference of their positions alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from fmjax.conventions import Array


class Rotation(NamedTuple):
    """Cosine and sine of the angle of each pair, of shape (T, d / 2), float32: constants."""

    cos: Float[Array | np.ndarray, "_ half"]
    sin: Float[Array | np.ndarray, "_ half"]


def axial_rotation(
    positions: Real[np.ndarray, "T axes"], sizes: Sequence[int], period: float = 10_000.0
) -> Rotation:
    """The rotation of each token by its positions.

    Args:
        positions: shape (T, axes), one position along each axis for each token.
        sizes: how many numbers of a head belong to each axis, each even; their sum is d.
        period: the ratio of the fastest to the slowest frequency (approached, not reached).

    Returns:
        The rotation of T tokens, computed in float64 and rounded once.
    """
    angles = [
        np.outer(positions[:, axis], period ** (-np.arange(0, size, 2) / size))
        for axis, size in enumerate(sizes)
    ]
    joined = np.concatenate(angles, axis=1)
    return Rotation(np.cos(joined).astype(np.float32), np.sin(joined).astype(np.float32))


def grid_positions(rows: int, columns: int) -> Real[np.ndarray, "{rows}*{columns} 2"]:
    """Row and column of each patch of a grid, row by row: shape (rows * columns, 2)."""
    return np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(
        -1, 2
    )


def unturned(count: int, rotation: Rotation) -> Rotation:
    """That rotation of T tokens behind `count` tokens that are not turned."""
    rows = ((count, 0), (0, 0))
    return Rotation(np.pad(rotation.cos, rows, constant_values=1), np.pad(rotation.sin, rows))


def rotate(x: Float[Array, "B T heads d"], rotation: Rotation) -> Float[Array, "B T heads d"]:
    """Turn the pairs (x_0, x_1), (x_2, x_3), ... of each head.

    Args:
        x: queries or keys, shape (B, T, heads, d).
        rotation: of T tokens.

    Returns:
        As x; the products are float32 (float64 if x is).
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    pairs = x.astype(dtype).reshape(*x.shape[:-1], -1, 2)
    cos, sin = (jnp.asarray(a, dtype)[None, :, None, :] for a in rotation)
    first, second = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
