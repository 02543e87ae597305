"""Snapshots as a stream of pairs: each pair between neighbours, each point as often, resumable."""

import itertools
import pickle

import numpy as np
import pytest

from fmjax.data.snapshots import Snapshots
from fmjax.data.streams import Stream, as_stream
from fmjax.errors import InputError

RNG = np.random.default_rng(0)
POINTS = {
    12.0: 30.0 + RNG.normal(size=(7, 2)),  # given in no order
    0.0: 10.0 + RNG.normal(size=(5, 2)),
    3.0: 20.0 + RNG.normal(size=(40, 2)),
}
ONE = {"start": 0, "process": 0, "processes": 1}


def batches(number, size=10, **place):
    stream = Snapshots(POINTS).batches(global_batch=size, seed=1, **{**ONE, **place})
    found = list(itertools.islice(stream, number))
    stream.close()
    return found


def snapshot_of(x):
    """Which snapshot each point belongs to: they lie 10 apart."""
    return np.round(x.mean(axis=1) / 10).astype(int)


def test_each_pair_is_of_neighbours_and_knows_its_interval():
    for batch in batches(5, 11):
        before, after = snapshot_of(batch["x0"]), snapshot_of(batch["x1"])
        np.testing.assert_array_equal(after, before + 1)
        expected = np.where((before == 1)[:, None], [0, 0.25], [0.25, 1])
        np.testing.assert_allclose(batch["labels"]["interval"], expected, rtol=1e-6)
        assert sorted(np.bincount(before, minlength=3)[1:]) == [5, 6]


def test_pairs_have_the_least_total_distance():
    (batch,) = batches(1, 8)
    for start in (0, 0.25):
        rows = batch["labels"]["interval"][:, 0] == np.float32(start)
        x0, x1 = (batch[name][rows].astype(np.float64) for name in ("x0", "x1"))
        least = min(
            np.square(x0[list(order)] - x1).sum()
            for order in itertools.permutations(range(len(x0)))
        )
        np.testing.assert_allclose(np.square(x0 - x1).sum(), least)


def test_each_point_of_a_snapshot_is_drawn_as_often():
    firsts = np.concatenate([batch["x0"] for batch in batches(400)])
    firsts = firsts[snapshot_of(firsts) == 1]
    _, counts = np.unique(firsts, axis=0, return_counts=True)
    np.testing.assert_array_equal(counts, [400] * 5)  # 5 of 5 in every batch
    lasts = np.concatenate([batch["x1"] for batch in batches(400)])
    middle = lasts[snapshot_of(lasts) == 2]
    _, counts = np.unique(middle, axis=0, return_counts=True)
    assert len(counts) == 40
    assert np.square(counts - 50).sum() / 50 < 80  # chi-square of 39 degrees, far out


def test_batch_k_is_the_same_from_whichever_start_and_on_any_number_of_processes():
    whole = batches(4)
    (later,) = batches(1, start=3)
    halves = [batches(1, start=3, process=p, processes=2)[0] for p in range(2)]
    for name in ("x0", "x1", "index"):
        np.testing.assert_array_equal(later[name], whole[3][name])
        joined = np.empty_like(later[name])
        joined[0::2], joined[1::2] = halves[0][name], halves[1][name]
        np.testing.assert_array_equal(joined, later[name])
    assert not np.array_equal(whole[0]["x1"], whole[1]["x1"])


def test_it_is_a_stream_that_pickles():
    snapshots = pickle.loads(pickle.dumps(Snapshots(POINTS)))
    assert isinstance(snapshots, Stream)
    assert as_stream(snapshots) is snapshots
    assert snapshots.number == 52
    assert len(snapshots.take(100)["x1"]) == 52
    assert [snapshots.scaled(t) for t in snapshots.times] == [0, 0.25, 1]


def test_a_snapshot_is_held_out():
    rest = Snapshots(POINTS).without(3.0)
    assert rest.times == (0.0, 12.0)
    with pytest.raises(InputError, match="between the first and the last snapshot; got 12"):
        Snapshots(POINTS).without(12.0)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([np.ones((3, 2))], r"must be \{time: points\}, at two or more times; got list"),
        ({0.0: np.ones((3, 2))}, "at two or more times; got 1"),
        ({0.0: np.ones((3, 2)), "late": np.ones((3, 2))}, "the time of a snapshot"),
        ({0.0: np.ones((3, 2)), 1.0: np.ones((0, 2))}, "the snapshot at 1 must have points"),
        ({0.0: np.ones((3, 2)), 1.0: np.full((2, 2), np.nan)}, "the snapshot at 1"),
        ({0.0: np.ones((3, 2)), 1.0: np.ones((3, 4))}, r"must have one shape; got .*\(4,\)"),
        ({0.0: np.ones((3, 2)), 1.0: np.array([["a", "b"]])}, "must have points, floats"),
    ],
)
def test_what_is_no_snapshots_is_refused(points, message):
    with pytest.raises(InputError, match=message):
        Snapshots(points)


def test_a_time_outside_is_refused():
    with pytest.raises(InputError, match="the time"):
        Snapshots(POINTS).scaled(13.0)
