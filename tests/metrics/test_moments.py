"""Moments of parts, merged in any way, are those of the whole."""

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.metrics import Gaussian, frechet_distance, merge_moments, moments_of
from fmjax.metrics.moments import merge_over_processes, no_moments

RNG = np.random.default_rng(0)
# A mean a million times the spread: sums of squares about zero would lose all digits.
ROWS = (1e6 + RNG.normal(size=(500, 6)) @ RNG.normal(size=(6, 6))).astype(np.float64)


@pytest.mark.parametrize("cuts", [[], [1], [100, 101, 400], list(range(1, 500))])
def test_parts_give_the_mean_and_the_covariance_of_the_whole(cuts):
    found = merge_moments(map(moments_of, np.split(ROWS, cuts)))
    mean, covariance = found.gaussian()
    assert found.count == 500
    np.testing.assert_allclose(mean, ROWS.mean(axis=0), rtol=1e-14)
    expected = np.cov(ROWS - 1e6, rowvar=False)
    np.testing.assert_allclose(covariance, expected, rtol=0, atol=1e-10 * expected.max())


def test_a_tree_of_merges_is_a_chain_of_merges():
    parts = [moments_of(part) for part in np.split(ROWS, 10)]
    chain = merge_moments(parts)
    tree = merge_moments([merge_moments(parts[:3]), merge_moments(parts[3:])])
    for a, b in zip(chain, tree, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_half_precision_is_summed_in_double():
    rows = np.float16(100) + RNG.normal(size=(70_000, 1)).astype(np.float16)
    mean, covariance = moments_of(rows).gaussian()
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(mean[0], wide.mean(), rtol=1e-12)
    np.testing.assert_allclose(covariance[0, 0], wide.var(ddof=1), rtol=1e-12)


def test_no_examples_change_nothing():
    some, none = moments_of(ROWS), no_moments(6)
    for merged in ([none, some], [some, none], [none, none, some]):
        for a, b in zip(merge_moments(merged), some, strict=True):
            assert np.array_equal(a, b)


def test_one_process_holds_all():
    part = moments_of(ROWS)
    assert merge_over_processes(part) is part


def test_several_processes_are_merged_without_losing_a_digit(monkeypatch):
    import jax
    from jax.experimental import multihost_utils

    parts = [moments_of(ROWS[:100]), moments_of(ROWS[100:])]

    def gather(sent):
        assert sent.dtype == np.uint8  # what jax does not round
        others = [np.concatenate([[float(p.count)], p.mean, p.scatter.ravel()]) for p in parts]
        return np.stack([other.view(np.uint8) for other in others])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    found, whole = merge_over_processes(parts[0]), merge_moments(parts)
    assert found.count == whole.count
    assert np.array_equal(found.mean, whole.mean)
    assert np.array_equal(found.scatter, whole.scatter)


@pytest.mark.parametrize("count", [3, 200])
def test_the_distance_of_gaussians_is_that_of_the_sets(count):
    # With 3 examples of 6 features the covariance is singular.
    a, b = RNG.normal(size=(count, 6)), 0.5 + 2 * RNG.normal(size=(count, 6))
    by_sets = frechet_distance(a, b)
    of_a, of_b = moments_of(a).gaussian(), moments_of(b).gaussian()
    for pair in ((of_a, of_b), (a, of_b), (of_a, b)):
        assert frechet_distance(*pair) == pytest.approx(by_sets, rel=1e-7)


def test_the_distance_of_gaussians_has_its_closed_form():
    a = Gaussian(np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    b = Gaussian(np.array([3.0, 1.0]), np.diag([1.0, 1.0]))
    assert frechet_distance(a, b) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 1) ** 2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: merge_moments([]), "at least one, got none"),
        (lambda: merge_moments([no_moments(2), no_moments(3)]), "the same features"),
        (lambda: moments_of(ROWS[:1]).gaussian(), "at least 2 examples, got 1"),
        (lambda: moments_of(ROWS * np.nan), "features must be finite"),
        (lambda: moments_of(ROWS[:0]), "at least 1"),
        (
            lambda: frechet_distance(Gaussian(np.zeros(2), np.eye(3)), ROWS),
            "covariance of a must be finite and of shape",
        ),
        (
            lambda: frechet_distance(
                Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.zeros(3), np.eye(3))
            ),
            "same features, got 2 and 3",
        ),
        (
            lambda: frechet_distance(
                Gaussian(np.zeros(2), np.array([[1.0, 1.0], [0.0, 1.0]])),
                Gaussian(np.zeros(2), np.eye(2)),
            ),
            "covariance of a must be symmetric",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
