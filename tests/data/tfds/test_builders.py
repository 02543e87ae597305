import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from fmjax.data.tfds import builders, directory, records
from fmjax.data.toys import TOYS
from fmjax.errors import InputError

RNG = np.random.default_rng(0)


def examples(n, shape=(4, 5, 3), classes=3):
    images = RNG.integers(0, 256, size=(n, *shape), dtype=np.uint8)
    labels = [None] * n if classes is None else (np.arange(n) % classes).tolist()
    return list(zip(images, labels, strict=True))


def write(data_dir, name="blobs", train=12, test=6, shape=(4, 5, 3), classes=3, **options):
    train, test = examples(train, shape, classes), examples(test, shape, classes) if test else None
    names = None if classes is None else [f"kind {k}" for k in range(classes)]
    folder = builders.write_image_set(name, data_dir, train, test, names, shape, **options)
    return folder, train, test


def multiset(images, labels):
    labels = [None] * len(images) if labels is None else labels
    return sorted((x.tobytes(), y) for x, y in zip(images, labels, strict=True))


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ------------------------------------------------------------------------------ digits


def test_the_digits_are_those_of_scikit_learn(digits):
    raw = load_digits()
    expected = np.round(raw.images * 255 / 16).astype(np.uint8)[..., None]
    parts = [digits.arrays(split) for split in ("train", "test")]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    assert multiset(images, labels) == multiset(expected, raw.target)
    assert (digits.shape, digits.num_classes) == ((8, 8, 1), 10)
    assert digits.class_names == tuple("0123456789")


def test_the_digits_are_split_once_and_by_class(digits):
    (train, train_labels), (test, test_labels) = digits.arrays("train"), digits.arrays("test")
    assert (len(train), len(test)) == (1500, 297)
    share = np.bincount(test_labels) / np.bincount(np.concatenate([train_labels, test_labels]))
    np.testing.assert_allclose(share, 297 / 1797, atol=0.006)


def test_the_digits_are_prepared_once_where_the_environment_says(data_dir):
    builders.load("digits")
    files = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    assert data_dir / "digits" / "1.0.0" / "dataset_info.json" in files
    builders.load("digits")
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")} == files
    assert not list(data_dir.glob(".*"))


def test_the_digits_are_the_same_wherever_they_are_prepared(digits, tmp_path):
    again = builders.load("digits", tmp_path)
    for one, other in zip(digits.arrays("test"), again.arrays("test"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_digits_are_a_tfds_builder(tmp_path):
    builder = tfds.builder("digits", data_dir=tmp_path)
    assert isinstance(builder, builders.Digits)
    builder.download_and_prepare()
    assert builder.info.splits["test"].num_examples == 297


def test_two_at_once_leave_one_good_set(tmp_path):
    def slow(scratch):
        builders.prepare_digits(tmp_path)  # another process is done in the meantime
        return builders.Digits(data_dir=scratch)

    folder = directory.publish(slow, tmp_path)
    assert folder == tmp_path / "digits" / "1.0.0"
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert len(builders.load("digits", tmp_path).arrays("train")[0]) == 1500


@pytest.mark.slow
def test_two_processes_prepare_at_once(tmp_path):
    code = "from fmjax.data import builders; print(len(builders.load('digits').train))"
    start = [sys.executable, "-c", code]
    env = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    both = [subprocess.Popen(start, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in both] == ["1500\n", "1500\n"]
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


# ------------------------------------------------------------------------------ sets of one's own


@pytest.mark.parametrize("shape", [(4, 5, 3), (6, 6, 1)])
@pytest.mark.parametrize("classes", [3, None])
def test_what_is_written_is_read_back(data_dir, shape, classes):
    folder, train, test = write(data_dir, shape=shape, classes=classes)
    assert folder == data_dir / "blobs" / "1.0.0"
    dataset = builders.load("blobs")
    assert (dataset.shape, dataset.num_classes) == (shape, classes)
    assert dataset.class_names == (None if classes is None else ("kind 0", "kind 1", "kind 2"))
    for split, written in (("train", train), ("test", test)):
        assert multiset(*dataset.arrays(split)) == multiset(*zip(*written, strict=True))
    assert set(dataset.train[0]) == ({"image", "label"} if classes else {"image"})


def test_tfds_reads_the_set_without_fmjax(data_dir):
    _, train, _ = write(data_dir)
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        "source = tfds.builder('blobs').as_data_source('train')\n"
        "print(sum(int(x['image'].sum()) for x in source), 'fmjax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{sum(int(image.sum()) for image, _ in train)} False\n"


def test_sources_pickle_and_read_in_any_order(data_dir):
    write(data_dir, train=40)
    train = builders.load("blobs").train
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
    dataset = builders.load("blobs")
    assert (dataset.train._cache is None) == (limit == 0)
    for _ in range(2):
        images, labels = dataset.arrays("train")
        assert multiset(images, labels) == multiset(*zip(*train, strict=True))
        images[:] = 0  # what was read is the caller's own


def test_a_set_without_a_test_split_lends_a_tenth_of_its_examples(data_dir):
    _, train, _ = write(data_dir, train=40, test=0)
    dataset = builders.load("blobs")
    parts = [multiset(*dataset.arrays(split)) for split in ("train", "test")]
    assert list(map(len, parts)) == [36, 4]
    assert sorted(parts[0] + parts[1]) == multiset(*zip(*train, strict=True))


def test_overwrite_replaces_all_versions(data_dir):
    old, _, _ = write(data_dir)
    old.rename(old.with_name("3.0.1"))
    with pytest.raises(InputError, match=r"exists in .*--overwrite"):
        write(data_dir)
    _, train, _ = write(data_dir, overwrite=True)
    assert [path.name for path in (data_dir / "blobs").iterdir()] == ["1.0.0"]
    assert multiset(*builders.load("blobs").arrays("train")) == multiset(*zip(*train, strict=True))


def test_the_newest_version_is_read(data_dir):
    new, train, _ = write(data_dir)
    new.rename(new.with_name("10.0.0"))
    info = new.with_name("10.0.0") / "dataset_info.json"
    rewrite(info, version="10.0.0")
    other = write(data_dir, name="other")[0]
    rewrite(other / "dataset_info.json", name="blobs", version="9.0.0")
    other.rename(data_dir / "blobs" / "9.0.0")
    assert builders.load("blobs").train.folder.name == "10.0.0"
    assert multiset(*builders.load("blobs").arrays("train")) == multiset(*zip(*train, strict=True))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ((np.zeros((4, 5, 3), np.float32), 0), r"uint8 of shape \(4, 5, 3\), got float32"),
        ((np.zeros((4, 4, 3), np.uint8), 0), r"got uint8 \(4, 4, 3\)"),
        ((np.zeros((4, 5, 3), np.uint8), 3), "label from 0 to 2, got 3"),
        ((np.zeros((4, 5, 3), np.uint8), None), "label from 0 to 2, got None"),
    ],
)
def test_a_bad_example_leaves_nothing_behind(data_dir, bad, sentence):
    old, _, _ = write(data_dir, name="old")
    with pytest.raises(InputError, match=f"image 3 must .*{sentence}"):
        builders.write_image_set("b", data_dir, [*examples(3), bad], None, "xyz", (4, 5, 3))
    with pytest.raises(InputError, match="image 0"):
        builders.write_image_set("old", data_dir, [bad], None, "xyz", (4, 5, 3), overwrite=True)
    assert [path.name for path in data_dir.iterdir()] == ["old"]
    assert old.exists()


@pytest.mark.parametrize("name", ["Flowers", "2flowers", "my flowers", "a/b", "", "a" * 65])
def test_a_bad_name_is_refused(data_dir, name):
    with pytest.raises(InputError, match=f"lower-case.*{re.escape(repr(name))}"):
        write(data_dir, name=name)


def test_a_name_of_our_own_is_refused(data_dir):
    with pytest.raises(InputError, match="'digits' is taken"):
        write(data_dir, name="digits", overwrite=True)


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"could not be prepared in .*file/sets: Not a directory"):
        write(tmp_path / "file" / "sets")


# ------------------------------------------------------------------------------ names


def test_toys_load_by_name():
    for name, toy in TOYS.items():
        dataset = builders.load(f"toy/{name}")
        assert (dataset.shape, dataset.num_classes, dataset.toy) == ((2,), toy.num_classes, toy)
        assert (dataset.class_names or ())[-1:] == (
            (str(toy.num_classes - 1),) if toy.num_classes else ()
        )
    with pytest.raises(InputError, match=r"unknown toy 'toy/mons'. Did you mean 'toy/moons'\?"):
        builders.load("toy/mons")


def test_an_unknown_name_is_answered_with_the_known_ones(data_dir):
    write(data_dir, name="flowers")
    with pytest.raises(InputError) as caught:
        builders.load("flower")
    message = str(caught.value)
    assert "unknown data set 'flower'. Did you mean 'flowers'?" in message
    assert "`python -m fmjax prepare --name=NAME --source=PATH`" in message
    assert f"Prepared in {data_dir}: flowers." in message
    assert "toy/moons" in message


def test_a_public_set_that_is_not_prepared_comes_with_its_command(data_dir, tmp_path):
    with pytest.raises(InputError) as caught:
        builders.load("mnist")
    message = str(caught.value)
    assert "data set 'mnist' is not prepared" in message
    assert "`python -m fmjax prepare --name=mnist` once" in message
    assert "tensorflow-cpu" in message
    assert f"Prepared in {data_dir}: none." in message
    with pytest.raises(InputError, match=f"--name=mnist --data_dir={tmp_path / 'else'}`"):
        builders.load("mnist", tmp_path / "else")


def test_a_remote_data_directory_is_refused():
    with pytest.raises(InputError, match="mounted file system, got gs://bucket/sets"):
        builders.load("digits", "gs://bucket/sets")


def test_own_images_may_stand_in_for_a_public_set(data_dir):
    _, train, _ = write(data_dir, name="mnist")
    assert multiset(*builders.load("mnist").arrays("train")) == multiset(*zip(*train, strict=True))


# ------------------------------------------------------------------------------ sets that are unfit


def test_a_tfrecord_set_comes_with_the_command_that_converts_it(data_dir):
    folder, _, _ = write(data_dir, name="mnist")
    rewrite(folder / "dataset_info.json", fileFormat="tfrecord")
    with pytest.raises(InputError, match=r"tfrecord.*`python.* --name=mnist --overwrite`"):
        builders.load("mnist")
    with pytest.raises(InputError, match=f"--name=mnist --data_dir={data_dir.parent}/x/../sets"):
        builders.load("mnist", data_dir.parent / "x" / ".." / "sets")


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
        builders.load("blobs")


class Odd(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set whose features and splits the test chooses."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def __init__(self, *, features, splits, example, **kwargs):
        self._features, self._named, self._example = features, splits, example
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(self._features)
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in self._named}

    def _generate_examples(self):
        yield 0, self._example


def odd(data_dir, features, example, splits=("train",)):
    with builders._quiet():
        Odd(
            features=features, splits=splits, example=example, data_dir=data_dir
        ).download_and_prepare()
    return builders.load("odd")


def test_a_set_without_images_is_refused(data_dir):
    with pytest.raises(InputError, match="no uint8 'image' of one fixed size, only audio"):
        odd(data_dir, {"audio": tfds.features.Scalar(np.int64)}, {"audio": 1})


def test_a_set_of_images_of_many_sizes_is_refused(data_dir, tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "x.png")
    features = {"image": tfds.features.Image(shape=(None, None, 3))}
    with pytest.raises(InputError, match=r"fixed size.*--source=FOLDER --size=PIXELS"):
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


# ------------------------------------------------------------------------------ public sets


@pytest.fixture
def public(monkeypatch):
    """A small set that tfds knows by name, as if TensorFlow were installed."""
    monkeypatch.setattr(builders, "_installed", lambda module: True)
    monkeypatch.setattr(builders, "_public", lambda: ["mnist", "shapes"])

    class Shapes(Odd, skip_registration=True):
        name = "shapes"

        def __init__(self, **kwargs):
            features = {"image": tfds.features.Image(shape=(2, 3, 1))}
            super().__init__(features=features, splits=("train", "test"), example=None, **kwargs)

        def _generate_examples(self):
            yield 0, builders._encode("x", np.zeros((2, 3, 1), np.uint8), None, (2, 3, 1), None)

    monkeypatch.setattr(builders.tfds, "builder", lambda name, data_dir: Shapes(data_dir=data_dir))
    return Shapes


def test_a_public_set_is_stored_as_array_record(data_dir, public):
    folder = builders.prepare_public("shapes")
    assert folder == data_dir / "shapes" / "1.0.0"
    assert len(builders.load("shapes").test) == 1
    with pytest.raises(InputError, match=r"exists in .*--overwrite"):
        builders.prepare_public("shapes")
    rewrite(folder / "dataset_info.json", fileFormat="tfrecord")
    builders.prepare_public("shapes", overwrite=True)
    assert builders.load("shapes").shape == (2, 3, 1)


def test_a_download_that_fails_is_one_sentence(data_dir, public, monkeypatch):
    def fail(self, dl_manager):
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr(public, "_split_generators", fail)
    with pytest.raises(InputError, match=r"could not be prepared in .*: no route to host\.$"):
        builders.prepare_public("shapes")
    assert not (data_dir / "shapes").exists()


def test_a_public_set_needs_tensorflow_once(data_dir, monkeypatch):
    monkeypatch.setattr(builders, "_installed", lambda module: module != "tensorflow")
    with pytest.raises(InputError, match=r"needs TensorFlow.*`pip install tensorflow-cpu`"):
        builders.prepare_public("mnist")


def test_a_public_set_must_exist(data_dir):
    with pytest.raises(
        InputError, match=r"unknown public data set 'mnits'. Did you mean 'mnist'\?"
    ):
        builders.prepare_public("mnits")
    with pytest.raises(InputError, match="'digits' prepares itself"):
        builders.prepare_public("digits")
