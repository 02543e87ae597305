"""Large images part by part: tiles that overlap, each faded into its neighbours."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_at_least, check_between
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.models.input_checks import check_rank


def tiled(
    function: Callable[[Float[Array, "B _ _ C"]], Float[Array, "B _ _ c"]],
    x: Float[Array, "B H W C"],
    tile: int,
    overlap: float = 0.25,
) -> Float[Array, "B h w c"]:
    """Encodes or decodes an array tile by tile, so that memory stays that of one tile.

        images = tiled(autoencoder.decode, z, tile=64)
        means = tiled(lambda x: autoencoder.encode(x).mean, images, tile=512)

    Tiles overlap, and where they do the later one is faded in linearly. The result is not that of
    the whole at once: layers see no farther than their tile. Cut and faded as
    ``AutoencoderKL.tiled_decode`` of diffusers.

    Args:
        function: takes (batch, h, w, channels) and gives an array whose sides are larger, or
            smaller, by a fixed factor.
        x: (batch, height, width, channels).
        tile: side of a tile of `x`.
        overlap: the part of a tile that the next one covers too, in [0, 0.5]; a whole number of
            rows, of `x` and of the result.

    Returns:
        What the function gives, put together.

    Raises:
        InputError: the array has other axes, the tile is no whole number of at least 1, the overlap
            lies outside its range, or the two do not fit.

    Example:
        >>> z = jnp.arange(32.0).reshape(1, 4, 8, 1)
        >>> bool(jnp.allclose(tiled(jnp.sqrt, z, tile=4), jnp.sqrt(z)))  # it sees no neighbours
        True
    """
    check_rank(x, "(batch, height, width, channels)", 4, 4)
    check_at_least("tile", tile)
    check_between("overlap", overlap, 0, 0.5)
    if max(x.shape[1:3]) <= tile:
        return function(x)
    step = max(int(tile * (1 - overlap)), 1)
    rows = [
        [function(x[:, i : i + tile, j : j + tile]) for j in range(0, x.shape[2], step)]
        for i in range(0, x.shape[1], step)
    ]
    side = tile * rows[0][0].shape[1] // min(tile, x.shape[1])
    faded = int(side * overlap)
    if (side - faded) * tile != step * side:
        raise InputError(
            f"tiles of {tile}, {side} in the result, do not fit with overlap={overlap}: choose a "
            "tile of which the overlap is a whole number on both sides, such as 64 and 0.25."
        )
    for i, row in enumerate(rows):
        for j in range(len(row)):
            if i:
                row[j] = _fade(rows[i - 1][j], row[j], faded, axis=1)
            if j:
                row[j] = _fade(row[j - 1], row[j], faded, axis=2)
    kept = side - faded
    strips = [jnp.concatenate([part[:, :kept, :kept] for part in row], axis=2) for row in rows]
    return jnp.concatenate(strips, axis=1)


def _fade(before: Array, after: Array, length: int, axis: int) -> Array:
    """The second array, its beginning faded from the end of the first along an axis."""
    length = min(before.shape[axis], after.shape[axis], length)
    if not length:
        return after
    weight = jnp.arange(length, dtype=after.dtype) / length
    weight = weight.reshape([-1 if i == axis else 1 for i in range(after.ndim)])
    start = before.shape[axis] - length
    old = jax.lax.slice_in_dim(before, start, start + length, axis=axis)
    new = jax.lax.slice_in_dim(after, 0, length, axis=axis)
    rest = jax.lax.slice_in_dim(after, length, after.shape[axis], axis=axis)
    return jnp.concatenate([old * (1 - weight) + new * weight, rest], axis=axis)
