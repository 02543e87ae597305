"""Weights: how often an epoch visits an example, in an order that is a function of the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmjax.data import pipeline
from fmjax.data.arrays import ArraySplit
from fmjax.data.codecs import Vectors
from fmjax.data.dataset import Dataset, hold_out
from fmjax.data.resampling import WeightedOrder, resample

WEIGHTS = np.array([0.0, 3.0, 1.0, 0.5, 0.25, 7.0, 0.0, 2.0])


@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=40),
    st.integers(1, 200),
    st.floats(0, 1, exclude_max=True),
)
@settings(deadline=None, max_examples=200)
def test_each_example_is_drawn_floor_or_ceil_of_its_share(weights, count, u):
    weights = np.array([*weights, 1.0])
    drawn = np.bincount(resample(weights, count, u), minlength=len(weights))
    share = count * weights / weights.sum()
    assert drawn.sum() == count
    assert (drawn >= np.floor(share - 1e-6)).all()
    assert (drawn <= np.ceil(share + 1e-6)).all()
    assert not drawn[weights == 0].any()


def test_over_offsets_each_example_has_its_share_exactly():
    offsets = (np.arange(1000) + 0.5) / 1000
    drawn = [np.bincount(resample(WEIGHTS, 8, u), minlength=8) for u in offsets]
    np.testing.assert_allclose(np.mean(drawn, axis=0), 8 * WEIGHTS / WEIGHTS.sum(), atol=2e-3)


def test_epochs_are_functions_of_the_seed_and_their_number():
    one, other = WeightedOrder(WEIGHTS, 3), WeightedOrder(WEIGHTS, 3)
    epochs = [[one[8 * e + i] for i in range(8)] for e in range(20)]
    assert [other[k] for k in reversed(range(160))] == list(np.concatenate(epochs)[::-1])
    assert len({tuple(epoch) for epoch in epochs}) > 15
    assert [WeightedOrder(WEIGHTS, 4)[k] for k in range(160)] != list(np.concatenate(epochs))


def weighted(weights):
    split = ArraySplit(np.arange(len(weights), dtype=np.float32)[:, None], weights=weights)
    return Dataset("weighted", Vectors(1), train=split, test=split)


def rows(number, **place):
    stream = pipeline.batches(weighted(WEIGHTS), global_batch=4, seed=1, **place)
    try:
        return np.stack([next(stream)["x1"][:, 0] for _ in range(number)])
    finally:
        stream.close()


def test_batches_visit_examples_by_their_weights_wherever_they_start():
    whole = rows(20)
    np.testing.assert_array_equal(rows(13, start=7), whole[7:])
    parts = [rows(20, process=p, processes=2) for p in range(2)]
    np.testing.assert_array_equal(np.stack(parts, axis=2).reshape(20, 4), whole)
    drawn = np.bincount(whole.astype(int).ravel(), minlength=8)
    share = 80 * WEIGHTS / WEIGHTS.sum()
    assert (np.abs(drawn - share) <= 10).all()  # ten epochs of 8
    assert not drawn[WEIGHTS == 0].any()


def test_a_held_out_part_keeps_the_weights_of_its_examples():
    for part in hold_out(weighted(WEIGHTS).train, 0.25):
        np.testing.assert_array_equal(part.weights, WEIGHTS[part.indices])


@pytest.mark.parametrize("limit", [None, 4])
def test_evaluation_sees_the_weighted_distribution(limit):
    dataset = weighted(np.array([1.0, 0, 0, 0, 0, 0, 0, 7]))
    x, _ = dataset.arrays("test", limit)
    share = (limit or 8) * 7 / 8
    assert abs(np.count_nonzero(x == 7) - share) < 1
    assert len(x) == (limit or 8)
