"""A number that tells whether an array tree is still the same, to the bit."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import UInt32

from fmjax.conventions import Array


@jax.jit
def fingerprint(tree: Any) -> UInt32[Array, ""]:
    """A uint32 that changes when a bit of the tree does, or when two values change places.

    The sum of all bit patterns, each times an odd number of its own, modulo 2^32: integer addition
    has no rounding, so it is the same on any number of devices in any sharding.
    """
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        if leaf.dtype == bool:
            leaf = leaf.astype(jnp.uint8)
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[leaf.dtype.itemsize]
        words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
        place = jnp.arange(words.size, dtype=jnp.uint32).reshape(words.shape)
        total += jnp.sum(words * (2 * (place + 7919 * number) + 1), dtype=jnp.uint32)
    return total
