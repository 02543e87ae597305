"""Examples come from folders, files and sets, by their numbers, and a bad source is named."""

import numpy as np
import pytest
from PIL import Image

from fmjax.errors import InputError
from fmjax.run.evaluate.examples import open_examples

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (600, 6, 5, 3), np.uint8)


def save_images(folder, images):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04d}.png")
    return folder


def test_a_folder_of_images_and_one_of_classes(tmp_path):
    save_images(tmp_path / "plain", X[:5])
    assert np.array_equal(open_examples(str(tmp_path / "plain"), "train").array(), X[:5])
    save_images(tmp_path / "sorted" / "a", X[:3])
    save_images(tmp_path / "sorted" / "b", X[3:5])
    assert np.array_equal(open_examples(str(tmp_path / "sorted"), "train").array(), X[:5])
    half = open_examples(str(tmp_path / "plain"), "train", size=3)
    assert half.array().shape == (5, 3, 3, 3)


def test_a_split_of_a_folder(tmp_path):
    save_images(tmp_path / "x" / "train", X[:3])
    save_images(tmp_path / "x" / "test", X[3:5])
    assert np.array_equal(open_examples(str(tmp_path / "x"), "test").array(), X[3:5])
    save_images(tmp_path / "y", X[:3])
    with pytest.raises(InputError, match="has no folder test/"):
        open_examples(str(tmp_path / "y"), "test")


@pytest.mark.parametrize("name", ["samples", "images", "arr_0", "x"])
def test_a_file_of_any_of_the_names(tmp_path, name):
    np.savez(tmp_path / "x.npz", **{name: X, "labels": np.arange(600)})
    found = open_examples(str(tmp_path / "x.npz"), "train")
    assert [len(batch) for batch in found] == [256, 256, 88]
    assert np.array_equal(found.array(), X)


def test_the_splits_of_a_file(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=X[:500, ..., 0], x_test=X[500:, ..., 0])
    for split, rows in (("train", X[:500]), ("test", X[500:])):
        found = open_examples(str(tmp_path / "x.npz"), split).array()
        assert np.array_equal(found, rows[..., :1])


def test_the_shards_of_a_sample_run(tmp_path):
    for k, part in enumerate(np.split(X, [250, 500])):
        np.savez(tmp_path / f"samples-{k:05d}-of-00003.npz", samples=part)
    assert np.array_equal(open_examples(str(tmp_path), "train").array(), X)


def test_an_array_on_disk_is_not_read_whole(tmp_path):
    np.save(tmp_path / "x.npy", X)
    found = open_examples(str(tmp_path / "x.npy"), "train")
    assert np.array_equal(found.choose(7).array(), X[found.choose(7).places])


def test_a_set_by_its_name():
    found = open_examples("toy/moons", "train")
    assert found.name == "toy/moons (train)"
    assert found.array().shape == (10_000, 2)
    images = open_examples("random/4x4x1/10", "test")
    assert images.choose(3).array().shape == (3, 4, 4, 1)


def test_a_choice_is_fixed_and_whole_where_there_are_fewer(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20.0)[:, None])
    found = open_examples(str(tmp_path / "x.npy"), "train")
    few = found.choose(8)
    assert len(few) == 8
    assert np.array_equal(few.array(), found.choose(8).array())
    assert np.array_equal(found.choose(99).array(), found.array())


def empty(folder):
    (folder / "x").mkdir()
    return folder / "x"


def of_unequal_size(folder):
    save_images(folder / "x", [X[0], X[1, :4]])
    return folder / "x"


def without_examples(folder):
    np.savez(folder / "x.npz", labels=np.arange(3))
    return folder / "x.npz"


def without_rows(folder):
    np.savez(folder / "x.npz", images=X[:0])
    return folder / "x.npz"


def broken(folder):
    (folder / "x.npy").write_bytes(b"nothing")
    return folder / "x.npy"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (empty, "neither class folders nor images"),
        (of_unequal_size, "the images have 2 sizes .* --size=32"),
        (without_examples, "must hold examples under one of the names samples"),
        (without_rows, "holds no examples"),
        (broken, r"cannot be read as an \.npy"),
        (lambda folder: folder / "gone.npz", "gone.npz does not exist"),
        (lambda folder: "no such set", "no such set"),
        (lambda folder: "~no", "~no"),
        (lambda folder: "x" * 300, "xxx"),
    ],
)
def test_a_bad_source_is_named(tmp_path, make, sentence):
    with pytest.raises(InputError, match=sentence):
        open_examples(str(make(tmp_path)), "train")


def test_a_bad_split_is_named():
    with pytest.raises(InputError, match="--split must be train or test, got 'validation'"):
        open_examples("toy/moons", "validation")
