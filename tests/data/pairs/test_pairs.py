import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.data.codecs import States
from fmjax.data.pairs import records
from fmjax.data.pairs.records import PairInfo, open_pairs, read_info, shard_path
from fmjax.data.pairs.writer import begin_pairs, save_pairs, write_shard
from fmjax.errors import InputError

SHAPE = (2, 3, 1)
INFO = PairInfo(SHAPE, 23, 4, 5, ("a", "b", "c", "d", "e"), {"step": 7, "guidance": 1.5}, "go --on")


def pair(i):
    """Pair i spells its number: x0 counts up from it, x1 is minus that."""
    i = np.asarray(i)
    x0 = (i[:, None] + np.arange(6) / 8).reshape(-1, *SHAPE).astype(np.float32)
    return x0, -x0, (i % 5).astype(np.int32)


def parts(info, shard, size=4):
    rows = np.asarray(info.rows(shard))
    return [pair(rows[k : k + size]) for k in range(0, len(rows), size)]


@pytest.fixture
def folder(tmp_path):
    """A complete set."""
    begin_pairs(tmp_path / "pairs", INFO)
    for shard in (2, 0, 3, 1):
        write_shard(tmp_path / "pairs", INFO, shard, parts(INFO, shard))
    return tmp_path / "pairs"


def numbers(x0):
    return np.rint(x0.reshape(len(x0), -1)[:, 0]).astype(int)


def test_what_was_written_comes_back(folder):
    whole = records.PairRecords(folder, read_info(folder))
    order = np.random.default_rng(0).permutation(23)
    for got, wanted in zip(whole.read_pairs(order), pair(order), strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype
    x1, labels = whole.read(order)
    np.testing.assert_array_equal(x1, pair(order)[1])
    np.testing.assert_array_equal(labels, order % 5)
    assert whole[13]["label"] == 3
    np.testing.assert_array_equal(whole[13]["x0"], pair([13])[0][0])
    with pytest.raises(IndexError):
        whole[23]


def test_the_description_comes_back(folder):
    assert read_info(folder) == INFO
    data = open_pairs(folder, SHAPE, 5)
    assert data.codec == States(SHAPE)
    assert data.conditions == ClassIds(5, names=INFO.class_names)


def test_shards_split_the_pairs_evenly_and_in_order():
    for number, shards in ((23, 4), (8, 8), (100, 7)):
        info = PairInfo((2,), number, shards)
        rows = [info.rows(k) for k in range(shards)]
        assert [i for r in rows for i in r] == list(range(number))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_tenth_is_held_out_the_same_at_every_opening(folder, tmp_path):
    data = open_pairs(folder)
    train, test = (numbers(s.read_pairs(np.arange(len(s)))[0]) for s in (data.train, data.test))
    assert len(test) == 2
    assert sorted([*train, *test]) == list(range(23))
    again = open_pairs(folder)
    np.testing.assert_array_equal(numbers(again.test.read_pairs([0, 1])[0]), test)
    x0, x1, _ = pair(np.arange(2))
    save_pairs(tmp_path / "two", x0, x1)
    assert [len(s) for s in (open_pairs(tmp_path / "two").train, open_pairs(tmp_path / "two").test)]
    assert len(open_pairs(tmp_path / "two").test) == 1


def test_arrays_for_evaluation_are_float(folder):
    x1, labels = open_pairs(folder).arrays("test", 1)
    assert (x1.dtype, x1.shape, labels.shape) == (np.float32, (1, *SHAPE), (1,))


def test_points_without_labels(tmp_path):
    x0, x1 = np.random.default_rng(0).normal(size=(2, 50, 2))
    save_pairs(tmp_path, x0, x1, shards=3)
    data = open_pairs(tmp_path, (2,))
    got_x0, got_x1, labels = data.train.read_pairs(np.arange(45))
    assert labels is None
    assert data.conditions is None
    # Each pair is still a pair: its x1 is that of the same row.
    rows = [int(np.flatnonzero(np.float32(x0)[:, 0] == row[0])[0]) for row in got_x0]
    np.testing.assert_array_equal(got_x1, np.float32(x1)[rows])


def test_a_source_pickles_without_what_it_has_read(folder):
    source = open_pairs(folder).train
    before = source.read_pairs([3, 1])
    pickled = pickle.dumps(source)
    assert len(pickled) < 4000
    for got, wanted in zip(pickle.loads(pickled).read_pairs([3, 1]), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("limit", [2**30, 0], ids=["cached", "uncached"])
def test_threads_may_share_a_source(folder, monkeypatch, limit):
    monkeypatch.setattr(records, "CACHE_BYTES", limit)
    source = records.PairRecords(folder, read_info(folder))
    orders = [np.random.default_rng(k).permutation(23) for k in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for order, got in zip(orders, pool.map(source.read_pairs, orders), strict=True):
            for one, wanted in zip(got, pair(order), strict=True):
                np.testing.assert_array_equal(one, wanted)
    assert (source._cache is None) == (limit == 0)


def test_what_is_cached_is_read_once(folder, monkeypatch):
    source, read = records.PairRecords(folder, read_info(folder)), []
    load = records.PairRecords._read_records
    monkeypatch.setattr(
        records.PairRecords, "_read_records", lambda self, new: read.extend(new) or load(self, new)
    )
    for indices in ([3, 1, 3], [1, 4], np.arange(23), np.arange(23)):
        source.read_pairs(indices)
    assert sorted(read) == list(range(23))


def test_what_is_read_belongs_to_the_caller(folder):
    source = records.PairRecords(folder, read_info(folder))
    for array in source.read_pairs([4]):
        array[...] = 0
    for got, wanted in zip(source.read_pairs([4]), pair([4]), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_an_incomplete_set_says_what_is_missing_and_goes_on(folder):
    shard_path(folder, INFO, 1).unlink()
    shard_path(folder, INFO, 3).unlink()
    assert records.missing_shards(folder, INFO) == [1, 3]
    with pytest.raises(InputError, match=r"2 of 4 shards are missing. Go on with: go --on"):
        open_pairs(folder)
    begin_pairs(folder, INFO)
    for shard in (1, 3):
        write_shard(folder, INFO, shard, parts(INFO, shard, size=1))
    assert len(open_pairs(folder).train) == 21


def test_a_shard_appears_when_it_is_whole(tmp_path):
    begin_pairs(tmp_path, INFO)

    def killed():
        yield parts(INFO, 0)[0]
        assert records.missing_shards(tmp_path, INFO) == [0, 1, 2, 3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, INFO, 0, killed())
    assert [path.name for path in tmp_path.iterdir()] == [records.INFO]


def test_what_a_killed_writer_left_is_replaced(tmp_path):
    begin_pairs(tmp_path, INFO)
    left = shard_path(tmp_path, INFO, 0)
    left.write_bytes(b"half a shard")
    assert "half" not in (records.damage(tmp_path, INFO, 0) or "half")
    write_shard(tmp_path, INFO, 0, parts(INFO, 0))
    assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, records.INFO]


def test_a_second_beginning_must_agree(folder):
    begin_pairs(folder, INFO._replace(resume="another command"))
    for changes, sentence in (
        ({"number": 24}, "number=23 .asked: 24"),
        ({"origin": {"step": 8, "guidance": 1.5}}, "origin=.*'step': 7.*asked.*'step': 8"),
        ({"shape": (2, 3, 3)}, "shape="),
    ):
        with pytest.raises(InputError, match=f"holds other pairs, with {sentence}"):
            begin_pairs(folder, INFO._replace(**changes))


def test_pairs_of_other_data_are_refused(folder):
    with pytest.raises(InputError, match=r"have shape \(2, 3, 1\), but the data \(8, 8, 1\)"):
        open_pairs(folder, (8, 8, 1))
    with pytest.raises(InputError, match="are of 5 classes, but the data of 10"):
        open_pairs(folder, SHAPE, 10)


@pytest.mark.parametrize(
    "content",
    [None, "{", "[1]", '{"shape": [2]}', '{"shape": [2], "number": 2, "shards": 3}', '{"a": 1}'],
)
def test_a_folder_of_something_else_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / records.INFO).write_text(content)
    with pytest.raises(InputError, match=r"is not a set of stored pairs.*python -m fmjax reflow"):
        open_pairs(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "other pairs", "other size"])
def test_a_damaged_shard_is_named(folder, damage):
    path = shard_path(folder, INFO, 2)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other pairs":
        path.write_bytes(shard_path(folder, INFO, 0).read_bytes())  # 5 pairs instead of 6
    else:
        stored = json.loads((folder / records.INFO).read_text())
        (folder / records.INFO).write_text(json.dumps(stored | {"shape": [2, 3, 3]}))
    with pytest.raises(InputError, match=r"is damaged .* delete that file .* Go on with: go --on"):
        open_pairs(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x0, x1, labels: (x0[..., :0], x1, labels), "x0 must be floats.*5 examples of sha"),
        (lambda x0, x1, labels: (x0[:-1], x1, labels), r"x0 must be floats.*got float32 \(4,"),
        (lambda x0, x1, labels: (x0, x1.astype(np.uint8), labels), "x1 must be.*got uint8"),
        (lambda x0, x1, labels: (x0 * np.nan, x1, labels), "x0 must be finite; got NaN"),
        (lambda x0, x1, labels: (x0, x1 / 0.0, labels), "x1 must be finite; got NaN or infinity"),
        (lambda x0, x1, labels: (x0, x1, labels + 1), "between 0 and 4; got 5"),
        (lambda x0, x1, labels: (x0, x1, None), "between 0 and 4; got -1"),
        (lambda x0, x1, labels: (x0[:4], x1[:4], labels[:4]), "takes 5 pairs, got 4"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_pairs_that_do_not_fit_are_refused(tmp_path, change, sentence):
    begin_pairs(tmp_path, INFO)
    with pytest.raises(InputError, match=sentence):
        write_shard(tmp_path, INFO, 0, [change(*pair(np.arange(5)))])
    assert records.missing_shards(tmp_path, INFO) == [0, 1, 2, 3]


def test_labels_need_classes(tmp_path):
    with pytest.raises(InputError, match="the set has no classes"):
        save_pairs(tmp_path, *pair(np.arange(5)))


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        (PairInfo((2,), 1), "at least two pairs"),
        (PairInfo((2,), 4, 5), "4 pairs fit into 1 to 4 shards; got 5"),
        (PairInfo((2,), 4, 0), "got 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, info, sentence):
    with pytest.raises(InputError, match=sentence):
        begin_pairs(tmp_path, info)


def test_the_size_is_known_beforehand(folder):
    stored = sum(shard_path(folder, INFO, k).stat().st_size for k in range(4))
    assert INFO.nbytes == 23 * (2 * 6 * 4 + 4)
    assert stored >= INFO.nbytes
