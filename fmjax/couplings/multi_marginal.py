"""Multi-marginal chaining: one trajectory through snapshots in time."""

from collections.abc import Sequence

import jax

from fmjax.conventions import Array
from fmjax.couplings.base import Coupling
from fmjax.errors import InputError


def chain(key: Array, snapshots: Sequence[Array], coupling: Coupling) -> tuple[Array, ...]:
    """Lines up K snapshots so that row i of all of them is one trajectory.

    Consecutive snapshots are paired by the coupling, each as the source of the next: the Markov
    joint law pi(x1, x2) pi(x3 | x2) ... of the couplings of neighbours (as in multi-marginal flow
    matching, Rohbeck et al., ICLR 2025). The pairing goes from the last snapshot back to the first,
    so with a coupling that keeps its targets the last snapshot stays as it came.

    Args:
        key: a key; pair k is coupled with ``fold_in(key, k)``.
        snapshots: arrays (n, ...) in the order of time, two or more, of one shape.
        coupling: any coupling of neighbours, ``exact()`` for least total squared displacement.

    Returns:
        The snapshots, rows in line.

    Raises:
        InputError: there are fewer than two snapshots; their shapes differ.
    """
    if len(snapshots) < 2:
        raise InputError(f"a chain needs two or more snapshots; got {len(snapshots)}.")
    shapes = [x.shape for x in snapshots]
    if len(set(shapes)) > 1:
        raise InputError(f"the snapshots of a chain must have one shape; got {shapes}.")
    lined: tuple[Array, ...] = (snapshots[-1],)
    for k in reversed(range(len(snapshots) - 1)):
        # What comes later travels as labels, so that a target drawn again takes it along.
        x0, x1, later = coupling(
            jax.random.fold_in(key, k), snapshots[k], lined[0], lined[1:] or None
        )
        lined = (x0, x1, *(later or ()))
    return lined
