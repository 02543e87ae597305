"""The test of flatness against scipy, and over many flat histograms."""

import numpy as np
import pytest
import scipy.stats

from fmjax.errors import InputError
from fmjax.metrics import histogram_test


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_equals_scipy(num_classes):
    classes = np.random.default_rng(0).binomial(num_classes - 1, 0.4, size=1000)
    found = histogram_test(classes, num_classes)
    expected = scipy.stats.chisquare(np.bincount(classes, minlength=num_classes))
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)
    assert found.counts.sum() == 1000
    assert len(found.counts) == num_classes


def test_flat():
    found = histogram_test(np.arange(1000) % 10, 10)
    assert (found.statistic, found.p_value, found.expected) == (0.0, 1.0, 100.0)


def test_the_spread_and_the_p_value_are_those_of_flat_draws():
    rng = np.random.default_rng(1)
    tests = [histogram_test(rng.integers(0, 10, size=1000), 10) for _ in range(400)]
    counts = np.stack([test.counts for test in tests])
    assert counts.std() == pytest.approx(tests[0].spread, rel=0.05)
    # p-values of flat draws are uniform: a Kolmogorov-Smirnov test of 400 of them.
    assert scipy.stats.kstest([test.p_value for test in tests], "uniform").pvalue > 0.01


def test_a_missing_class_shows():
    classes = np.random.default_rng(2).integers(0, 9, size=1000)
    assert histogram_test(classes, 10).p_value < 1e-10


@pytest.mark.parametrize(
    ("classes", "num_classes", "sentence"),
    [
        ([], 10, r"integer class ids of shape \(n,\)"),
        ([0.0, np.nan], 10, "got float64"),
        ([[1, 2]], 10, "shape"),
        ([0, 10], 10, "from 0 to 9; got 10"),
        ([-1, 3], 10, "from 0 to 9; got -1"),
        ([0, 0], 1, "num_classes must be a whole number of at least 2"),
    ],
)
def test_bad_input(classes, num_classes, sentence):
    with pytest.raises(InputError, match=sentence):
        histogram_test(classes, num_classes)
