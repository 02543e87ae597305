"""Precision, recall, density and coverage against scikit-learn's neighbours and closed forms."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fmjax.errors import InputError
from fmjax.metrics import pairwise, precision_recall_density_coverage

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(50, 3))
FAKE = 0.7 * RNG.normal(size=(41, 3)) + 0.6


def by_scikit_learn(real, fake, k):
    def radii(rows):  # asked without points, an example is not its own neighbour
        return NearestNeighbors(n_neighbors=k).fit(rows).kneighbors()[0][:, -1]

    def in_ball(points, centres):
        """Whether each point lies in each centre's ball."""
        apart = np.linalg.norm(points[:, None] - centres[None], axis=2)
        return apart <= radii(centres)[None]

    fake_in_real = in_ball(fake, real)
    return (
        fake_in_real.any(axis=1).mean(),
        in_ball(real, fake).any(axis=1).mean(),
        fake_in_real.sum() / (k * len(fake)),
        fake_in_real.any(axis=0).mean(),
    )


@pytest.mark.parametrize("k", [1, 3, 5, 40])
def test_equals_the_definition_by_scikit_learn(k, monkeypatch):
    monkeypatch.setattr(pairwise, "_DISTANCE_ROWS", 11)
    found = precision_recall_density_coverage(REAL, FAKE, k)
    np.testing.assert_allclose(found, by_scikit_learn(REAL, FAKE, k), rtol=1e-12)


def test_the_four_numbers_of_a_picture_drawn_by_hand():
    # Real at 0, 1, 2 and 10 with k = 1: balls of radius 1, 1, 1 and 8. Fake at 1.5, 20 and 21: 1.5
    # lies in the balls of 1 and 2 and not in that of 10, 8.5 away; 20 and 21 lie in none. The fake
    # balls reach 18.5, 1 and 1: all real ones are in the first.
    real, fake = np.array([[0.0], [1], [2], [10]]), np.array([[1.5], [20], [21]])
    found = precision_recall_density_coverage(real, fake, k=1)
    assert found == (1 / 3, 1.0, 2 / 3, 0.5)
    assert found.coverage == 0.5


def test_the_same_set_is_all_precise_recalled_and_covered():
    found = precision_recall_density_coverage(REAL, REAL, k=3)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    far = precision_recall_density_coverage(REAL, FAKE + 100, k=3)
    assert far == (0, 0, 0, 0)


def test_density_and_coverage_have_their_expected_values_for_equal_distributions():
    rng, n, m, k = np.random.default_rng(1), 30, 20, 3
    found = [
        precision_recall_density_coverage(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), k)
        for _ in range(300)
    ]
    coverage = 1 - np.prod([(n - i) / (n + m - i) for i in range(1, k + 1)])
    for values, expected in (
        ([f.density for f in found], 1),
        ([f.coverage for f in found], coverage),
    ):
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / 300**0.5


def test_lost_modes_lower_recall_and_coverage_only():
    real = np.concatenate([REAL, REAL + 50])
    found = precision_recall_density_coverage(real, REAL + 0.01, k=5)
    assert found.precision == 1
    assert found.recall == 0.5
    assert found.coverage <= 0.5


@pytest.mark.parametrize(
    ("real", "fake", "k", "sentence"),
    [
        (REAL, FAKE, 0, r"k, below .* must lie in \[1, 40\]; got 0"),
        (REAL, FAKE, 41, r"k, below .* must lie in \[1, 40\]; got 41"),
        (REAL, FAKE[:, :2], 3, "fake must have 3 features"),
        (REAL * np.nan, FAKE, 3, "real must be finite"),
    ],
)
def test_bad_input(real, fake, k, sentence):
    with pytest.raises(InputError, match=sentence):
        precision_recall_density_coverage(real, fake, k)
