"""A stream gives what the whole array would, whatever its batches; halves are halves."""

import jax
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.metrics import Features, collect, moments_of, pixel_features
from fmjax.metrics.streaming import _BLOCK

X = np.random.default_rng(0).normal(size=(101, 2, 3))


def batches(x, size):
    return (x[i : i + size] for i in range(0, len(x), size))


@pytest.mark.parametrize("size", [1, 7, 101])
def test_the_whole_and_the_halves_do_not_depend_on_the_batches(size):
    found = collect(pixel_features(), batches(X, size), len(X), keep=20)
    again = collect(pixel_features(), [X], len(X), keep=20)
    for a, b in zip(found.halves, again.halves, strict=True):
        assert a.count == b.count
        np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-10)
    for a, b in zip(found.rows, again.rows, strict=True):
        assert np.array_equal(a, b)
    assert found.digest == again.digest
    whole = moments_of(X)
    np.testing.assert_allclose(found.whole.mean, whole.mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.whole.scatter, whole.scatter, rtol=1e-10, atol=1e-10)


def test_the_halves_are_disjoint_and_the_kept_rows_are_of_them():
    x = np.arange(40.0)[:, None]
    found = collect(pixel_features(), [x], 40, keep=10)
    everything = collect(pixel_features(), [x], 40, keep=40)
    assert [half.count for half in found.halves] == [20, 20]
    assert sorted(everything.all_rows.ravel()) == list(range(40))
    for few, all_of_it, half in zip(found.rows, everything.rows, found.halves, strict=True):
        assert len(few) == 5
        assert set(few.ravel()) <= set(all_of_it.ravel())
        assert half.mean[0] == pytest.approx(all_of_it.mean())


def test_a_set_sorted_by_class_gives_both_halves_every_class():
    x = np.repeat(np.arange(4.0), 50)[:, None]
    found = collect(pixel_features(), batches(x, 16), 200)
    for rows in found.rows:
        assert np.bincount(rows.ravel().astype(int)).min() > 10
        assert len(np.unique(rows[:12])) == 4  # some rows of a half are a random choice, too


def test_more_rows_than_a_block_are_all_counted():
    x = np.ones((2 * _BLOCK + 3, 1)) * np.arange(2 * _BLOCK + 3)[:, None]
    found = collect(pixel_features(), batches(x, 1000), len(x), keep=4)
    assert found.whole.count == len(x)
    assert found.whole.mean[0] == pytest.approx(x.mean())


def test_processes_share_the_examples(monkeypatch):
    """Each process takes some, and together they take all."""
    parts = []
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr("fmjax.metrics.streaming.merge_over_processes", lambda part: part)
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        parts.append(collect(pixel_features(), batches(X, 8), len(X), keep=200))
    rows = np.concatenate([part.all_rows for part in parts])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, X.reshape(101, -1)))
    assert len({part.digest for part in parts}) == 1


def other_shape():
    yield X[:50]
    yield X[50:, :1]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: collect(pixel_features(), [X[:3]], 3), "number of examples .* at least 4; got 3"),
        (lambda: collect(pixel_features(), [X], 100), "as many as was said, 100; got 101 or more"),
        (lambda: collect(pixel_features(), [X], 102), "as many as was said, 102; got 101"),
        (lambda: collect(pixel_features(), other_shape(), 101), "one shape; got .1, 3. after"),
        (lambda: collect(pixel_features(), [X * np.nan], 101), "examples must be finite"),
        (lambda: collect(pixel_features(), [X], 101, dims=7), "gives 6 features .* and 7 of"),
        (
            lambda: collect(Features("mine", lambda x: x[:1]), [X], 101),
            "features mine must give one row per example, .101, d.; got shape .1, 2, 3.",
        ),
        (
            lambda: collect(Features("mine", lambda x: x[:, 0] * np.inf), [X], 101),
            "features mine must be finite",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
