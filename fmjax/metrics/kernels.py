"""Distances between two sets of samples that compare means of a kernel.

For a kernel k, over the pairs of two sets,

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y).                                     (1)

The unbiased estimate (a U-statistic) leaves the pairs x = x' and y = y' out, and may be negative;
the biased one (a V-statistic) keeps them, is never negative, and lies above by about 1 / n.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Real
from numpy.typing import ArrayLike

from fmjax.checks import check_at_least, check_between, check_positive
from fmjax.metrics.pairwise import blocks, distances, row_pair

_FOR_MEDIAN = 2000  # examples of each set that the median is taken over

Kernel = Callable[
    [Float64[np.ndarray, "n features"], Float64[np.ndarray, "m features"]],
    Float64[np.ndarray, "n m"],
]


def mmd(
    x: Real[np.ndarray, "n ..."] | ArrayLike,
    y: Real[np.ndarray, "m ..."] | ArrayLike,
    bandwidth: float | None = None,
    unbiased: bool = True,
) -> float:
    """The squared maximum mean discrepancy (1), for k(x, y) = exp(-|x - y|^2 / (2 h^2)).

    Source: Gretton et al., A kernel two-sample test, JMLR 13, 2012, lemma 6 (unbiased) and
    eq. (5) squared (biased).

    Args:
        x: ``(n, ...)``.
        y: ``(m, ...)``, in the same unit.
        bandwidth: h, in the unit of the samples. If None, the median distance between two different
            examples of both sets together (of the first 2,000 of each): it then depends on the
            samples, so give it to compare one number with another.
        unbiased: whether pairs of an example with itself are left out.

    Returns:
        MMD^2, without unit: 0 for equal distributions, at most 2.

    Raises:
        InputError: fewer than two examples, not finite, other features, or a bandwidth that is not
            positive (the median of sets that are mostly one point).
    """
    x, y = row_pair(x, y, at_least=2)
    h = _median_distance(x, y) if bandwidth is None else bandwidth
    check_positive("bandwidth, here the median distance," if bandwidth is None else "bandwidth", h)

    def gaussian(a, b):
        return np.exp(distances(a, b, squared=True) / (-2 * h**2))

    return _discrepancy(gaussian, x, y, unbiased)


def kernel_distance(
    x: Real[np.ndarray, "n ..."] | ArrayLike, y: Real[np.ndarray, "m ..."] | ArrayLike
) -> float:
    """The kernel distance of features (KID): (1) with k(x, y) = (x . y / d + 1)^3, unbiased.

    Source: Binkowski et al., arXiv:1801.01401. Over all examples at once;
    `kernel_distance_of_subsets` averages over random subsets, as other tools do: the same
    expectation, with a larger variance.

    Args:
        x: features ``(n, d)``; images are flattened.
        y: features ``(m, d)``, in the same unit.

    Returns:
        MMD^2, in the unit of k; 0 in expectation for equal distributions, so it may be negative.

    Raises:
        InputError: fewer than two examples, not finite, or other features.
    """
    x, y = row_pair(x, y, at_least=2)
    return _discrepancy(_cubic, x, y, unbiased=True)


class SubsetMean(NamedTuple):
    """A mean over random subsets, and the standard error of that mean."""

    mean: float
    standard_error: float


def kernel_distance_of_subsets(
    x: Real[np.ndarray, "n ..."] | ArrayLike,
    y: Real[np.ndarray, "m ..."] | ArrayLike,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> SubsetMean:
    """`kernel_distance` as it is printed as KID: its mean over random subsets of both sets.

    Source: Binkowski et al., arXiv:1801.01401, section 5, where 100 subsets of 1,000 are usual. The
    expectation does not depend on the size. The standard error is the standard deviation over the
    subsets, over the square root of their number; they are drawn from the same examples, so it does
    not count the spread of the sets themselves.

    Args:
        x: features ``(n, d)``.
        y: features ``(m, d)``, in the same unit.
        subsets: how many.
        size: examples of each set in a subset, drawn without replacement; at most min(n, m).
        seed: of the subsets.

    Returns:
        The mean and its standard error, in the unit of the kernel.

    Raises:
        InputError: a size out of range, fewer than two subsets, sets that are not finite or differ
            in features.
    """
    x, y = row_pair(x, y, at_least=2)
    check_at_least("subsets", subsets, 2)
    most = min(len(x), len(y))
    check_between("size, at most the number of examples in the smaller set,", size, 2, most)
    rng = np.random.default_rng(seed)

    def chosen(rows: Real[np.ndarray, "n features"]) -> Real[np.ndarray, "size features"]:
        return rows[rng.choice(len(rows), size, replace=False)]

    found = [_discrepancy(_cubic, chosen(x), chosen(y), unbiased=True) for _ in range(subsets)]
    return SubsetMean(float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(subsets)))


def _cubic(
    a: Float[np.ndarray, "n features"], b: Float[np.ndarray, "m features"]
) -> Float[np.ndarray, "n m"]:
    k = a @ b.T / a.shape[1] + 1
    return k * k * k  # ten times quicker than a power


def energy_distance(
    x: Real[np.ndarray, "n ..."] | ArrayLike, y: Real[np.ndarray, "m ..."] | ArrayLike
) -> float:
    """The squared energy distance, 2 E|x - y| - E|x - x'| - E|y - y'|.

    It is (1) with k = -|x - y|, as the biased estimate (a V-statistic: every pair counts, an
    example with itself too), so it is never negative, 0 for equal sets, and above 0 by about
    (E|x - x'|) / n + (E|y - y'|) / m between samples of one distribution. scipy's energy_distance
    (one dimension only) is its square root. Source: Szekely and Rizzo, Energy statistics, J. Stat.
    Plan. Inference 143, 2013.

    Args:
        x: ``(n, ...)``.
        y: ``(m, ...)``, in the same unit.

    Returns:
        The squared distance, in the unit of the samples (not its square).

    Raises:
        InputError: fewer than two examples, not finite, or other features.
    """
    x, y = row_pair(x, y, at_least=2)
    value = _discrepancy(lambda a, b: -distances(a, b), x, y, unbiased=False)
    return max(value, 0.0)  # below 0 by rounding only


def _discrepancy(
    kernel: Kernel,
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    unbiased: bool,
) -> float:
    within = sum(_mean_within(kernel, rows, unbiased) for rows in (x, y))
    across = sum(kernel(part, y).sum() for _, part in blocks(x)) / (len(x) * len(y))
    return float(within - 2 * across)


def _mean_within(kernel: Kernel, x: Float[np.ndarray, "n features"], unbiased: bool) -> float:
    n, total = len(x), 0.0
    for start, part in blocks(x):
        values = kernel(part, x)
        total += values.sum()
        if unbiased:
            total -= np.trace(values, offset=start)
    return total / (n * (n - 1) if unbiased else n * n)


def _median_distance(
    x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]
) -> float:
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(np.concatenate([x[:_FOR_MEDIAN], y[:_FOR_MEDIAN]]))))
