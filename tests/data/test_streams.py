"""Streams of any data: the same batches by any number of processes, and from any batch on."""

import itertools

import grain
import jax
import numpy as np
import pytest

from fmjax.conditions import check_labels, conditions_of
from fmjax.data import pipeline
from fmjax.data.arrays import ArrayPairs, ArraySplit
from fmjax.data.streams import IteratorStream, as_stream
from fmjax.errors import InputError

TREE = {
    "x": {"position": np.arange(60.0).reshape(20, 3), "mass": np.arange(20.0)},
    "labels": {"class": np.arange(20)},
}


def take(stream, number, start=0, process=0, processes=1):
    place = {"seed": 3, "start": start, "process": process, "processes": processes}
    batches = stream.batches(global_batch=8, **place)
    found = list(itertools.islice(batches, number))
    batches.close()
    return found


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


def test_trees_of_arrays_stay_together_row_by_row():
    for batch in take(as_stream(TREE), 5):
        np.testing.assert_array_equal(batch["labels"]["class"], batch["x1"]["mass"])
        np.testing.assert_array_equal(batch["x1"]["position"][:, 0], 3 * batch["x1"]["mass"])
        assert batch["x1"]["mass"].dtype == np.float32
        assert batch["labels"]["class"].dtype == np.int32


def test_a_stream_is_the_same_from_any_batch_and_by_any_number_of_processes():
    whole = take(as_stream(TREE), 6)
    for one, other in zip(take(as_stream(TREE), 2, start=4), whole[4:], strict=True):
        assert_same(one, other)
    parts = [take(as_stream(TREE), 6, process=p, processes=2) for p in range(2)]
    for k, batch in enumerate(whole):
        joined = jax.tree.map(
            lambda *rows: np.stack(rows, 1).reshape(8, *rows[0].shape[1:]),
            *(part[k] for part in parts),
        )
        assert_same(joined, batch)


def test_several_batches_in_a_row_are_stacked_leaf_by_leaf():
    batches = as_stream(TREE).batches(global_batch=8, seed=3, start=0, process=0, processes=1)
    rows = pipeline.in_rows(batches, 2)
    first = next(rows)
    rows.close()
    assert_same(first, jax.tree.map(lambda *x: np.stack(x), *take(as_stream(TREE), 2)))


def test_a_split_in_memory_gives_rows_and_examples():
    x, labels = np.arange(6.0).reshape(3, 2), np.arange(3)
    split = ArraySplit(x, labels)
    assert len(split) == 3
    assert_same(split.read([2, 0]), (x[[2, 0]], labels[[2, 0]]))
    assert_same(split[1], {"x": x[1], "labels": labels[1]})
    pairs = ArrayPairs(x, None, x - 1)
    assert_same(pairs.read_pairs([2]), (x[[2]] - 1, x[[2]], None))
    assert_same(pairs[0], {"x0": x[0] - 1, "x": x[0]})


def test_held_out_examples_are_a_fixed_choice_or_the_first_of_an_iterator():
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    stream = as_stream(x)
    assert_same(stream.take(5), stream.take(5))
    assert len({tuple(row) for row in stream.take(20)["x1"]}) == 20
    iterator = as_stream(iter([x[:8], x[8:16]]))
    assert_same(iterator.take(3)["x1"], x[:3])
    assert_same([batch["x1"] for batch in take(iterator, 3)], [x[:8], x[8:16]])


def test_examples_that_differ_in_shape_are_refused():
    with pytest.raises(InputError, match="same parts, of the same shapes"):
        take(as_stream([np.zeros(2), np.zeros(3)] * 4), 1)


def test_an_iterator_of_other_batches_is_refused():
    def stream():
        return IteratorStream(iter([np.zeros((4, 2))]))

    assert len(take(stream(), 1, process=1, processes=2)) == 1  # each process gives its own rows
    with pytest.raises(InputError, match=r"batches of 4 examples.*write batch_size=4"):
        take(stream(), 1)


def test_weights_say_how_often_an_example_in_memory_is_visited():
    data = {"x": np.arange(4.0)[:, None], "labels": np.arange(4), "weights": np.array([0, 1, 2, 5])}
    stream = as_stream(data)
    assert stream.number == 4
    batches = stream.batches(global_batch=8, seed=0, start=0, process=0, processes=1)
    batch = next(batches)
    batches.close()
    assert set(batch) == {"x1", "labels", "index"}
    assert np.bincount(batch["labels"], minlength=4).tolist() in ([0, 1, 2, 5], [0, 2, 2, 4])
    for wrong in (np.ones(3), -np.ones(4), np.zeros(4), np.array([1, 2, np.nan, 1])):
        with pytest.raises(InputError, match="the weights of data must be one number of at least"):
            as_stream(data | {"weights": wrong})


class Examples:
    """What grain calls a source: a length, and an example by its number."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return 12

    def __getitem__(self, k):
        return jax.tree.map(lambda x: x[k], self.arrays)


def test_conditions_of_every_kind_and_pairs_go_through_however_they_come():
    rng = np.random.default_rng(0)
    labels = {
        "kind": np.arange(12) % 3,
        "age": rng.normal(size=(12, 2)),
        "text": rng.normal(size=(12, 4, 3)),
        "text_mask": rng.random((12, 4)) < 0.5,
        "image": rng.normal(size=(12, 2, 2, 1)),
    }
    data = {"x": rng.normal(size=(12, 5)), "x0": rng.normal(size=(12, 5)), "labels": labels}
    whole = jax.tree.map(lambda x: x[:6], data)
    forms = (data, Examples(data), grain.MapDataset.source(Examples(data)), iter([whole]))
    for form in forms:
        batches = as_stream(form).batches(global_batch=6, seed=0, start=0, process=0, processes=1)
        batch = next(batches)
        assert set(batch) == {"x0", "x1", "labels", "index"}
        close = np.isclose(batch["x1"][:, None], data["x"], rtol=1e-5).all(axis=2)
        row = close.argmax(axis=1)
        np.testing.assert_allclose(batch["x0"], data["x0"][row], rtol=1e-6)
        for name, x in labels.items():
            np.testing.assert_allclose(batch["labels"][name], x[row], rtol=1e-6)
        check_labels(batch["labels"], conditions_of(labels), 6)
        batches.close()


class NoBatches:
    """It can be asked for its batches any number of times, and there are none."""

    def __iter__(self):
        return iter(())


def test_an_iterable_without_batches_is_refused_and_not_asked_for_ever():
    with pytest.raises(InputError, match="at least one batch; the iterator gave none"):
        IteratorStream(NoBatches()).take(3)


class OfOneShape:
    shape = (3, 2)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"labels": np.arange(3)}, "got 'labels'"),
        ({"x": np.ones(3), "y": np.ones(3)}, "got 'x', 'y'"),
        ([1.0, 2.0], "got list"),
        (OfOneShape(), "got OfOneShape"),
    ],
)
def test_a_batch_that_is_no_array_and_no_dictionary_of_the_parts_is_refused(given, found):
    with pytest.raises(InputError, match=f"each batch must be an array, .*; {found}"):
        IteratorStream([given]).take(3)


def test_an_iterable_begins_anew_at_its_end_and_an_iterator_does_not():
    batches = [np.full(2, k) for k in range(3)]
    again = IteratorStream(batches).batches(global_batch=2, seed=0, start=0, process=0, processes=1)
    assert [int(batch["x1"][0]) for batch in itertools.islice(again, 7)] == [0, 1, 2, 0, 1, 2, 0]
    once = IteratorStream(iter(batches))
    once = once.batches(global_batch=2, seed=0, start=0, process=0, processes=1)
    assert [int(batch["x1"][0]) for batch in once] == [0, 1, 2]


def test_the_first_batch_of_an_iterable_is_checked():
    with pytest.raises(InputError, match="a batch"):
        IteratorStream([{"x": np.ones((3, 2)), "labels": np.arange(2)}]).take(3)
