"""Nearest references against brute force, and the quantiles of their distances."""

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.metrics import distance_quantiles, nearest_neighbour, nearest_reference


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_equals_brute_force_whatever_the_blocks(dtype, monkeypatch):
    monkeypatch.setattr(nearest_neighbour, "_SAMPLES", 7)
    monkeypatch.setattr(nearest_neighbour, "_REFERENCES", 11)
    rng = np.random.default_rng(0)
    samples, reference = ((rng.random((n, 4, 4, 1)) * 255).astype(dtype) for n in (30, 45))
    pairs = np.float64(samples.reshape(30, 1, 16)) - reference.reshape(1, 45, 16)
    brute = np.linalg.norm(pairs, axis=-1)
    distances, indices = nearest_reference(samples, reference)
    assert distances.shape == indices.shape == (30,)
    np.testing.assert_allclose(distances, brute.min(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(indices, brute.argmin(axis=1))


def test_a_copy_is_at_exactly_zero():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(20, 50)) + 1e4  # far from the origin, where digits are lost
    distances, indices = nearest_reference(reference[5:9], reference)
    assert distances.tolist() == [0, 0, 0, 0]
    assert indices.tolist() == [5, 6, 7, 8]


def test_known_distances():
    distances, indices = nearest_reference(
        np.array([[3.0, 4.0], [9.0, 10.0]]), np.array([[0.0, 0.0], [10.0, 10.0]])
    )
    assert distances.tolist() == [5.0, 1.0]
    assert indices.tolist() == [0, 1]


GOOD = np.random.default_rng(2).normal(size=(6, 4))


@pytest.mark.parametrize(
    ("samples", "reference", "sentence"),
    [
        (GOOD, GOOD[:0], "reference must hold at least 1"),
        (GOOD[:0], GOOD, "samples must hold at least 1"),
        (GOOD, GOOD[:, :3], "samples must have 3 features"),
        (np.where(GOOD > 1, np.nan, GOOD), GOOD, "samples must be finite"),
        ((GOOD * 9).astype(np.int8), GOOD, "samples must be in the same unit"),
    ],
)
def test_bad_input(samples, reference, sentence):
    with pytest.raises(InputError, match=sentence):
        nearest_reference(samples, reference)


def test_quantiles():
    assert distance_quantiles(np.arange(101.0)) == {1: 1.0, 5: 5.0, 25: 25.0, 50: 50.0}
    assert distance_quantiles([3.0, 1.0], percents=(0, 50, 100)) == {0: 1.0, 50: 2.0, 100: 3.0}


@pytest.mark.parametrize("distances", [[], [1.0, np.nan], [[1.0]]])
def test_quantiles_of_bad_distances(distances):
    with pytest.raises(InputError, match="distances must be finite, of shape"):
        distance_quantiles(distances)
