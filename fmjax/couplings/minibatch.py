"""The frame of every minibatch coupling: check, cost, match, gather.

What differs between them is the match, ``match(key, cost) -> (i, j)``: the source point and the
target of each pair, int (n,); j is None where every target keeps its place. The cost has the source
points as rows and the targets as columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.array_checks import as_floats, check_pairs, check_returned
from fmjax.checks import check_methods
from fmjax.conventions import Array, Labels, check_key
from fmjax.couplings.conditions import Conditions
from fmjax.couplings.cost import check_memory, geodesic_cost, squared_cost
from fmjax.errors import InputError
from fmjax.manifolds import Manifold
from fmjax.numerics.assignment import assign

Match = Callable[
    [PRNGKeyArray, Float[Array, "n n"]], tuple[Int[Array, " n"], Int[Array, " n"] | None]
]


@dataclass(frozen=True)
class MinibatchCoupling:
    """A coupling of the batch at hand by its squared distances.

    Args:
        match: what chooses the pairs from the costs, ``match(key, cost) -> (i, j)``.
        conditions: what changes the costs so that the labels count; None leaves them out.
        manifold: where the points are, for costs that are squared lengths of geodesics.

    Raises:
        InputError: the match, the conditions or the manifold is none.
    """

    match: Match
    conditions: Conditions | None = None
    manifold: Manifold | None = None

    def __post_init__(self):
        if self.manifold is not None:
            check_methods("the manifold", self.manifold, "dist", such_as="manifolds.Sphere(2)")
        check_methods("match", self.match, such_as="lambda key, cost: (rows, None)")
        if self.conditions is not None:
            check_methods("conditions", self.conditions, such_as="couplings.SameClass()")

    def __call__(
        self, key: PRNGKeyArray, x0: Any, x1: Any, labels: Labels = None
    ) -> tuple[Any, Any, Labels]:
        """Pairs x0 (batch, ...) with x1 (batch, ...), labels following their x1.

        Args:
            key: a key; an exact match does not use it.
            x0: source points.
            x1: data.
            labels: conditions of x1, any pytree with leading batch axes, or None.

        Returns:
            x0, x1 and labels, row k of each belonging together; dtypes as they came. In a compiled
            program, where values cannot be refused, a point that is not finite makes every row of
            x0 NaN.

        Raises:
            InputError: x0 and x1 are not of floats, or are pytrees without a manifold that is a
                product; or they are off the manifold; see also `check_pairs` and `check_memory`.
        """
        check_key(key)
        check_pairs(x0, x1, labels)
        # Which pair is chosen is not differentiable; the gathered points are.
        cost = self._cost(x0, x1)
        known = jnp.all(jnp.isfinite(cost))
        if self.conditions is not None:
            changed = self.conditions(cost, labels)
            check_returned("conditions", changed, "the cost", cost)
            cost = changed
        i, j = self._rows(key, cost)

        # Pairs that were chosen by costs that are NaN mean nothing, and must not pass for pairs.
        def chosen(leaf):
            return jnp.where(known, jnp.asarray(leaf)[i], jnp.nan).astype(jnp.result_type(leaf))

        x0 = jax.tree.map(chosen, x0)
        if j is None:
            return x0, x1, labels
        return x0, *jax.tree.map(lambda leaf: jnp.asarray(leaf)[j], (x1, labels))

    def _cost(self, x0: Any, x1: Any) -> Float[Array, "n n"]:
        """The squared distances (n, n)."""
        if self.manifold is not None:
            return geodesic_cost(self.manifold, x0, x1)
        if not hasattr(x1, "shape"):
            raise InputError(
                "a coupling by distance takes x0 and x1 as one array each; got a "
                f"{type(x1).__name__}. For a pytree write manifold=Product(...), which says what "
                "its distance is, or take the coupling independent."
            )
        check_memory(len(x1), jnp.promote_types(jnp.result_type(x0, x1), jnp.float32).itemsize)
        a, b = as_floats("x0", x0), as_floats("x1", x1)
        return squared_cost(jax.lax.stop_gradient(a), jax.lax.stop_gradient(b))

    def _rows(
        self, key: PRNGKeyArray, cost: Float[Array, "n n"]
    ) -> tuple[Int[Array, " n"], Int[Array, " n"] | None]:
        """The match, checked: a wrong number of pairs would change the size of the batch."""
        found = self.match(key, cost)
        if not isinstance(found, tuple) or len(found) != 2:
            raise InputError(f"match must return two things, (i, j); got {found!r:.60}.")
        for rows in found[:1] if found[1] is None else found:
            one_each = jax.ShapeDtypeStruct((len(cost),), jnp.int32)
            check_returned("match", rows, "the pairs", one_each)
        return found


def permutation_of_least_cost(
    key: PRNGKeyArray, cost: Float[Array, "n n"]
) -> tuple[Int[Array, " n"], None]:
    """The match of `exact`: for each target the source point of the least total cost."""
    del key
    return assign(cost.T), None


def exact(
    conditions: Conditions | None = None, *, manifold: Manifold | None = None
) -> MinibatchCoupling:
    """Minibatch optimal transport, exactly: the permutation of x0 of least total squared distance.

        min over permutations p of sum_j |x0_p(j) - x1_j|^2

    With equal weights this permutation is the optimal plan, so nothing is drawn and no target is
    lost. It runs inside the compiled program on any backend, and under vmap. Pooladian et al.,
    arXiv:2304.14772; Tong et al., arXiv:2302.00482.

    Args:
        conditions: `SameClass` or `NearConditions`, for conditional generation.
        manifold: where the points are, for squared lengths of geodesics; None in flat space.

    Returns:
        The coupling. The costs are at least float32, and so is the precision of the optimum.
    """
    return MinibatchCoupling(permutation_of_least_cost, conditions, manifold)
