"""Sets that fmjax did not write: which features are read, and as what."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fmjax.conditions import ClassIds, ImageCondition, Mask, Sequence, Vector
from fmjax.data.codecs import Pixels, States
from fmjax.data.dataset import Reading
from fmjax.data.images.square import to_square
from fmjax.data.load import load
from fmjax.data.tfds.example_set import encode_array, quiet
from fmjax.errors import InputError
from tests.data.tfds.image_sets import Odd

F = tfds.features
FEATURES = {
    "photo": F.Image(shape=(4, 6, 3)),
    "vector": F.Tensor(shape=(5,), dtype=np.float64),
    "packed": F.Tensor(shape=(2, 3), dtype=np.float32, encoding="zlib"),
    "bytes": F.Tensor(shape=(2, 2, 1), dtype=np.uint8, encoding="bytes"),
    "kind": F.ClassLabel(names=["a", "b"]),
    "flag": F.Scalar(np.bool_),
    "age": F.Scalar(np.float32),
    "attributes": F.FeaturesDict({"tall": np.bool_, "count": np.int64, "age": np.float32}),
    "packed_mask": F.Tensor(shape=(2,), dtype=np.bool_),
    "many": F.Tensor(shape=(4,), dtype=np.bool_),
    "number": F.Scalar(np.int64),
    "title": F.Text(),
    "ragged": F.Tensor(shape=(None,), dtype=np.float32),
}
PHOTO = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
EXAMPLE = {
    "vector": np.linspace(0, 1, 5),
    "packed": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bytes": np.array([[[1], [2]], [[3], [255]]], np.uint8),
    "kind": 1,
    "flag": True,
    "age": 30.5,
    "attributes": {"tall": True, "count": 7, "age": 0.5},
    "packed_mask": np.array([True, False]),
    "many": np.array([True, False, True, True]),
    "number": 3,
    "title": "x",
    "ragged": np.zeros(3, np.float32),
}


def write(data_dir, features=FEATURES, supervised=None, number=10, **changes):
    class Foreign(Odd, skip_registration=True):
        name = "foreign"

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=F.FeaturesDict(self._features),
                supervised_keys=supervised,
            )

        def _generate_examples(self):
            for i in range(number):
                example = {"photo": encode_array(PHOTO), **EXAMPLE, **changes}
                yield i, {name: example[name] for name in self._features}

    with quiet():
        Foreign(
            features=features, splits=("train", "test"), example=None, data_dir=data_dir
        ).download_and_prepare()


def test_every_kind_of_feature_is_a_condition_of_its_kind(data_dir):
    write(data_dir)
    names = "kind,flag,age,attributes,packed,packed_mask,many,vector,photo"
    dataset = load("foreign", reading=Reading(x="packed", conditions=names))
    assert dataset.codec == States((2, 3))
    assert dataset.conditions == {
        "kind": ClassIds(2, names=("a", "b")),
        "flag": ClassIds(2, names=("False", "True")),
        "age": Vector(1),
        "attributes": Vector(3),
        "packed": Sequence(2, 3),
        "packed_mask": Mask(2, of="packed"),
        "many": Vector(4),
        "vector": Vector(5),
        "photo": ImageCondition((4, 6, 3)),
    }
    x, labels = dataset.train.read([0])
    np.testing.assert_array_equal(x[0], EXAMPLE["packed"])
    expected = {name: EXAMPLE[name] for name in labels if name in EXAMPLE}
    expected |= {"age": [30.5], "attributes": [0.5, 7, 1], "photo": PHOTO / 127.5 - 1}
    for name, value in expected.items():
        np.testing.assert_allclose(labels[name][0], value, rtol=1e-6, err_msg=name)
        assert labels[name].dtype == dataset.conditions[name].null_value().dtype


@pytest.mark.parametrize(
    ("x", "codec", "expected"),
    [
        ("photo", Pixels((4, 6, 3)), PHOTO),
        ("bytes", Pixels((2, 2, 1)), EXAMPLE["bytes"]),
        ("vector", States((5,)), np.float32(EXAMPLE["vector"])),
    ],
)
def test_any_array_is_data(data_dir, x, codec, expected):
    write(data_dir)
    dataset = load("foreign", reading=Reading(x=x, conditions="none"))
    assert (dataset.codec, dataset.conditions) == (codec, None)
    np.testing.assert_array_equal(dataset.train.read([0])[0][0], expected)


def test_supervised_keys_say_what_is_read_where_nobody_else_does(data_dir):
    write(data_dir, supervised=("photo", "kind"))
    dataset = load("foreign")
    assert dataset.codec == Pixels((4, 6, 3))
    assert dataset.classes == ClassIds(2, names=("a", "b"))
    np.testing.assert_array_equal(dataset.test.read([0, 1])[1], [1, 1])


@pytest.mark.parametrize(
    ("reading", "sentence"),
    [
        (Reading(), r"unknown feature of data set 'foreign' \(data.x\) 'image'"),
        (Reading(x="photos"), r"\(data.x\) 'photos'. Did you mean 'photo'\?"),
        (Reading(x="kind"), "the feature 'kind' .* is nothing that a flow is trained on"),
        (Reading(x="ragged"), "the feature 'ragged' .* is nothing that a flow is trained on"),
        (Reading(x="vector", size=8), "without data.size, which is for images"),
        (Reading(x="photo", conditions="kindd"), r"\(data.conditions\) 'kindd'. Did you mean"),
        (Reading(x="photo", conditions="number"), "the feature 'number' .* is no condition"),
        (Reading(x="photo", conditions="title"), "the feature 'title' .* is no condition"),
        (Reading(x="photo", conditions="packed_mask"), "mask 'packed_mask' without its sequence"),
        (Reading(x="photo", split="validation"), "data.split='validation' is no split of data set"),
        (Reading(x="photo", split="train[:9"), r"data.split='train\[:9' is no split"),
        (Reading(x="photo", split="train[:0]"), "leaves no example"),
        (Reading(x="photo", test_split="test[5:5]"), "data.test_split=.* leaves no example"),
        (Reading(x="photo", split="train[:1]+test[:0]"), "one example only"),
        (Reading(x="photo", test_split="train[9:]"), "share examples: what is tested on"),
    ],
)
def test_what_cannot_be_read_is_explained(data_dir, reading, sentence):
    write(data_dir)
    with pytest.raises(InputError, match=sentence):
        load("foreign", reading=reading)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reading", "train", "test"),
    [
        (Reading(split="train[:60%]"), 6, 10),
        (Reading(split="train[:60%]", test_split="train[60%:]"), 6, 4),
        (Reading(split="train+test"), 18, 2),
        (Reading(test_split="test[:3]"), 10, 3),
    ],
)
def test_parts_of_splits(data_dir, reading, train, test):
    write(data_dir)
    dataset = load("foreign", reading=reading._replace(x="vector", conditions="kind"))
    assert (len(dataset.train), len(dataset.test)) == (train, test)


@pytest.mark.parametrize("name", ["toy/moons", "random/8x8x1", "tests.run.two_conditions:load"])
def test_a_way_of_reading_is_for_prepared_sets(name):
    sentence = rf"data\.x, data\.split is for prepared sets, and '{name}' is none"
    with pytest.raises(InputError, match=sentence):
        load(name, reading=Reading(x="image", split="train"))


def test_images_of_many_sizes_become_squares(data_dir, tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 50).astype(np.uint8), (20, 50))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "x.png")
    features = {"photo": F.Image(shape=(None, None, 3)), "kind": FEATURES["kind"]}
    write(data_dir, features, photo=str(tmp_path / "x.png"))
    with pytest.raises(InputError, match=r"write data\.size=64, say"):
        load("foreign", reading=Reading(x="photo"))
    dataset = load("foreign", reading=Reading(x="photo", conditions="kind", size=8))
    assert dataset.codec == Pixels((8, 8, 3))
    with Image.open(tmp_path / "x.png") as image:
        expected = np.array(to_square(image.convert("RGB"), 8))
    np.testing.assert_array_equal(dataset.train.read([0])[0][0], expected)
    assert dataset.train.read([0])[1][0] == 1
