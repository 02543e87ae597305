"""The embedded digits: scikit-learn's, split by class, prepared once."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Pixels
from fmjax.data.load import load
from fmjax.data.tfds import directory
from fmjax.data.tfds.digits import Digits, prepare_digits
from tests.data.tfds.image_sets import multiset


def test_the_digits_are_those_of_scikit_learn(digits):
    raw = load_digits()
    expected = np.round(raw.images * 255 / 16).astype(np.uint8)[..., None]
    parts = [digits.arrays(split) for split in ("train", "test")]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    assert multiset(images, labels) == multiset(expected, raw.target)
    assert digits.codec == Pixels((8, 8, 1))
    assert digits.conditions == ClassIds(10, names=tuple("0123456789"))


def test_the_digits_are_split_once_and_by_class(digits):
    (train, train_labels), (test, test_labels) = digits.arrays("train"), digits.arrays("test")
    assert (len(train), len(test)) == (1500, 297)
    share = np.bincount(test_labels) / np.bincount(np.concatenate([train_labels, test_labels]))
    np.testing.assert_allclose(share, 297 / 1797, atol=0.006)


def test_the_digits_are_prepared_once_where_the_environment_says(data_dir):
    load("digits")
    files = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    assert data_dir / "digits" / "1.0.0" / "dataset_info.json" in files
    load("digits")
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")} == files
    assert not list(data_dir.glob(".*"))


def test_the_digits_are_the_same_wherever_they_are_prepared(digits, tmp_path):
    again = load("digits", tmp_path)
    for one, other in zip(digits.arrays("test"), again.arrays("test"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_digits_are_a_tfds_builder(tmp_path):
    builder = tfds.builder("digits", data_dir=tmp_path)
    assert isinstance(builder, Digits)
    builder.download_and_prepare()
    assert builder.info.splits["test"].num_examples == 297


@pytest.mark.slow
def test_two_at_once_leave_one_good_set(tmp_path):
    def slow(scratch):
        prepare_digits(tmp_path)  # another process is done in the meantime
        return Digits(data_dir=scratch)

    folder = directory.publish(slow, tmp_path)
    assert folder == tmp_path / "digits" / "1.0.0"
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert len(load("digits", tmp_path).arrays("train")[0]) == 1500


@pytest.mark.slow
def test_two_processes_prepare_at_once(tmp_path):
    code = "from fmjax.data.load import load; print(len(load('digits').train))"
    start = [sys.executable, "-c", code]
    env = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    both = [subprocess.Popen(start, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in both] == ["1500\n", "1500\n"]
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
