import numpy as np
import pytest

from fmjax.data import dataset
from fmjax.data.arrays import ArraySplit
from fmjax.data.codecs import Vectors
from fmjax.data.load import load
from fmjax.errors import InputError


@pytest.mark.parametrize("test_size", [1, 10, 100, 297])
def test_every_class_gives_its_share_to_the_test_part(test_size):
    labels = np.random.default_rng(0).choice(4, size=1000, p=[0.5, 0.3, 0.15, 0.05])
    train, test = dataset.stratified_split(labels, test_size)
    assert len(test) == test_size
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(1000))
    share = np.bincount(labels[test], minlength=4)
    np.testing.assert_allclose(share, test_size * np.bincount(labels) / 1000, atol=1)


def test_one_example_of_each_class_stays_to_train_on():
    labels = np.array([0, 1, 2, 2, 2, 2, 2, 2])
    train, test = dataset.stratified_split(labels, 5)
    assert set(labels[train]) == {0, 1, 2}
    assert set(labels[test]) == {2}


def test_the_split_is_random_and_fixed():
    labels = np.zeros(100, int)
    first, again = (dataset.stratified_split(labels, 50)[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, np.arange(50))
    assert not np.array_equal(first, dataset.stratified_split(labels, 50, seed=1)[1])


def test_hold_out_divides_the_whole_in_a_fixed_way(digits):
    train, test = dataset.hold_out(digits.train)
    assert (len(train), len(test)) == (1350, 150)
    both = np.concatenate([train.indices, test.indices])
    np.testing.assert_array_equal(np.sort(both), np.arange(1500))
    np.testing.assert_array_equal(test.indices, dataset.hold_out(digits.train)[1].indices)
    third = int(test.indices[3])
    np.testing.assert_array_equal(test[3]["image"], digits.train[third]["image"])
    images, labels = test.read([3, 0])
    np.testing.assert_array_equal(images[0], test[3]["image"])
    assert labels[1] == test[0]["label"]


def test_arrays_of_a_split_are_its_examples(digits):
    images, labels = digits.arrays("test")
    assert (images.shape, images.dtype) == ((297, 8, 8, 1), np.uint8)
    assert labels.dtype == np.int32
    for i in (0, 100, 296):
        np.testing.assert_array_equal(images[i], digits.test[i]["image"])
        assert labels[i] == digits.test[i]["label"]


def test_a_limit_takes_a_fixed_random_part(digits):
    images, labels = digits.arrays("train", limit=200)
    assert len(images) == len(labels) == 200
    np.testing.assert_array_equal(images, digits.arrays("train", limit=200)[0])
    assert not np.array_equal(images, digits.arrays("train")[0][:200])
    assert len(digits.arrays("test", limit=10_000)[0]) == 297


def test_arrays_of_a_toy_are_fresh_points_fixed_per_split():
    toy = load("toy/rings")
    train, labels = toy.arrays("train", limit=100)
    assert (train.shape, train.dtype) == ((100, 2), np.float32)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(train, toy.arrays("train", limit=100)[0])
    assert not np.isin(train, toy.arrays("test", limit=100)[0]).any()
    assert load("toy/scurve").arrays("test")[1] is None
    assert len(toy.arrays("test")[0]) == dataset.TOY_POINTS


def test_bad_requests_are_refused(digits):
    with pytest.raises(InputError, match=r'"train" or "test", got .validation.'):
        digits.arrays("validation")
    with pytest.raises(InputError, match=r"at least 1; got 0. For all examples write None"):
        digits.arrays("train", limit=0)


@pytest.mark.parametrize(("limit", "number"), [(None, 8), (1, 1), (5, 5), (8, 8), (100, 8)])
def test_examples_that_count_differently_are_as_many_as_asked(limit, number):
    x, weights = np.arange(8.0), np.arange(1.0, 9.0)
    split = ArraySplit(x, None, weights=weights)
    found, _ = dataset.Dataset("mine", Vectors(1), None, split, split).arrays("train", limit)
    assert len(found) == number
    assert set(found) <= set(x)


def test_a_toy_has_no_split_that_is_stored():
    with pytest.raises(InputError, match="the toy 'toy/moons' is drawn afresh, and has no train"):
        load("toy/moons").stored("train")
