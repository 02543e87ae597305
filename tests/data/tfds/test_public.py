"""Public sets: stored as ArrayRecord by one download that needs TensorFlow."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fmjax.data.load import load
from fmjax.data.tfds import public
from fmjax.data.tfds.example_set import encode_array
from fmjax.errors import InputError
from tests.data.tfds.image_sets import Odd, rewrite


@pytest.fixture
def shapes(monkeypatch):
    """A small set that tfds knows by name, as if TensorFlow were installed."""
    monkeypatch.setattr(public, "_installed", lambda module: True)
    monkeypatch.setattr(public, "public_names", lambda: ["mnist", "shapes"])

    class Shapes(Odd, skip_registration=True):
        name = "shapes"

        def __init__(self, **kwargs):
            features = {"image": tfds.features.Image(shape=(2, 3, 1))}
            super().__init__(features=features, splits=("train", "test"), example=None, **kwargs)

        def _generate_examples(self):
            yield 0, {"image": encode_array(np.zeros((2, 3, 1), np.uint8))}

    monkeypatch.setattr(public.tfds, "builder", lambda name, data_dir: Shapes(data_dir=data_dir))
    return Shapes


def test_a_public_set_is_stored_as_array_record(data_dir, shapes):
    folder = public.prepare_public("shapes")
    assert folder == data_dir / "shapes" / "1.0.0"
    assert len(load("shapes").test) == 1
    with pytest.raises(InputError, match=r"exists in .*--overwrite"):
        public.prepare_public("shapes")
    rewrite(folder / "dataset_info.json", fileFormat="tfrecord")
    public.prepare_public("shapes", overwrite=True)
    assert load("shapes").shape == (2, 3, 1)


def test_a_download_that_fails_is_one_sentence(data_dir, shapes, monkeypatch):
    def fail(self, dl_manager):
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr(shapes, "_split_generators", fail)
    with pytest.raises(InputError, match=r"could not be prepared in .*: no route to host\.$"):
        public.prepare_public("shapes")
    assert not (data_dir / "shapes").exists()


def test_a_public_set_needs_tensorflow_once(data_dir, monkeypatch):
    monkeypatch.setattr(public, "_installed", lambda module: module != "tensorflow")
    with pytest.raises(InputError, match=r"needs TensorFlow.*`pip install tensorflow-cpu`"):
        public.prepare_public("mnist")


def test_a_public_set_must_exist(data_dir):
    with pytest.raises(
        InputError, match=r"unknown public data set 'mnits'. Did you mean 'mnist'\?"
    ):
        public.prepare_public("mnits")
    with pytest.raises(InputError, match="'digits' prepares itself"):
        public.prepare_public("digits")
