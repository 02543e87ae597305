"""Conditions and starting points from a user's files."""

import jax
import numpy as np
import pytest
from PIL import Image

from fmjax.conditions import ClassIds, ImageCondition, Mask, Sequence, Vector
from fmjax.data.codecs import Pixels, States, Vectors
from fmjax.errors import InputError
from fmjax.run.sample.own_arrays import check_rows, read_conditions, read_points
from fmjax.storage.fingerprint import fingerprint

EVERY = {
    "class": ClassIds(3),
    "age": Vector(1),
    "text": Sequence(4, 2),
    "text_mask": Mask(4, of="text"),
    "image": ImageCondition((2, 2, 1)),
}
ARRAYS = {
    "class": np.array([0, 2, 3]),
    "age": np.array([0.1, 0.2, 0.3]),
    "text": np.ones((3, 4, 2)),
    "text_mask": np.ones((3, 4), bool),
    "image": np.full((3, 2, 2, 1), 255, np.uint8),
}


def npz(folder, **arrays):
    np.savez(folder / "file.npz", **arrays)
    return folder / "file.npz"


def npy(folder, array):
    np.save(folder / "file.npy", array)
    return folder / "file.npy"


def test_every_kind_of_condition_is_read_by_its_name(tmp_path):
    labels = read_conditions(npz(tmp_path, **ARRAYS), EVERY)
    assert {name: (x.dtype.name, x.shape) for name, x in labels.items()} == {
        "class": ("int32", (3,)),
        "age": ("float32", (3, 1)),
        "text": ("float32", (3, 4, 2)),
        "text_mask": ("bool", (3, 4)),
        "image": ("float32", (3, 2, 2, 1)),
    }
    np.testing.assert_array_equal(labels["image"], 1)
    other = labels | {"text_mask": ~labels["text_mask"]}
    assert int(fingerprint(labels)) != int(fingerprint(other))


@pytest.mark.parametrize("conditions", [Vector(2), {"age": Vector(2)}])
def test_one_array_is_that_of_a_model_with_one_condition(tmp_path, conditions):
    given = np.arange(6.0).reshape(3, 2)
    labels = read_conditions(npy(tmp_path, given), conditions)
    np.testing.assert_array_equal(jax.tree.leaves(labels)[0], given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clas": np.zeros(3, int)}, r"unknown condition in .*'clas'. Did you mean 'class'"),
        ({"age": None}, "an array for each condition.*it has none for age"),
        ({"age": np.zeros(4)}, r"one number of rows, at least 1; got .*age \(4,\)"),
        ({"age": np.zeros((3, 2))}, r"age must be vectors, floats of shape \(3, 1\)"),
        ({"age": np.zeros(3, int)}, r"age must be vectors.*got int64"),
        ({"age": np.array([0, np.nan, 1])}, "age must be finite numbers; row 1 holds NaN"),
        ({"class": np.array([0, 4, 1])}, "class must be class ids from 0 to 2; row 1 holds 4"),
        ({"class": np.zeros((3, 4))}, "class must be int32 of shape"),
        ({"text_mask": np.ones((3, 4))}, r"text_mask must be masks, bool of shape \(3, 4\)"),
        ({"image": np.zeros((3, 4, 4, 1))}, "image must be images"),
    ],
)
def test_a_file_of_conditions_that_does_not_fit_is_refused(tmp_path, changes, message):
    arrays = {name: x for name, x in (ARRAYS | changes).items() if x is not None}
    with pytest.raises(InputError, match=message):
        read_conditions(npz(tmp_path, **arrays), EVERY)


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"one number of rows, at least 1; got age \(0, 1\)"):
        read_conditions(npz(tmp_path, age=np.zeros((0, 1))), {"age": Vector(1)})


def test_a_file_for_a_model_that_takes_another_is_refused(tmp_path):
    path = npy(tmp_path, np.zeros((3, 2)))
    with pytest.raises(InputError, match="this model is unconditional"):
        read_conditions(path, None)
    with pytest.raises(InputError, match="holds one array, and the model has the conditions"):
        read_conditions(path, EVERY)
    for name in ("file.csv", "missing.npy", "missing.npz"):
        with pytest.raises(InputError, match=rf"{name} (must be an .npy|cannot be read)"):
            read_conditions(tmp_path / name, {"age": Vector(1)})


@pytest.mark.parametrize(
    ("codec", "given"),
    [
        (States((2, 3)), np.ones((5, 2, 3))),
        (Vectors(2, (1.0, 2.0), (3.0, 4.0)), np.ones((5, 2), np.float16)),
        (Pixels((2, 2, 1)), np.ones((5, 2, 2, 1), np.uint8)),
    ],
)
def test_points_are_data_of_their_codec(tmp_path, codec, given):
    for path in (
        npy(tmp_path, given),
        npz(tmp_path, x0=given, more=np.ones(1)),
    ):
        points = read_points(path, codec)
        assert points.dtype == codec.data_dtype
        np.testing.assert_array_equal(points, given)
    np.testing.assert_array_equal(read_points(npz(tmp_path, anything=given), codec), given)


def test_the_images_of_a_folder_are_points(tmp_path):
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    for k, image in enumerate(images):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"{k}.png")
    points = read_points(tmp_path / "photos", Pixels((4, 4, 1)))
    np.testing.assert_array_equal(points[..., 0], images)
    assert read_points(tmp_path / "photos", Pixels((2, 2, 3))).shape == (2, 2, 2, 3)
    for codec, message in [
        (Vectors(2), "starts from vectors: give an .npy"),
        (Pixels((4, 4, 2)), "1 channel or 3; the flow starts from 2"),
        (Pixels((4, 3, 1)), r"must be \(4, 3, 1\); got \(4, 4, 1\)"),
    ]:
        with pytest.raises(InputError, match=message):
            read_points(tmp_path / "photos", codec)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((5, 3)), r"must be float32 \(n, 2\), .*got float32 of shape \(5, 3\)"),
        (np.ones((5, 2), int), "got int64"),
        (np.ones((0, 2)), r"got float32 of shape \(0, 2\)"),
        (np.float64(3.0), "must be float32"),
        (np.full((5, 2), np.nan), "the points of .*file.npy"),
    ],
)
def test_points_that_do_not_fit_are_refused(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        read_points(npy(tmp_path, given), Vectors(2))


def test_which_array_is_meant_must_be_clear(tmp_path):
    with pytest.raises(InputError, match="must have the points as x0; got the arrays a, b"):
        read_points(npz(tmp_path, a=np.ones((2, 2)), b=np.ones((2, 2))), Vectors(2))


def test_there_is_a_row_for_each_sample_or_one_for_all():
    check_rows("the rows", 1, 7)
    check_rows("the rows", 7, 7)
    with pytest.raises(InputError, match="one row for each of 7 samples, or one for all; got 3"):
        check_rows("the rows", 3, 7)
