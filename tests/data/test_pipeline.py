import itertools
import subprocess
import sys
import time

import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.data import pipeline
from fmjax.data.codecs import Pixels
from fmjax.data.dataset import Dataset
from fmjax.data.load import load
from fmjax.data.pairs.records import open_pairs
from fmjax.data.pairs.writer import save_pairs
from fmjax.errors import InputError


class Coded:
    """Images 1 x 2 x 3 that spell their own number, the right pixel marked to show a mirror."""

    def __init__(self, n, labelled=True):
        self.n, self.labelled = n, labelled

    def __len__(self):
        return self.n

    def read(self, indices):
        number = np.asarray(indices)
        images = np.zeros((len(number), 1, 2, 3), np.uint8)
        images[..., 0], images[..., 1] = (
            (number % 256)[:, None, None],
            (number // 256)[:, None, None],
        )
        images[:, 0, 1, 2] = 255
        return images, (number % 7).astype(np.int32) if self.labelled else None


def coded(n, labelled=True):
    source = Coded(n, labelled)
    return Dataset("coded", Pixels((1, 2, 3)), ClassIds(7) if labelled else None, source, source)


def take(dataset, count, **options):
    stream = pipeline.batches(dataset, **{"seed": 0, **options})
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()


def numbers(batch):
    return batch["x1"][:, 0, 0, 0].astype(int) + 256 * batch["x1"][:, 0, 0, 1].astype(int)


def mirrored(batch):
    return batch["x1"][:, 0, 0, 2] == 255


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key])
        assert value.dtype == other[key].dtype


def joined(parts):
    """The global batch from those of all processes, in the order of the index."""
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(whole["index"])
    return {key: value[order] for key, value in whole.items()}


@pytest.mark.slow
def test_a_batch_has_the_promised_types(digits):
    (batch,) = take(digits, 1, global_batch=32)
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "x1": ((32, 8, 8, 1), "uint8"),
        "labels": ((32,), "int32"),
        "index": ((32,), "int32"),
    }
    (point,) = take(load("toy/moons"), 1, global_batch=32)
    assert {k: (v.shape, v.dtype.name) for k, v in point.items()} == {
        "x1": ((32, 2), "float32"),
        "labels": ((32,), "int32"),
        "index": ((32,), "int32"),
    }


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("dataset", [coded(50), load("toy/rings")], ids=["images", "toy"])
def test_the_global_batch_is_the_same_on_any_number_of_processes(dataset, processes):
    flip = dataset.toy is None
    alone = take(dataset, 9, global_batch=16, flip=flip)
    parts = [
        take(dataset, 9, global_batch=16, flip=flip, process=p, processes=processes)
        for p in range(processes)
    ]
    for k in range(9):
        np.testing.assert_array_equal(alone[k]["index"], np.arange(16))
        for p in range(processes):
            np.testing.assert_array_equal(parts[p][k]["index"], np.arange(p, 16, processes))
        assert_same(joined([part[k] for part in parts]), alone[k])


@pytest.mark.parametrize("dataset", [coded(50), load("toy/rings")], ids=["images", "toy"])
@pytest.mark.parametrize("start", [1, 7, 90])
def test_a_stream_that_starts_at_k_is_the_rest_of_the_whole(dataset, start):
    options = {"global_batch": 12, "flip": dataset.toy is None, "process": 1, "processes": 2}
    whole = take(dataset, start + 3, **options)
    for late, early in zip(take(dataset, 3, start=start, **options), whole[start:], strict=True):
        assert_same(late, early)


def test_each_epoch_visits_every_example_once_in_an_order_of_its_own():
    # 3 epochs of 50 in batches of 16, so that batches span epochs.
    seen = np.concatenate([numbers(batch) for batch in take(coded(50), 10, global_batch=16)])
    epochs = [seen[50 * e : 50 * (e + 1)] for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))
    for one, other in itertools.combinations([np.arange(50), *epochs], 2):
        assert not np.array_equal(one, other)


def test_a_batch_may_be_larger_than_the_set():
    (batch,) = take(coded(10), 1, global_batch=30)
    np.testing.assert_array_equal(np.bincount(numbers(batch)), np.full(10, 3))


def test_neighbouring_seeds_share_no_epoch():
    orders = {
        (seed, epoch): tuple(numbers(batch))
        for seed in range(4)
        for epoch, batch in enumerate(take(coded(50), 4, global_batch=50, seed=seed))
    }
    assert len(set(orders.values())) == 16


def test_large_seeds_are_welcome():
    assert not np.array_equal(
        *(numbers(take(coded(50), 1, global_batch=50, seed=s)[0]) for s in (5, 5 + 2**32))
    )


def test_labels_stay_with_their_images():
    for batch in take(coded(600), 20, global_batch=60, flip=True):
        np.testing.assert_array_equal(batch["labels"], numbers(batch) % 7)
    assert set(take(coded(50, labelled=False), 1, global_batch=8)[0]) == {"x1", "index"}


def test_flip_mirrors_half_of_the_images_afresh_in_each_epoch():
    batches = take(coded(400), 20, global_batch=200, flip=True)
    coins = np.concatenate([mirrored(batch) for batch in batches])
    assert coins.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(coins.size))
    times = np.zeros(400)
    for batch in batches:
        np.add.at(times, numbers(batch), mirrored(batch))
    # 10 fair coins for each of 400 images: the variance is 2.5, and 0 if epochs repeated.
    assert 1.5 < times.var() < 3.5
    assert not any(mirrored(batch).any() for batch in take(coded(400), 4, global_batch=200))


def test_flip_is_a_mirror_from_left_to_right(digits):
    plain = take(digits, 1, global_batch=64)[0]["x1"]
    flipped = take(digits, 1, global_batch=64, flip=True)[0]["x1"]
    either = [
        np.array_equal(f, p) or np.array_equal(f, p[:, ::-1])
        for f, p in zip(flipped, plain, strict=True)
    ]
    assert all(either)
    assert not np.array_equal(flipped, plain)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """60 pairs of images that spell their own number in x1, and minus that in x0."""
    folder = tmp_path_factory.mktemp("pairs")
    images, labels = Coded(60).read(np.arange(60))
    save_pairs(folder, -images.astype(float), images.astype(float), labels, 7, shards=3)
    return open_pairs(folder)


def couple(rng, x1, labels):
    """Noise, and what the coupling was given beside the generator."""
    x0 = rng.normal(size=x1.shape)
    x0.reshape(len(x0), -1)[:, :2] = np.stack([x1.reshape(len(x1), -1)[:, 0], labels], axis=-1)
    return x0


def test_stored_pairs_stay_pairs(stored):
    seen = take(stored, 6, global_batch=18)
    for batch in seen:
        assert {k: v.dtype.name for k, v in batch.items()} == {
            "index": "int32",
            "x0": "float32",
            "x1": "float32",
            "labels": "int32",
        }
        np.testing.assert_array_equal(batch["x0"], -batch["x1"])
        np.testing.assert_array_equal(batch["labels"], numbers(batch) % 7)
    # 54 pairs are for training: one epoch shows each of them once.
    np.testing.assert_array_equal(
        np.sort(np.concatenate([numbers(batch) for batch in seen[:3]])),
        np.sort(stored.train.positions),
    )


SOURCES = ["stored", "coupled images", "coupled toy"]


def options_of(kind, stored):
    if kind == "stored":
        return stored, {}
    return (
        (coded(50), {"flip": True, "couple": couple})
        if kind == "coupled images"
        else (
            load("toy/rings"),
            {"couple": couple},
        )
    )


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("start", [1, 9, 90])
def test_a_stream_with_x0_that_starts_at_k_is_the_rest_of_the_whole(kind, start, stored):
    dataset, options = options_of(kind, stored)
    options |= {"global_batch": 12, "process": 1, "processes": 2}
    whole = take(dataset, start + 3, threads=4, **options)
    late = take(dataset, 3, start=start, threads=1, **options)
    for one, other in zip(late, whole[start:], strict=True):
        assert "x0" in one
        assert_same(one, other)


def test_stored_pairs_are_the_same_on_any_number_of_processes(stored):
    alone = take(stored, 5, global_batch=16)
    parts = [take(stored, 5, global_batch=16, process=p, processes=4) for p in range(4)]
    for k in range(5):
        assert_same(joined([part[k] for part in parts]), alone[k])


def test_the_coupling_sees_the_batch_and_its_noise_is_its_own():
    options = {"global_batch": 12, "couple": couple, "processes": 2}
    seen = [
        batch
        for seed in (0, 1)
        for process in (0, 1)
        for batch in take(coded(50), 4, seed=seed, process=process, **options)
    ]
    for batch in seen:
        rows = batch["x0"].reshape(6, -1)
        # As the model sees it: float, level 0 at -1 and level 255 at 1.
        np.testing.assert_allclose(rows[:, 0], numbers(batch) / 127.5 - 1, atol=1e-6)
        np.testing.assert_array_equal(rows[:, 1], batch["labels"])
        assert batch["x0"].dtype == np.float32
        assert batch["x1"].dtype == np.uint8
    assert len({batch["x0"][0, 0, 1, 2] for batch in seen}) == 16  # no two share their noise


def test_the_rest_of_a_batch_is_the_same_with_a_coupling():
    for dataset in (coded(50), load("toy/rings")):
        plain = take(dataset, 3, global_batch=8)
        for one, other in zip(plain, take(dataset, 3, global_batch=8, couple=couple), strict=True):
            assert other.pop("x0").shape == one["x1"].shape
            assert_same(one, other)


def test_a_coupling_needs_no_labels():
    def ones(rng, x1, labels):
        assert labels is None
        return np.ones_like(x1)

    (batch,) = take(coded(50, labelled=False), 1, global_batch=8, couple=ones)
    assert (batch["x0"] == 1).all()


def test_couplings_overlap_the_step():
    """Four threads couple at the same time, so that the consumer does not wait for their sum."""

    def slow(rng, x1, labels):
        time.sleep(0.1)
        return x1

    began = time.perf_counter()
    take(load("toy/rings"), 8, global_batch=4, threads=4, couple=slow)
    assert time.perf_counter() - began < 0.6


def test_a_coupling_that_does_not_fit_is_refused(stored):
    with pytest.raises(InputError, match="coupled already"):
        take(stored, 1, global_batch=4, couple=couple)
    with pytest.raises(InputError, match=r"shaped as x1, \(4, 2\); got \(3, 2\)"):
        take(load("toy/rings"), 1, global_batch=4, couple=lambda rng, x1, labels: x1[:-1])


def test_flipping_stored_points_is_refused(tmp_path):
    save_pairs(tmp_path, np.zeros((4, 2)), np.zeros((4, 2)))
    with pytest.raises(InputError, match="not pixels: flip must be off"):
        take(open_pairs(tmp_path), 1, global_batch=2, flip=True)
    assert take(open_pairs(tmp_path), 1, global_batch=2)[0]["x0"].shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"global_batch": 0}, "batch size must be a whole number of at least 1; got 0"),
        ({"global_batch": 6, "processes": 4}, r"multiple of 4 \(processes\); got 6. Write 4 or 8"),
        ({"global_batch": 4, "process": 2, "processes": 2}, r"process must lie in \[0, 1\]; got 2"),
        (
            {"global_batch": 4, "processes": 0},
            "number of processes must be a whole number",
        ),
        ({"global_batch": 4, "seed": -1}, "seed must be a whole number of at least 0; got -1"),
        (
            {"global_batch": 4, "start": -1},
            r"first batch .* at least 0; got -1",
        ),
        (
            {"global_batch": 4, "threads": 0},
            "number of threads must be a whole number",
        ),
    ],
)
@pytest.mark.parametrize("dataset", [coded(50), load("toy/rings")], ids=["images", "toy"])
def test_numbers_that_do_not_fit_are_refused(dataset, options, sentence):
    with pytest.raises(InputError, match=sentence):
        take(dataset, 1, **options)


def test_flipping_points_is_refused():
    with pytest.raises(InputError, match="not pixels: flip must be off"):
        take(load("toy/rings"), 1, global_batch=4, flip=True)


def test_prefetch_keeps_two_placed_batches_ahead():
    placed = []
    stream = pipeline.device_prefetch(iter(range(10)), lambda k: placed.append(k) or -k)
    assert placed == []
    assert next(stream) == 0
    assert placed == [0, 1, 2]
    assert next(stream) == -1
    assert placed == [0, 1, 2, 3]
    assert list(stream) == [-k for k in range(2, 10)]
    with pytest.raises(StopIteration):
        next(stream)
    assert stream.peek() is None


def test_prefetch_counts_the_waiting_and_only_that():
    def slow():
        for k in range(4):
            time.sleep(0.02)
            yield k

    stream = pipeline.device_prefetch(slow(), lambda k: k, size=1)
    for _ in stream:
        time.sleep(0.2)
    assert 0.08 <= stream.waited < 0.3


def test_prefetch_closes_its_iterator_and_may_be_closed_twice():
    inner = pipeline.batches(coded(50), global_batch=8, seed=0)
    stream = pipeline.device_prefetch(inner, lambda batch: batch)
    next(stream)
    stream.close()
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        next(inner)


def test_prefetch_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        pipeline.device_prefetch(iter([]), lambda batch: batch, size=0)


@pytest.mark.slow
def test_a_stream_left_open_does_not_hold_the_interpreter():
    code = (
        "from fmjax.data import pipeline\nfrom fmjax.data.load import load\n"
        "stream = pipeline.batches(load('toy/moons'), global_batch=8, seed=0)\n"
        "ahead = pipeline.device_prefetch(stream, lambda b: b)\n"
        "next(ahead); print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "done\n"


def test_one_batch_a_call_has_no_axis_of_calls():
    batches = [{"x1": np.full(2, k)} for k in range(5)]
    assert list(pipeline.in_rows(iter(batches), 1)) == batches
    rows = list(pipeline.in_rows((batch for batch in batches), 2))  # the last one is left over
    np.testing.assert_array_equal([row["x1"][:, 0] for row in rows], [[0, 1], [2, 3]])


def test_batches_in_rows_end_where_an_iterator_cannot_be_closed():
    batches = iter([{"x1": np.zeros((2, 3))}] * 3)
    assert not hasattr(batches, "close")
    assert [row["x1"].shape for row in pipeline.in_rows(batches, 2)] == [(2, 2, 3)]
