"""Random images: deterministic by number, uniform, and named by their shape."""

import numpy as np
import pytest

from fmjax.data import pipeline
from fmjax.data.load import load
from fmjax.errors import InputError


def test_an_example_is_a_function_of_its_number_alone():
    train = load("random/8x6x2/7").train
    images, labels = train.read([5, 3, 5, 1_000_000])
    assert images.shape == (4, 8, 6, 2)
    np.testing.assert_array_equal(images[0], images[2])
    assert (images[0] != images[1]).mean() > 0.9
    alone = train[1_000_000]
    np.testing.assert_array_equal(alone["image"], images[3])
    assert alone["label"] == labels[3]


def test_levels_and_classes_are_uniform_and_splits_differ():
    data = load("random/16x16x1/4")
    images, labels = data.train.read(range(400))
    counts = np.bincount(images.ravel(), minlength=256)
    expected = images.size / 256
    assert ((counts - expected) ** 2 / expected).sum() == pytest.approx(255, abs=6 * 510**0.5)
    np.testing.assert_allclose(np.bincount(labels, minlength=4), 100, atol=40)
    assert not np.array_equal(data.test.read([0])[0], data.train.read([0])[0])


def test_without_classes_there_are_no_labels():
    data = load("random/4x4x3")
    assert data.conditions is None
    assert data.train.read([0, 1])[1] is None


@pytest.mark.parametrize("name", ["random/32x32", "random/0x4x1", "random/8x8x1/0", "random/a"])
def test_another_form_of_name_is_refused(name):
    with pytest.raises(InputError, match="random/32x32x4/1000"):
        load(name)


def test_they_can_be_mirrored():
    stream = pipeline.batches(load("random/4x6x3/5"), global_batch=32, seed=0, flip=True)
    plain = pipeline.batches(load("random/4x6x3/5"), global_batch=32, seed=0)
    mirrored, images = next(stream)["x1"], next(plain)["x1"]
    stream.close()
    plain.close()
    flipped = (mirrored == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 0 < flipped.sum() < 32
    np.testing.assert_array_equal(mirrored[~flipped], images[~flipped])
