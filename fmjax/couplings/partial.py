"""Partial optimal transport: only a share of the mass moves, and outliers are left alone."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.checks import check_between
from fmjax.conventions import Array
from fmjax.couplings.conditions import Conditions
from fmjax.couplings.cost import check_memory
from fmjax.couplings.minibatch import MinibatchCoupling
from fmjax.manifolds import Manifold
from fmjax.numerics.assignment import assign


@dataclass(frozen=True)
class _Partial:
    """The match of `partial`."""

    fraction: float

    def __call__(
        self, key: PRNGKeyArray, cost: Float[Array, "n n"]
    ) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
        n = len(cost)
        kept = max(1, round(self.fraction * n))
        check_memory(2 * n - kept, cost.dtype.itemsize)
        i, j = best_pairs(cost, kept)
        # Systematic: every kept pair comes floor or ceil of n / kept times.
        shift = jax.random.uniform(key, dtype=cost.dtype)
        marks = (jnp.arange(n, dtype=cost.dtype) + shift) * (kept / n)
        at = jnp.minimum(marks.astype(int), kept - 1)
        return i[at], j[at]


def best_pairs(
    cost: Float[Array, "n n"], kept: int
) -> tuple[Int[Array, " {kept}"], Int[Array, " {kept}"]]:
    """The given number of disjoint pairs of least total cost, exactly.

    An assignment with n - kept dummy rows and columns, to which the points left out go for nothing;
    dummies may not pair with each other, so exactly that many pairs stay.

    Args:
        cost: costs (n, n); infinity forbids a pair.
        kept: how many pairs, from 1 to n.

    Returns:
        Rows and columns, int (kept,).
    """
    n = len(cost)
    dummies = n - kept
    wide = jnp.pad(cost, ((0, dummies), (0, dummies)))
    corner = jnp.full((dummies, dummies), jnp.inf, cost.dtype)
    column = assign(wide.at[n:, n:].set(corner))[:n]
    rows = jnp.argsort(column >= n)[:kept]
    return rows, column[rows]


def partial(
    fraction: float,
    conditions: Conditions | None = None,
    *,
    manifold: Manifold | None = None,
) -> MinibatchCoupling:
    """Partial minibatch transport: the cheapest pairs that make up a share of the batch.

        min over sets S of round(fraction n) disjoint pairs of sum over S of |x0_i - x1_j|^2

    (Figalli, Arch. Ration. Mech. Anal. 195, 2010; Chapel et al., arXiv:2002.08276). The batch is
    filled up with these pairs by systematic sampling, each about 1 / fraction times; targets
    outside are lost, by design. Labels follow their x1.

    Args:
        fraction: the share of the batch that is paired, in (0, 1]; 1 is `exact`.
        conditions: `SameClass` or `NearConditions`, for conditional generation.
        manifold: as in `fmjax.couplings.exact`.

    Returns:
        The coupling.

    Raises:
        InputError: the fraction is outside (0, 1].
    """
    check_between("fraction, a share of the batch,", fraction, 0, 1, "(]")
    return MinibatchCoupling(_Partial(fraction), conditions, manifold)
