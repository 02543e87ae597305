"""Fidelity and variety apart: are samples among the real ones, and are the real ones reached?

Around each example of a set lies a ball that reaches to its k-th nearest neighbour in that set. The
union of the balls stands for the support of the distribution.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real
from numpy.typing import ArrayLike

from fmjax.checks import check_between
from fmjax.metrics.pairwise import blocks, distances, row_pair


class Coverage(NamedTuple):
    """What `precision_recall_density_coverage` finds.

    Attributes:
        precision: the share of fake examples that lie in some real ball, in [0, 1].
        recall: the share of real examples that lie in some fake ball, in [0, 1].
        density: how many real balls a fake example lies in, over k; 1 on average for equal
            distributions, and not bounded by 1.
        coverage: the share of real balls that hold some fake example, in [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(
    real: Real[np.ndarray, "n ..."] | ArrayLike,
    fake: Real[np.ndarray, "m ..."] | ArrayLike,
    k: int = 5,
) -> Coverage:
    """Precision, recall, density and coverage over the k nearest neighbours.

    Precision and recall: Kynkaanniemi et al., arXiv:1904.06991, eq. (1) and (2), where k = 3 is
    usual; density and coverage, which an outlier moves less: Naeem et al., arXiv:2002.09797, where
    k = 5 is. A ball is closed, and an example is not its own neighbour. For n real and m fake
    examples of one distribution, whatever it is, the expected density is 1 and the expected
    coverage 1 - prod over i = 1..k of (n - i) / (n + m - i); precision and recall have no such
    value, so print those of two real sets beside them.

    Args:
        real: features ``(n, ...)``.
        fake: features ``(m, ...)``, in the same unit.
        k: which neighbour a ball reaches to, from 1 to min(n, m) - 1.

    Returns:
        The four numbers, without unit. All change with n, m and k: compare at equal ones.

    Raises:
        InputError: k is out of range, or the sets are not finite or differ in features.
    """
    real, fake = row_pair(real, fake, names=("real", "fake"), at_least=2)
    most = min(len(real), len(fake)) - 1
    check_between("k, below the number of examples in the smaller set,", k, 1, most)
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    precise, memberships = 0, 0  # fake examples in some real ball; pairs of both
    recalled = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for start, part in blocks(fake):
        apart = distances(part, real)
        in_real_ball = apart <= real_radii[None, :]
        in_fake_ball = apart <= fake_radii[start : start + len(part), None]
        precise += int(in_real_ball.any(axis=1).sum())
        memberships += int(in_real_ball.sum())
        recalled |= in_fake_ball.any(axis=0)
        covered |= in_real_ball.any(axis=0)
    return Coverage(
        precision=precise / len(fake),
        recall=float(recalled.mean()),
        density=memberships / (k * len(fake)),
        coverage=float(covered.mean()),
    )


def _radii(rows: Float[np.ndarray, "n features"], k: int) -> Float[np.ndarray, " n"]:
    """The distance of each row to its k-th nearest other row, ``(n,)``."""
    # Each row finds itself at distance 0, so the k-th other row is at place k from 0.
    found = [np.partition(distances(part, rows), k, axis=1)[:, k] for _, part in blocks(rows)]
    return np.concatenate(found)
