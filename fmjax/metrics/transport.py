"""Wasserstein distances between two sets of samples.

With the Euclidean distance between rows, in the unit of the samples,

    W_p(x, y) = (min over pairings of the mean of |x_i - y_pi(i)|^p)^(1/p).                      (1)

Between n samples each of one and the same distribution it is not 0: in d > 2 p dimensions it falls
only as n^(-1/d). Print the distance between two sets of real samples beside it.
"""

import functools

import numpy as np
from jaxtyping import Float, Float64, Int, Real
from numpy.typing import ArrayLike

from fmjax.checks import check_at_least, check_between, check_positive
from fmjax.errors import InputError
from fmjax.metrics.pairwise import distances, row_pair
from fmjax.numerics.host_assignment import least_cost_columns

_MOST_PAIRS = 20_000**2  # a matrix of float64 costs of 3.2 GB
_DIRECTIONS = 64  # projected at a time


def wasserstein(
    x: Real[np.ndarray, "n ..."] | ArrayLike, y: Real[np.ndarray, "n ..."] | ArrayLike, p: float = 2
) -> float:
    """The exact W_p of equation (1), by the best pairing of two sets of equal size.

    It is the distance between the samples; as an estimate of the distance between the distributions
    they come from it is biased upward. Time grows between n^2 and n^3: about
    7 s on one CPU core at n = 4,000 in two dimensions.

    Args:
        x: ``(n, ...)``.
        y: ``(n, ...)``, in the same unit.
        p: the order, at least 1.

    Returns:
        W_p, in the unit of the samples; square it for W_2^2.

    Raises:
        InputError: the sets differ in size, hold more than 20,000 examples, are not finite or
            differ in features; p is below 1.
    """
    x, y = row_pair(x, y)
    if len(x) != len(y):
        raise InputError(
            f"wasserstein pairs two sets of equal size; got {len(x)} and {len(y)} examples. Take "
            f"the first {min(len(x), len(y))} of both, or use sliced_wasserstein or "
            "sinkhorn_divergence."
        )
    check_between("the order p", p, 1, np.inf, "[)")
    costs = _costs(x, y, p)
    pairs = np.arange(len(x)), least_cost_columns(costs)
    return float(costs[pairs].mean() ** (1 / p))


def sliced_wasserstein(
    x: Real[np.ndarray, "n ..."] | ArrayLike,
    y: Real[np.ndarray, "m ..."] | ArrayLike,
    p: float = 2,
    projections: int = 512,
    seed: int = 0,
) -> float:
    """The sliced W_p: (E over directions of W_p^p of the projections on a line)^(1/p).

    On a line W_p is exact, from the two quantile functions, for unequal sizes too. The p-th power
    is unbiased in the directions, which are uniform on the sphere, and biased upward in the
    samples. For p = 2 two sets a vector c apart have |c| / sqrt(d), not |c|. Source: Bonneel et
    al., Sliced and Radon Wasserstein barycenters of measures, 2015.

    Args:
        x: ``(n, ...)``.
        y: ``(m, ...)``, in the same unit.
        p: the order, at least 1.
        projections: the number of directions.
        seed: of the directions: the same seed gives the same value.

    Returns:
        The distance, in the unit of the samples.

    Raises:
        InputError: the sets are not finite or differ in features; p or projections is below 1.
    """
    x, y = row_pair(x, y)
    check_between("the order p", p, 1, np.inf, "[)")
    check_at_least("projections", projections)
    directions = _directions(x.shape[1], projections, seed)
    gaps = _quantile_gaps(len(x), len(y))
    powers = [
        _power_on_lines(x @ block.T, y @ block.T, p, gaps)
        for block in np.array_split(directions, -(-projections // _DIRECTIONS))
    ]
    return float(np.concatenate(powers).mean() ** (1 / p))


def sinkhorn_divergence(
    x: Real[np.ndarray, "n ..."] | ArrayLike,
    y: Real[np.ndarray, "m ..."] | ArrayLike,
    epsilon: float,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 10_000,
) -> float:
    """The debiased entropic transport cost, S(x, y) = T(x, y) - T(x, x) / 2 - T(y, y) / 2.

    T(x, y) = min over plans P with uniform marginals of <P, |x_i - y_j|^2> + epsilon KL(P, product
    of the marginals). S is 0 for x = y, |c|^2 for y = x + c whatever epsilon, and tends to W_2^2 as
    epsilon goes to 0, where it needs the more iterations. Source: Feydy et al., arXiv:1810.08278;
    solved by ott in float64.

    Args:
        x: ``(n, ...)``.
        y: ``(m, ...)``, in the same unit.
        epsilon: the strength of the entropy, in the unit of the samples squared; a few per cent of
            the mean squared distance is a usual choice.
        tolerance: the summed absolute error of the marginals at which the iteration stops. At 1e-4
            the value is right to about five digits.
        max_iterations: where an unconverged solve gives up.

    Returns:
        S, in the unit of the samples squared; as an estimate for the distributions it is biased.

    Raises:
        InputError: epsilon is not positive, the solve did not converge, the sets are not finite,
            differ in features or need a cost matrix of more than 20,000 squared entries.
    """
    x, y = row_pair(x, y)
    check_positive("epsilon", epsilon)
    _check_memory(max(len(x), len(y)) ** 2)
    import jax

    # A user may have made jax strict about ranks; ott broadcasts freely.
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        value, converged = _divergence()(x, y, epsilon, tolerance, max_iterations)
        value, converged = float(value), bool(converged)
    if not converged:
        raise InputError(
            f"the Sinkhorn iteration did not converge in {max_iterations} steps at epsilon = "
            f"{epsilon}; take a larger epsilon, tolerance or max_iterations."
        )
    return value


@functools.cache
def _divergence():
    """The compiled ``(x, y, epsilon, tolerance, max_iterations) -> (S, converged)``."""
    import jax
    from ott.geometry.costs import SqEuclidean
    from ott.tools.sinkhorn_divergence import sinkdiv

    @functools.partial(jax.jit, static_argnums=(3, 4))
    def divergence(x, y, epsilon, tolerance, max_iterations):
        settings = {"threshold": tolerance, "max_iterations": max_iterations}
        value, output = sinkdiv(x, y, cost_fn=SqEuclidean(), epsilon=epsilon, solve_kwargs=settings)
        return value, jax.numpy.all(jax.numpy.asarray(output.converged))

    return divergence


def _check_memory(pairs: int) -> None:
    if pairs > _MOST_PAIRS:
        raise InputError(
            f"{pairs:,} pairs would need {pairs * 8 / 1e9:.0f} GB of costs; take at most 20,000 "
            "examples, or use sliced_wasserstein."
        )


def _costs(
    x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"], p: float
) -> Float[np.ndarray, "n m"]:
    """|x_i - y_j|^p, ``(n, m)``."""
    _check_memory(len(x) * len(y))
    return distances(x, y, squared=True) if p == 2 else distances(x, y) ** p


def _directions(features: int, count: int, seed: int) -> Float[np.ndarray, "{count} {features}"]:
    """Unit vectors, uniform on the sphere, ``(count, features)``."""
    normal = np.random.default_rng(seed).normal(size=(count, features))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _quantile_gaps(
    n: int, m: int
) -> tuple[Float64[np.ndarray, " gaps"], Int[np.ndarray, " gaps"], Int[np.ndarray, " gaps"]]:
    """Where the quantile functions of n and of m points are constant together.

    Returns:
        The lengths of the intervals of [0, 1], and the index of the sorted point of either set on
        each. All in whole numbers of 1 / (n m), so that no interval is lost to rounding.
    """
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    return (ends - starts) / (n * m), starts // m, starts // n


def _power_on_lines(
    x: Float[np.ndarray, "n lines"], y: Float[np.ndarray, "m lines"], p: float, gaps
) -> Float[np.ndarray, " lines"]:
    """W_p^p of the columns of x ``(n, lines)`` and y ``(m, lines)``, ``(lines,)``."""
    lengths, in_x, in_y = gaps
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    return lengths @ np.abs(x[in_x] - y[in_y]) ** p
