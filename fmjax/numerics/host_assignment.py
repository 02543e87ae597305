"""The linear assignment problem in numpy, exactly: the pairing of least total cost.

    min over permutations p of sum_i C[i, p(i)]

scipy's shortest augmenting paths (Crouse, IEEE TAES 52, 2016) find it, and find it far sooner on
C[i, j] - u[i] - v[j], which has the same optimum whatever u and v are: near the dual optimum most
rows are matched at once. A few float32 Sinkhorn iterations (Cuturi, arXiv:1306.0895; over-relaxed
as in Lehmann et al., arXiv:2012.12562) bring u and v there. `fmjax.numerics.assignment` does the
same inside a compiled program, where scipy cannot be called; a pairing in the data threads, on the
other hand, must leave the device to the training step.
"""

import numpy as np
from jaxtyping import Float, Int, Real

from fmjax.numerics.assignment import HIGH, ITERATIONS, OMEGA, tighten

# Where the warm start ends. It decides the time alone; with scipy's search after it these were the
# quickest of the numbers tried, with the compiled search those of `fmjax.numerics.assignment`.
LOW, STAGES = 5e-4, 4
SMALL = 128  # below this the search alone is quicker than its warm start


def least_cost_columns(cost: Real[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """The column of each row, int (n,), in the permutation of least total cost.

    Args:
        cost: finite costs (n, n).
    """
    from scipy.optimize import linear_sum_assignment

    if len(cost) > SMALL:
        with np.errstate(all="ignore"):  # what overflows or underflows is caught where it matters
            u, v = _potentials(cost.astype(np.float32))
        cost = cost - u[:, None]
        cost -= v[None, :]
    return linear_sum_assignment(cost)[1]


def _potentials(
    cost: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """u and v (n,) near the dual optimum, float32."""
    u, v = tighten(cost, np.zeros_like(cost[0]))
    for epsilon in np.geomspace(HIGH, LOW, STAGES) * float(cost.std()):
        kernel = u[:, None] - cost
        kernel += v[None, :]
        kernel *= np.float32(1 / epsilon)
        np.exp(kernel, out=kernel)
        a, b = 1 / kernel.sum(axis=1), np.ones_like(v)
        for _ in range(ITERATIONS):
            a = a ** (1 - OMEGA) / (kernel @ b) ** OMEGA
            b = b ** (1 - OMEGA) / (a @ kernel) ** OMEGA
        new_u = u + np.float32(epsilon) * np.log(a)
        new_v = v + np.float32(epsilon) * np.log(b)
        whole = np.isfinite(new_u).all() and np.isfinite(new_v).all()
        u, v = (new_u, new_v) if whole else tighten(cost, v)
    return u, v
