"""Entropic optimal transport by Sinkhorn iterations, through ott.

Units: every epsilon here is absolute, in the units of the squared distance, and multiplies the
negative entropy of a plan whose mass is 1:

    min over plans P of <P, C> + epsilon sum_ij P_ij log P_ij,   C_ij = |x0_i - x1_j|^2,

the convention of POT's ``reg`` and of Cuturi, arXiv:1306.0895. A cost with a factor one half halves
epsilon; the Schroedinger bridge of standard deviation sigma has epsilon = 2 sigma^2.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.checks import check_name, check_positive
from fmjax.conventions import Array
from fmjax.couplings.conditions import Conditions
from fmjax.couplings.minibatch import MinibatchCoupling
from fmjax.manifolds import Manifold
from fmjax.numerics.assignment import greedy

Rounding = Literal["permutation", "sample"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)


@partial(jax.jit, static_argnames=("epsilon", "tau0", "tau1", "threshold", "max_iterations"))
def log_plan(
    cost: Float[Array, "n m"],
    epsilon: float,
    tau0: float = 1.0,
    tau1: float = 1.0,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
) -> Float[Array, "n m"]:
    """The logarithm of the entropic plan between uniform weights 1 / n.

    Args:
        cost: costs (n, m); infinity forbids a pair.
        epsilon: the regularisation, absolute.
        tau0: rho / (rho + epsilon) where the source marginal is relaxed by rho KL; 1 holds it.
        tau1: the same for the targets.
        threshold: iterations end when the marginals miss by less, in total mass.
        max_iterations: or after so many.

    Returns:
        log P (n, m), in the dtype of the cost.
    """
    from ott.geometry.geometry import Geometry
    from ott.solvers import linear

    # ott's entropy is relative to counting; relative to a b' every unit of mass costs this more.
    # Between held marginals the constant changes nothing, between relaxed ones the mass.
    cost = cost + epsilon * math.log(cost.size)
    # Sinkhorn in log space, until the marginals fit: potentials f of the rows and g of the columns.
    # ott relies on promotion of ranks and of dtypes.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        solved = linear.solve(
            Geometry(cost_matrix=cost, epsilon=epsilon),
            tau_a=tau0,
            tau_b=tau1,
            threshold=threshold,
            max_iterations=max_iterations,
        )
    # The plan follows from the potentials: P_ij = exp((f_i + g_j - C_ij) / epsilon).
    f, g = solved.f, solved.g  # type: ignore[union-attr]  # those of low rank are asked otherwise
    return (f[:, None] + g[None, :] - cost) / epsilon


@dataclass(frozen=True)
class _Sinkhorn:
    """The match of `sinkhorn`."""

    epsilon: float
    rounding: Rounding
    threshold: float
    max_iterations: int

    def __call__(
        self, key: PRNGKeyArray, cost: Float[Array, "n n"]
    ) -> tuple[Int[Array, " n"], None]:
        plan = log_plan(
            cost, self.epsilon, threshold=self.threshold, max_iterations=self.max_iterations
        )
        # Take one source point for each target: by a permutation of large mass, or drawn from each
        # column by itself.
        if self.rounding == "permutation":
            return greedy(plan.T), None
        return jax.random.categorical(key, plan, axis=0), None


def sinkhorn(
    epsilon: float,
    rounding: Rounding = "permutation",
    conditions: Conditions | None = None,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    *,
    manifold: Manifold | None = None,
) -> MinibatchCoupling:
    """Entropic minibatch transport; every target is kept exactly once.

    Args:
        epsilon: the regularisation, absolute on squared distances (see the module).
        rounding: how one x0 is taken for each target. ``"permutation"``: the pairs of most mass
            first, so that no x0 is lost either; all of it is whole-matrix work, for large batches
            on accelerators. ``"sample"``: x0 is drawn from P(. | x1_j) for every j with the key,
            which gives each target its right conditional law; an x0 may come twice or never.
        conditions: `SameClass` or `NearConditions`, for conditional generation.
        threshold: see `log_plan`.
        max_iterations: see `log_plan`.
        manifold: as in `fmjax.couplings.exact`.

    Returns:
        The coupling.

    Raises:
        InputError: epsilon is not positive or the rounding is unknown.
    """
    check_positive("epsilon", epsilon)
    check_name("rounding", rounding, ROUNDINGS)
    return MinibatchCoupling(
        _Sinkhorn(epsilon, rounding, threshold, max_iterations), conditions, manifold
    )


def schroedinger_bridge(sigma: float, conditions: Conditions | None = None) -> MinibatchCoupling:
    """The static Schroedinger bridge of a Brownian motion of standard deviation sigma at t = 1.

    ``sinkhorn(2 * sigma**2, rounding="sample")``: the entropic plan on |x0 - x1|^2 with epsilon =
    2 sigma^2 is the joint law of the ends of the bridge, and pairs drawn from it, with a Brownian
    bridge of the same sigma between, are SB-CFM (Tong et al., arXiv:2302.00482).

    Args:
        sigma: as in ``BrownianBridge(sigma)``.
        conditions: as in `sinkhorn`.

    Returns:
        The coupling.

    Raises:
        InputError: sigma is not positive.
    """
    check_positive("sigma", sigma)
    return sinkhorn(2 * sigma**2, rounding="sample", conditions=conditions)


@dataclass(frozen=True)
class _Unbalanced:
    """The match of `unbalanced`."""

    epsilon: float
    relax0: float
    relax1: float
    threshold: float
    max_iterations: int

    def __call__(
        self, key: PRNGKeyArray, cost: Float[Array, "n n"]
    ) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
        plan = log_plan(
            cost,
            self.epsilon,
            _tau(self.relax0, self.epsilon),
            _tau(self.relax1, self.epsilon),
            self.threshold,
            self.max_iterations,
        )
        # Only ratios of masses count: scaled by the largest, the exponential cannot overflow.
        return pairs_from_plan(key, jnp.exp(plan - jnp.max(plan)), len(cost))


def unbalanced(
    epsilon: float,
    relax0: float,
    relax1: float | None = None,
    conditions: Conditions | None = None,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    *,
    manifold: Manifold | None = None,
) -> MinibatchCoupling:
    """Unbalanced entropic transport: mass that is too dear to move is left where it is.

        min over P >= 0 of <P, C> + epsilon KL(P | a b') + relax0 KL(P 1 | a) + relax1 KL(P' 1 | b)

    with a, b uniform and KL(p | q) = sum p log(p / q) - p + q (Chizat et al., arXiv:1607.05816).
    The batch is then drawn again from the plan, as many pairs as before, by systematic sampling:
    far targets are lost, near ones come more often, by design. Labels follow their x1.

    Args:
        epsilon: the regularisation, absolute on squared distances.
        relax0: the price of leaving the source marginal, in the same units: pairs that cost much
            more are given up. ``float("inf")`` holds the marginal.
        relax1: the same for the data; as relax0 if None.
        conditions: as in `sinkhorn`.
        threshold: see `log_plan`.
        max_iterations: see `log_plan`.
        manifold: as in `fmjax.couplings.exact`.

    Returns:
        The coupling.

    Raises:
        InputError: epsilon, relax0 or relax1 is not positive, or epsilon is infinite.
    """
    relax1 = relax0 if relax1 is None else relax1
    check_positive("epsilon", epsilon)
    for name, value in (("relax0", relax0), ("relax1", relax1)):
        if value != math.inf:  # which holds the marginal
            check_positive(name, value)
    return MinibatchCoupling(
        _Unbalanced(epsilon, relax0, relax1, threshold, max_iterations), conditions, manifold
    )


def pairs_from_plan(
    key: PRNGKeyArray, plan: Float[Array, "n m"], count: int
) -> tuple[Int[Array, " {count}"], Int[Array, " {count}"]]:
    """Pairs in proportion to a plan by systematic sampling: one uniform number for all.

    The entries are laid end to end, target after target, and count equally spaced marks are put on
    them, shifted by the one number. An entry of share p of the mass is taken floor or ceil of
    count p times, and so is every target with its own share.

    Args:
        key: a key.
        plan: masses (n, m), not all zero; their sum does not matter.
        count: how many pairs.

    Returns:
        Rows and columns, int (count,).
    """
    # Entry k covers the interval from ends[k - 1] to ends[k].
    ends = jnp.cumsum(plan.T.ravel())
    # In (0, 1]: no mark falls on an entry without mass.
    shift = 1 - jax.random.uniform(key, dtype=ends.dtype)
    marks = (jnp.arange(count, dtype=ends.dtype) + shift) * (ends[-1] / count)
    # The entry under each mark; rounding may put the last mark beyond the end.
    at = jnp.minimum(jnp.searchsorted(ends, marks), ends.size - 1)
    return at % len(plan), at // len(plan)


def _tau(relax: float, epsilon: float) -> float:
    return 1.0 if relax == math.inf else relax / (relax + epsilon)
