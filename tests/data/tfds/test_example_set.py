"""Sets of images: what is written is read back, by fmjax and by TFDS alone."""

import re
import subprocess
import sys

import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Pixels
from fmjax.data.load import load
from fmjax.errors import InputError
from tests.data.tfds.image_sets import examples, multiset, write, write_images


@pytest.mark.parametrize("shape", [(4, 5, 3), (6, 6, 1)])
@pytest.mark.parametrize("classes", [3, None])
def test_what_is_written_is_read_back(data_dir, shape, classes):
    folder, train, test = write(data_dir, shape=shape, classes=classes)
    assert folder == data_dir / "blobs" / "1.0.0"
    dataset = load("blobs")
    assert dataset.codec == Pixels(shape)
    names = ("kind 0", "kind 1", "kind 2")
    assert dataset.conditions == (None if classes is None else ClassIds(classes, names=names))
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


def test_overwrite_replaces_all_versions(data_dir):
    old, _, _ = write(data_dir)
    old.rename(old.with_name("3.0.1"))
    with pytest.raises(InputError, match=r"exists in .*--overwrite"):
        write(data_dir)
    _, train, _ = write(data_dir, overwrite=True)
    assert [path.name for path in (data_dir / "blobs").iterdir()] == ["1.0.0"]
    assert multiset(*load("blobs").arrays("train")) == multiset(*zip(*train, strict=True))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ((np.zeros((4, 5, 3), np.float32), 0), r"x uint8 of shape \(4, 5, 3\), got float32"),
        ((np.zeros((4, 4, 3), np.uint8), 0), r"got uint8 \(4, 4, 3\)"),
        ((np.zeros((4, 5, 3), np.uint8), 3), "label from 0 to 2, got 3"),
        ((np.zeros((4, 5, 3), np.uint8), None), "have x, label, got x"),
    ],
)
def test_a_bad_example_leaves_nothing_behind(data_dir, bad, sentence):
    old, _, _ = write(data_dir, name="old")
    with pytest.raises(InputError, match=f"example 3 of train must .*{sentence}"):
        write_images("b", data_dir, [*examples(3), bad], None, "xyz", (4, 5, 3))
    bads = [*examples(3), bad]
    with pytest.raises(InputError, match="example 3"):
        write_images("old", data_dir, bads, None, "xyz", (4, 5, 3), overwrite=True)
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


def test_names_of_classes_come_back_exactly_or_are_refused(data_dir):
    images = [(np.full((4, 4, 1), i, np.uint8), i % 3) for i in range(9)]
    names = ("black cat", "naïve 猫", "it's, a 👩\u200d👧")
    write_images("kept", data_dir, images, None, names, (4, 4, 1))
    assert load("kept").classes.names == names
    for wrong in (("a", "a\nb", "c"), ("a", " a", "c"), ("a", "   ", "c"), ("a", "a", "c")):
        with pytest.raises(InputError, match="the class name"):
            write_images("changed", data_dir, images, None, wrong, (4, 4, 1))
    assert not (data_dir / "changed").exists()
