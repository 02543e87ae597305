"""Multi-marginal chaining: one trajectory through snapshots in time."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, Shaped

from fmjax.checks import check_at_least, check_methods
from fmjax.conventions import Array, check_key
from fmjax.couplings.base import Coupling, paired
from fmjax.errors import InputError


def chain(
    key: PRNGKeyArray,
    snapshots: Sequence[Shaped[Array, " _ *shape"]],
    coupling: Coupling,
    size: int | None = None,
) -> tuple[Shaped[Array, " size *shape"], ...]:
    """Lines up K snapshots so that row i of all of them is one trajectory.

    Consecutive snapshots are paired by the coupling, each as the source of the next: the Markov
    joint law pi(x1, x2) pi(x3 | x2) ... of the couplings of neighbours (as in multi-marginal flow
    matching, Rohbeck et al., ICLR 2025). The pairing goes from the last snapshot back to the first,
    so with a coupling that keeps its targets the last snapshot stays as it came.

    A coupling pairs equal numbers of rows, so a snapshot of another size is first brought to
    `size`: a smaller one keeps every row and repeats rows drawn with replacement, a larger one is
    a random subset. Either way each of its n rows is expected size / n times, which leaves the
    distribution of the snapshot as it is.

    Args:
        key: a key; pair k is coupled with ``fold_in(key, k)``, and snapshot k is resampled, where
            its size differs, with ``fold_in(key, K + k)``.
        snapshots: arrays (n_k, ...) in the order of time, two or more; n_k may differ.
        coupling: any coupling of neighbours, ``exact()`` for least total squared displacement.
        size: the number of trajectories; None is the largest n_k.

    Returns:
        K arrays (size, ...), rows in line.

    Raises:
        InputError: there are fewer than two snapshots; one has no rows; their rows differ in
            shape; or size is below 1.
    """
    check_key(key)
    check_methods("the coupling", coupling, such_as="couplings.exact()")
    if len(snapshots) < 2:
        raise InputError(f"a chain needs two or more snapshots; got {len(snapshots)}.")
    shapes = [x.shape for x in snapshots]
    if len({shape[1:] for shape in shapes}) > 1 or not all(shape and shape[0] for shape in shapes):
        raise InputError(
            "the snapshots of a chain must have at least one row each, and rows of one shape; "
            f"got {shapes}."
        )
    if size is None:
        size = max(len(x) for x in snapshots)
    check_at_least("the size of a chain", size)
    equal = [
        _resampled(jax.random.fold_in(key, len(snapshots) + k), x, size)
        for k, x in enumerate(snapshots)
    ]
    lined: tuple[Array, ...] = (equal[-1],)
    for k in reversed(range(len(equal) - 1)):
        # What comes later travels as labels, so that a target drawn again takes it along.
        k_key = jax.random.fold_in(key, k)
        x0, x1, later = paired(coupling, k_key, equal[k], lined[0], lined[1:] or None)
        lined = (x0, x1, *(later or ()))
    return lined


def _resampled(key: PRNGKeyArray, x: Array, size: int) -> Array:
    """The snapshot with `size` rows; the snapshot itself if it has as many."""
    n = len(x)
    if n == size:
        return x
    if n > size:
        return jnp.asarray(x)[jax.random.permutation(key, n)[:size]]
    again = jax.random.randint(key, (size - n,), 0, n)
    return jnp.asarray(x)[jnp.concatenate([jnp.arange(n), again])]
