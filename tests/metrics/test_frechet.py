"""The Fréchet distance against closed forms and scipy, and the PCA space it is measured in."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from fmjax.errors import InputError
from fmjax.metrics import fit_pca, frechet_distance


def _examples(rng, mean, covariance, n=200):
    """Examples whose own mean and covariance are exactly these, to rounding."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x, rowvar=False)))).T
    return np.asarray(mean) + x @ scipy.linalg.sqrtm(np.asarray(covariance)).real


def _by_sqrtm(a, b):
    """Formula (1) as it stands, which needs covariances of full rank."""
    A, B = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return shift + np.trace(A + B - 2 * scipy.linalg.sqrtm(A @ B).real)


def test_known_means_and_commuting_covariances():
    """For covariances that commute: sum of (sqrt(eigenvalue) differences)², plus the shift."""
    rng = np.random.default_rng(0)
    rotation = scipy.stats.ortho_group.rvs(3, random_state=0)
    a_values, b_values = np.array([4.0, 1.0, 0.25]), np.array([1.0, 9.0, 0.25])
    a = _examples(rng, [0, 0, 0], rotation @ np.diag(a_values) @ rotation.T)
    b = _examples(rng, [1, 2, 3], rotation @ np.diag(b_values) @ rotation.T)
    expected = 14 + np.square(np.sqrt(a_values) - np.sqrt(b_values)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_one_dimension():
    rng = np.random.default_rng(1)
    a, b = _examples(rng, [2.0], [[9.0]]), _examples(rng, [-1.0], [[0.25]])
    assert frechet_distance(a, b) == pytest.approx(3**2 + 2.5**2, rel=1e-10)


@pytest.mark.parametrize("d", [2, 7, 20])
def test_equals_scipy_sqrtm(d):
    rng = np.random.default_rng(d)
    a = rng.normal(size=(100, d)) @ rng.normal(size=(d, d))
    b = rng.normal(size=(150, d)) @ rng.normal(size=(d, d)) + 1
    assert frechet_distance(a, b) == pytest.approx(_by_sqrtm(a, b), rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_rotation_and_shift_of_both_change_nothing():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(50, 6)), rng.normal(size=(60, 6)) * 2 + 1
    rotation = scipy.stats.ortho_group.rvs(6, random_state=1)
    moved = frechet_distance(a @ rotation + 5, b @ rotation + 5)
    assert moved == pytest.approx(frechet_distance(a, b), rel=1e-10)


@pytest.mark.parametrize("n", [2, 10, 300])
def test_zero_for_identical_sets(n):
    a = np.random.default_rng(3).normal(size=(n, 40))
    assert 0 <= frechet_distance(a, a) < 1e-10


def test_rank_deficient_covariances():
    """Dead pixels and fewer examples than features cost no digits, where formula (1) loses half."""
    rng = np.random.default_rng(4)
    small_a, small_b = rng.normal(size=(12, 5)), rng.normal(size=(9, 5)) * 3
    embed = scipy.stats.ortho_group.rvs(64, random_state=2)[:5]
    dead = frechet_distance(small_a @ embed, small_b @ embed)
    assert dead == pytest.approx(frechet_distance(small_a, small_b), rel=1e-12)
    # All covariance in one direction each, at right angles: nothing is shared.
    line = np.arange(5.0)[:, None]
    a, b = line * np.eye(50)[0], line * np.eye(50)[1]
    assert frechet_distance(a, b) == pytest.approx(4 + 4 + 2.5 + 2.5, rel=1e-12)


def test_biased_upward_and_less_with_more_examples():
    rng = np.random.default_rng(5)
    few = frechet_distance(rng.normal(size=(100, 10)), rng.normal(size=(100, 10)))
    many = frechet_distance(rng.normal(size=(1000, 10)), rng.normal(size=(1000, 10)))
    assert 4 < few / many < 25  # about 1/n: ten times


def test_images_are_flattened_and_uint8_does_not_wrap():
    rng = np.random.default_rng(6)
    a, b = (rng.integers(0, 256, size=(40, 4, 4, 1)).astype(np.uint8) for _ in range(2))
    rows = [x.reshape(40, 16).astype(np.float64) for x in (a, b)]
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(*rows), rel=1e-12)


GOOD = np.random.default_rng(7).normal(size=(10, 4))


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (np.where(GOOD > 1, np.nan, GOOD), GOOD, "a must be finite; got NaN or infinity in"),
        (GOOD, np.where(GOOD > 1, np.inf, GOOD), "b must be finite"),
        (GOOD, GOOD[:, :3], "b must have 4 features per example"),
        (GOOD[:0], GOOD, "a must hold at least 2 examples, got 0"),
        (GOOD, GOOD[:1], "b must hold at least 2 examples, got 1"),
        (GOOD[0], GOOD, r"a must have shape \(n, ...\)"),
        (GOOD[:, :0], GOOD, "a must have features"),
        (GOOD, (GOOD * 20).astype(np.int32), "in the same unit"),
        (GOOD.astype(complex), GOOD, "a must hold real numbers"),
    ],
)
def test_bad_input(a, b, sentence):
    with pytest.raises(InputError, match=sentence):
        frechet_distance(a, b)


def test_pca_finds_the_directions_of_largest_variance():
    rng = np.random.default_rng(8)
    covariance = np.diag([9.0, 0.01, 4.0, 0.01])
    reference = _examples(rng, [1, 2, 3, 4], covariance)
    found = fit_pca(reference, dims=2)(reference)
    assert found.shape == (200, 2)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(found, rowvar=False), np.diag([9.0, 4.0]), atol=1e-10)
    np.testing.assert_allclose(abs(found[:, 0]), abs(reference[:, 0] - 1), atol=1e-10)


def test_full_pca_keeps_the_distance_and_fewer_dims_shrink_it():
    rng = np.random.default_rng(9)
    mix = rng.normal(size=(9, 9))
    train, a, b = (rng.normal(size=(50, 9)) @ mix + shift for shift in (0, 0.5, 1))
    whole = frechet_distance(a, b)
    by_dims = [frechet_distance(fit_pca(train, k)(a), fit_pca(train, k)(b)) for k in (2, 5, 9)]
    assert by_dims == sorted(by_dims)
    assert by_dims[-1] == pytest.approx(whole, rel=1e-10)


def test_pca_of_more_rows_than_a_block():
    rng = np.random.default_rng(10)
    reference = rng.integers(0, 256, size=(5000, 2, 2, 1)).astype(np.uint8)
    features = fit_pca(reference, dims=3)
    assert features(reference).shape == (5000, 3)
    np.testing.assert_array_equal(features(reference)[4990:], features(reference[4990:]))


@pytest.mark.parametrize("dims", [0, 5, 9])
def test_pca_dims_out_of_range(dims):
    with pytest.raises(InputError, match=r"dims .* must lie in \[1, 4\]"):
        fit_pca(GOOD, dims)
    with pytest.raises(InputError, match=r"dims for 3 examples .* must lie in \[1, 2\]"):
        fit_pca(GOOD[:3], 3)


def test_pca_refuses_other_images():
    features = fit_pca(GOOD, 2)
    with pytest.raises(InputError, match="x must have 4 features"):
        features(GOOD[:, :2])
    with pytest.raises(InputError, match="same unit"):
        features(np.zeros((3, 4), np.uint8))
