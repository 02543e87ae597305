"""Kernel distances against scikit-learn's kernels, scipy, and closed forms."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel, rbf_kernel

from fmjax.errors import InputError
from fmjax.metrics import (
    energy_distance,
    kernel_distance,
    kernel_distance_of_subsets,
    mmd,
    pairwise,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
Y = 1.3 * RNG.normal(size=(23, 4)) + 0.5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pairwise, "_DISTANCE_ROWS", 7)  # so that every sum runs over several


def discrepancy(k_xx, k_yy, k_xy, unbiased):
    """MMD^2 from three full matrices of the kernel."""

    def within(k):
        n = len(k)
        return (k.sum() - np.trace(k)) / (n * (n - 1)) if unbiased else k.mean()

    return within(k_xx) + within(k_yy) - 2 * k_xy.mean()


@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd_equals_the_kernel_matrices_of_scikit_learn(unbiased):
    kernels = [rbf_kernel(a, b, gamma=1 / (2 * 0.8**2)) for a, b in ((X, X), (Y, Y), (X, Y))]
    expected = discrepancy(*kernels, unbiased)
    np.testing.assert_allclose(mmd(X, Y, 0.8, unbiased), expected, rtol=1e-11)


def test_the_default_bandwidth_is_the_median_distance_of_both_sets():
    h = np.median(pdist(np.concatenate([X, Y])))
    np.testing.assert_allclose(mmd(X, Y), mmd(X, Y, h), rtol=1e-12)


def test_the_kernel_distance_equals_the_kernel_matrices_of_scikit_learn():
    kernels = [
        polynomial_kernel(a, b, degree=3, gamma=1 / 4, coef0=1) for a, b in ((X, X), (Y, Y), (X, Y))
    ]
    np.testing.assert_allclose(kernel_distance(X, Y), discrepancy(*kernels, True), rtol=1e-11)
    images = X.reshape(30, 2, 2)
    np.testing.assert_allclose(kernel_distance(images, Y), kernel_distance(X, Y), rtol=1e-12)


def test_a_subset_of_all_examples_is_the_kernel_distance():
    found = kernel_distance_of_subsets(X, X[::-1] + 1, subsets=3, size=30)
    np.testing.assert_allclose(found.mean, kernel_distance(X, X + 1), rtol=1e-11)
    assert found.standard_error < 1e-12


def test_the_mean_over_subsets_is_the_kernel_distance_within_its_error():
    found = kernel_distance_of_subsets(X, Y, subsets=400, size=10)
    assert abs(found.mean - kernel_distance(X, Y)) < 4 * found.standard_error
    again = kernel_distance_of_subsets(X, Y, subsets=400, size=10)
    other = kernel_distance_of_subsets(X, Y, subsets=400, size=10, seed=1)
    assert found == again != other
    fewer = kernel_distance_of_subsets(X, Y, subsets=100, size=10)
    assert found.standard_error == pytest.approx(fewer.standard_error / 2, rel=0.3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 24}, r"size, at most .* must lie in \[2, 23\]; got 24"),
        ({"size": 1}, r"must lie in \[2, 23\]; got 1"),
        ({"subsets": 1, "size": 5}, "subsets must be a whole number of at least 2"),
    ],
)
def test_bad_subsets(options, sentence):
    with pytest.raises(InputError, match=sentence):
        kernel_distance_of_subsets(X, Y, **options)


def test_the_energy_distance_is_the_square_of_scipys():
    on_a_line = energy_distance(X[:, :1], Y[:, :1])
    np.testing.assert_allclose(on_a_line**0.5, stats.energy_distance(X[:, 0], Y[:, 0]), rtol=1e-10)
    distances = [-euclidean_distances(a, b) for a, b in ((X, X), (Y, Y), (X, Y))]
    np.testing.assert_allclose(energy_distance(X, Y), discrepancy(*distances, False), rtol=1e-10)


def test_equal_sets_are_at_0_for_the_biased_estimates():
    shuffled = RNG.permutation(X)
    assert abs(mmd(X, shuffled, 1.0, unbiased=False)) < 1e-15
    assert 0 <= energy_distance(X, shuffled) < 1e-12


def test_the_unbiased_estimates_are_0_on_average_and_the_biased_ones_are_not():
    rng = np.random.default_rng(1)
    pairs = [rng.normal(size=(2, 10, 2)) for _ in range(300)]
    biased = [mmd(x, y, 1.0, unbiased=False) for x, y in pairs]
    for found in ([mmd(x, y, 1.0) for x, y in pairs], [kernel_distance(x, y) for x, y in pairs]):
        assert abs(np.mean(found)) < 4 * np.std(found) / 300**0.5
    assert np.mean(biased) > 0.1  # (1 - E k) 2 / n = (1 - 1/3) / 5


def test_mmd_of_gaussians_has_its_closed_form():
    # For N(0, 1) and N(c, 1) in one dimension, and h = 1: 2 (1 - exp(-c^2 / 6)) / sqrt(3).
    quantiles = stats.norm.ppf((np.arange(400) + 0.5) / 400)[:, None]
    expected = 2 * (1 - np.exp(-4 / 6)) / 3**0.5
    np.testing.assert_allclose(mmd(quantiles, quantiles + 2, 1.0, False), expected, rtol=3e-3)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mmd(X, Y, 0.0), "bandwidth must be a positive number; got 0.0"),
        (
            lambda: mmd(np.ones((5, 2)), np.ones((5, 2))),
            "here the median distance, must be a positive number; got .*0.0",
        ),
        (lambda: mmd(X, Y[:, :2]), "y must have 4 features"),
        (lambda: mmd(X[:1], Y), "x must hold at least 2"),
        (lambda: kernel_distance(X, np.where(Y > 1, np.inf, Y)), "y must be finite"),
        (lambda: energy_distance(X, Y.astype(np.int64)), "y must be in the same unit"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
