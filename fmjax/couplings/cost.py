"""The cost of a pair: its squared distance, as a matrix over the batch."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Real

from fmjax.conventions import Array, at_least_float32, per_example_sum
from fmjax.errors import InputError
from fmjax.manifolds import Manifold

MEMORY_LIMIT = 2**30  # bytes of one cost matrix
FEW_FEATURES = 16


def squared_cost(
    x0: Real[Array, " n *features"], x1: Real[Array, " m *features"]
) -> Float[Array, "n m"]:
    """The matrix C_ij = |x0_i - x1_j|^2, features flattened.

    With few features the differences are squared and added, so that every entry is good to the
    last digits even where the clouds nearly touch. With many, the Gram matrix does it by one
    product, |a|^2 + |b|^2 - 2 a.b, both clouds moved by one mean first, since what is common to
    both would cancel only in exact arithmetic; distances are large there, and rounding small
    beside them.

    Args:
        x0: points (n, ...).
        x1: points (m, ...) with the features of x0.

    Returns:
        C (n, m), at least float32, never negative.
    """
    a = at_least_float32(x0).reshape(len(x0), -1)
    b = at_least_float32(x1).reshape(len(x1), -1)
    if a.shape[1] <= FEW_FEATURES:
        features = (a[:, None, k] - b[None, :, k] for k in range(a.shape[1]))
        return sum((jnp.square(d) for d in features), jnp.zeros((len(a), len(b)), a.dtype))
    middle = jnp.mean(b, axis=0, keepdims=True)
    a, b = a - middle, b - middle
    # Accelerators multiply in a short format unless told otherwise.
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :]
    return jnp.maximum(norms - 2 * products, 0)


def geodesic_cost(manifold: Manifold, x0: Any, x1: Any) -> Float[Array, "n n"]:
    """The matrix C_ij = dist(x0_i, x1_j)^2 of a manifold, summed over the points of an example.

    Args:
        manifold: where the points are.
        x0: points (n, ..., *shape of the manifold), or a pytree of such arrays for a product.
        x1: points (n, ...), built as x0.

    Returns:
        C (n, n), at least float32.

    Raises:
        InputError: the points are off the manifold, or the matrix would not fit.
    """
    manifold.check("x0", x0)
    manifold.check("x1", x1)
    # The distances of all pairs hold as many points as the matrix has entries.
    check_memory(len(jax.tree.leaves(x1)[0]), sum(4 * leaf[0].size for leaf in jax.tree.leaves(x1)))

    # Which pair is chosen is not differentiable.
    x0, x1 = jax.lax.stop_gradient(jax.tree.map(jnp.asarray, (x0, x1)))

    def row(a):
        start = jax.tree.map(lambda one, many: jnp.broadcast_to(one, jnp.shape(many)), a, x1)
        return per_example_sum(jnp.square(manifold.dist(start, x1)))

    return jax.vmap(row)(x0)


def check_memory(size: int, itemsize: int = 4) -> None:
    """Refuses a cost matrix (size, size) of more than a gibibyte, before it is made.

    Args:
        size: rows of the matrix.
        itemsize: bytes of one entry.

    Raises:
        InputError: the matrix would not fit.
    """
    needed = size * size * itemsize
    if needed > MEMORY_LIMIT:
        groups = -(-size // int((MEMORY_LIMIT / itemsize) ** 0.5))
        raise InputError(
            f"pairing {size} points needs a cost matrix of {needed / 2**30:.1f} GiB, above the "
            f"limit of {MEMORY_LIMIT / 2**30:.0f}. Couple the batch in parts: "
            f"in_groups(coupling, {groups}) or more."
        )
