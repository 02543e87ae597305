"""Reading prepared sets: any order, any size, and what is unfit or damaged is named."""

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fmjax.data.codecs import States
from fmjax.data.load import load
from fmjax.data.tfds import records
from fmjax.errors import InputError
from tests.data.tfds.image_sets import Odd, multiset, odd, rewrite, write


def test_sources_pickle_and_read_in_any_order(data_dir):
    write(data_dir, train=40)
    train = load("blobs").train
    images, labels = train.read(range(40))
    copy = pickle.loads(pickle.dumps(train))
    assert len(pickle.dumps(train)) < 1000
    for indices in ([3], [7, 3, 7], list(range(39, -1, -1))):
        for one, other in zip(copy.read(indices), (images[indices], labels[indices]), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError):
        train[40]


@pytest.mark.parametrize("limit", [0, 2**30])
def test_a_set_too_large_for_memory_reads_the_same(data_dir, monkeypatch, limit):
    _, train, _ = write(data_dir)
    monkeypatch.setattr(records, "CACHE_BYTES", limit)
    dataset = load("blobs")
    assert (dataset.train._cache is None) == (limit == 0)
    for _ in range(2):
        images, labels = dataset.arrays("train")
        assert multiset(images, labels) == multiset(*zip(*train, strict=True))
        images[:] = 0  # what was read is the caller's own


def test_a_set_without_a_test_split_lends_a_tenth_of_its_examples(data_dir):
    _, train, _ = write(data_dir, train=40, test=0)
    dataset = load("blobs")
    parts = [multiset(*dataset.arrays(split)) for split in ("train", "test")]
    assert list(map(len, parts)) == [36, 4]
    assert sorted(parts[0] + parts[1]) == multiset(*zip(*train, strict=True))


def test_the_newest_version_is_read(data_dir):
    new, train, _ = write(data_dir)
    new.rename(new.with_name("10.0.0"))
    info = new.with_name("10.0.0") / "dataset_info.json"
    rewrite(info, version="10.0.0")
    other = write(data_dir, name="other")[0]
    rewrite(other / "dataset_info.json", name="blobs", version="9.0.0")
    other.rename(data_dir / "blobs" / "9.0.0")
    assert load("blobs").train.folder.name == "10.0.0"
    assert multiset(*load("blobs").arrays("train")) == multiset(*zip(*train, strict=True))


def test_a_tfrecord_set_comes_with_the_command_that_converts_it(data_dir):
    folder, _, _ = write(data_dir, name="mnist")
    rewrite(folder / "dataset_info.json", fileFormat="tfrecord")
    with pytest.raises(InputError, match=r"tfrecord.*`python.* --name=mnist --overwrite`"):
        load("mnist")
    with pytest.raises(InputError, match=f"--name=mnist --data_dir={data_dir.parent}/x/../sets"):
        load("mnist", data_dir.parent / "x" / ".." / "sets")


def truncate(folder):
    record = folder / "blobs-train.array_record-00000-of-00001"
    record.write_bytes(record.read_bytes()[:100])


DAMAGES = {
    "truncated": truncate,
    "no file": lambda folder: (folder / "blobs-test.array_record-00000-of-00001").unlink(),
    "no features": lambda folder: (folder / "features.json").unlink(),
    "bad json": lambda folder: (folder / "dataset_info.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_set_is_named(data_dir, damage):
    folder, _, _ = write(data_dir)
    damage(folder)
    with pytest.raises(InputError, match=rf"'blobs' in {folder} cannot be read \(.+\); delete"):
        load("blobs")


def test_damaged_bytes_among_the_examples_are_named(data_dir):
    folder, _, _ = write(data_dir)
    record = folder / "blobs-train.array_record-00000-of-00001"
    data = bytearray(record.read_bytes())
    data[200] ^= 0xFF
    record.write_bytes(data)
    with pytest.raises(InputError, match=r"the data set is damaged: .*Prepare it again"):
        load("blobs").arrays("train")


def test_a_set_without_images_is_refused(data_dir):
    with pytest.raises(InputError, match=r"unknown feature .*\(data.x\) 'image'.*audio"):
        odd(data_dir, {"audio": tfds.features.Scalar(np.int64)}, {"audio": 1})


def test_a_set_of_images_of_many_sizes_is_refused(data_dir, tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "x.png")
    features = {"image": tfds.features.Image(shape=(None, None, 3))}
    with pytest.raises(InputError, match=r"images of several sizes: write data.size=64"):
        odd(data_dir, features, {"image": str(tmp_path / "x.png")})


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [(("validation",), "has no train split, only validation"), (("train",), "one example only")],
)
def test_a_set_with_too_little_is_refused(data_dir, tmp_path, splits, sentence):
    Image.new("L", (3, 2)).save(tmp_path / "x.png")
    features = {"image": tfds.features.Image(shape=(2, 3, 1))}
    with pytest.raises(InputError, match=sentence):
        odd(data_dir, features, {"image": str(tmp_path / "x.png")}, splits)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5,)])
def test_floats_are_states_that_nobody_scales_or_clips(data_dir, monkeypatch, shape):
    values = np.linspace(-7, 300, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    monkeypatch.setattr(Odd, "_generate_examples", lambda self: enumerate([{"image": values}] * 3))
    features = {"image": tfds.features.Tensor(shape=shape, dtype=np.float32)}
    dataset = odd(data_dir, features, None, ("train", "test"))
    assert dataset.codec == States(shape)
    stored = dataset.arrays("test")[0]
    np.testing.assert_array_equal(stored, np.stack([values] * 3))
    np.testing.assert_array_equal(dataset.codec.decode(dataset.codec.encode(stored)), stored)
