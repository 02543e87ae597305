"""Is a histogram of classes flat, to within the spread that so many draws show?"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from fmjax.array_checks import check_class_ids
from fmjax.checks import check_at_least


@dataclasses.dataclass(frozen=True)
class HistogramTest:
    """What `histogram_test` finds.

    Attributes:
        counts: examples of each class, ``(num_classes,)``.
        expected: the count each class would have.
        spread: the standard deviation of a count over sets of that size, sqrt(n p (1 - p)).
        statistic: Pearson's chi-square, sum (counts - expected)² / expected.
        p_value: the chance of a statistic at least so large if the classes are equally likely.
    """

    counts: Int[np.ndarray, " classes"]
    expected: float
    spread: float
    statistic: float
    p_value: float


def histogram_test(
    classes: Sequence[int] | Int[np.ndarray, " n"] | ArrayLike, num_classes: int
) -> HistogramTest:
    """Pearson's chi-square test that all classes are equally likely.

    The p-value is that of the chi-square distribution with ``num_classes - 1`` degrees of freedom,
    good from about five expected examples per class.

    Args:
        classes: class ids, ``(n,)``.
        num_classes: the number of classes.

    Returns:
        The counts, what is expected of them, and the test.

    Raises:
        InputError: if there is no example, a class is out of range, or there is one class only.

    Example:
        >>> found = histogram_test([0] * 60 + [1] * 40, num_classes=2)
        >>> found.statistic, found.spread, round(found.p_value, 4)
        (4.0, 5.0, 0.0455)
    """
    from scipy.special import chdtrc

    classes = np.asarray(classes)
    check_at_least("num_classes", num_classes, 2)
    check_class_ids("classes", classes, num_classes=num_classes)
    counts = np.bincount(classes, minlength=num_classes)
    expected = len(classes) / num_classes
    statistic = float((np.square(counts - expected) / expected).sum())
    return HistogramTest(
        counts=counts,
        expected=expected,
        spread=float(np.sqrt(expected * (1 - 1 / num_classes))),
        statistic=statistic,
        p_value=float(chdtrc(num_classes - 1, statistic)),
    )
