"""The frame of every minibatch coupling: check, cost, match, gather.

What differs between them is the match, ``match(key, cost) -> (i, j)``: the source point and the
target of each pair, int (n,); j is None where every target keeps its place. The cost has the source
points as rows and the targets as columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fmjax.array_checks import check_pairs
from fmjax.conventions import Array, Labels
from fmjax.couplings.conditions import Conditions
from fmjax.couplings.cost import check_memory, squared_cost
from fmjax.errors import InputError
from fmjax.numerics.assignment import assign

Match = Callable[[Array, Array], tuple[Array, Array | None]]


@dataclass(frozen=True)
class MinibatchCoupling:
    """A coupling of the batch at hand by its squared distances.

    Args:
        match: what chooses the pairs from the costs, ``match(key, cost) -> (i, j)``.
        conditions: what changes the costs so that the labels count; None leaves them out.
    """

    match: Match
    conditions: Conditions | None = None

    def __call__(
        self, key: Array, x0: Array, x1: Array, labels: Labels = None
    ) -> tuple[Array, Array, Labels]:
        """Pairs x0 (batch, ...) with x1 (batch, ...), labels following their x1.

        Args:
            key: a key; an exact match does not use it.
            x0: source points.
            x1: data.
            labels: conditions of x1, any pytree with leading batch axes, or None.

        Returns:
            x0, x1 and labels, row k of each belonging together; dtypes as they came.

        Raises:
            InputError: x0 and x1 are pytrees; see also `check_pairs` and `check_memory`.
        """
        check_pairs(x0, x1, labels)
        if not hasattr(x1, "shape"):
            raise InputError(
                "a coupling by distance takes x0 and x1 as one array each; got a "
                f"{type(x1).__name__}. For a pytree take the coupling independent, or write one "
                "that says which distance it pairs by."
            )
        check_memory(len(x1), jnp.promote_types(jnp.result_type(x0, x1), jnp.float32).itemsize)
        # Which pair is chosen is not differentiable; the gathered points are.
        cost = squared_cost(jax.lax.stop_gradient(x0), jax.lax.stop_gradient(x1))
        if self.conditions is not None:
            cost = self.conditions(cost, labels)
        i, j = self.match(key, cost)
        x0 = jnp.asarray(x0)[i]
        if j is None:
            return x0, x1, labels
        return x0, jnp.asarray(x1)[j], jax.tree.map(lambda leaf: jnp.asarray(leaf)[j], labels)


def permutation_of_least_cost(key: Array, cost: Array) -> tuple[Array, None]:
    """The match of `exact`: for each target the source point of the least total cost."""
    del key
    return assign(cost.T), None


def exact(conditions: Conditions | None = None) -> MinibatchCoupling:
    """Minibatch optimal transport, exactly: the permutation of x0 of least total squared distance.

        min over permutations p of sum_j |x0_p(j) - x1_j|^2

    With equal weights this permutation is the optimal plan, so nothing is drawn and no target is
    lost. It runs inside the compiled program on any backend, and under vmap. Pooladian et al.,
    arXiv:2304.14772; Tong et al., arXiv:2302.00482.

    Args:
        conditions: `SameClass` or `NearConditions`, for conditional generation.

    Returns:
        The coupling. The costs are at least float32, and so is the precision of the optimum.
    """
    return MinibatchCoupling(permutation_of_least_cost, conditions)
