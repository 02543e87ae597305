import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import (
    ClassIds,
    ImageCondition,
    Mask,
    Sequence,
    Vector,
    abstract_labels,
    as_labels,
    check_conditions,
    check_labels,
    check_values,
    conditions_of,
    null_labels,
    nulls,
    share,
)
from fmjax.errors import InputError
from fmjax.names import describe, load_object, rebuild

BOTH = {"class": ClassIds(10, drop_rate=0.1, names=tuple("abcdefghij")), "age": Vector(2)}
LABELS = {"class": jnp.arange(4), "age": jnp.ones((4, 2))}

TEXT = {"text": Sequence(5, 3, drop_rate=0.3), "text_mask": Mask(5, of="text")}
EVERY = BOTH | TEXT | {"image": ImageCondition((4, 6, 2))}
ARRAYS = {
    "class": np.array([0, 9, 4]),
    "age": np.zeros((3, 2)),
    "text": np.ones((3, 5, 3), np.float16),
    "text_mask": np.ones((3, 5), bool),
    "image": np.array([0, 255, 51], np.uint8)[:, None, None, None] * np.ones((4, 6, 2), np.uint8),
}


def test_nulls_are_shaped_as_the_conditions():
    check_labels(nulls(BOTH, 4), BOTH, 4)
    abstract = abstract_labels(BOTH, 4)
    jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), abstract, nulls(BOTH, 4))
    null = null_labels({"class": ClassIds(10), "other": ClassIds(10, 3), "v": Vector(2, (1, 2))})
    assert null["class"] == 10
    assert null["other"] == 3
    np.testing.assert_array_equal(null["v"], [1, 2])


@pytest.mark.parametrize("conditions", [None, ClassIds(3), Vector(2, (0.1, -3.0)), BOTH, EVERY])
def test_conditions_come_back_from_json(conditions):
    import json

    assert rebuild(json.loads(json.dumps(describe(conditions)))) == conditions


def test_numbers_of_numpy_come_back_from_json_as_those_of_python():
    import json

    given = ClassIds(np.int64(3), drop_rate=np.float32(0.5), names=("a", "b", "c"))
    assert rebuild(json.loads(json.dumps(describe(given)))) == given


def test_arrays_describe_themselves():
    found = conditions_of({"class": np.array([0, 2, 1]), "age": np.zeros((3, 4))}, drop_rate=0.2)
    assert found == {"class": ClassIds(3, drop_rate=0.2), "age": Vector(4, drop_rate=0.2)}
    assert conditions_of(np.array([4, 0])) == ClassIds(5)
    assert conditions_of(None) is None
    assert conditions_of({"year": np.zeros(3)}) == {"year": Vector(1)}
    more = {name: ARRAYS[name] for name in ("text", "text_mask", "image")}
    assert conditions_of(more, drop_rate=0.3) == TEXT | {
        "image": ImageCondition((4, 6, 2), drop_rate=0.3)
    }


def test_the_null_of_a_sequence_is_one_vector_at_every_place_and_no_place_counts():
    null = null_labels({"text": Sequence(2, 3, (1, 2, 3)), "text_mask": Mask(2, of="text")})
    np.testing.assert_array_equal(null["text"], [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(null["text_mask"], [False, False])
    check_labels(nulls(EVERY, 4), EVERY, 4)


def test_arrays_become_what_the_conditions_take():
    labels = as_labels(ARRAYS | {"age": np.ones((3, 2), np.float64)}, EVERY)
    check_labels(labels, EVERY, 3)
    check_values(labels, EVERY)
    assert {name: x.dtype.name for name, x in labels.items()} == {
        "class": "int32",
        "age": "float32",
        "text": "float32",
        "text_mask": "bool",
        "image": "float32",
    }
    np.testing.assert_allclose(labels["image"][:, 0, 0, 0], [-1, 1, -0.6], atol=1e-6)
    assert as_labels(np.ones(3), Vector(1)).shape == (3, 1)


def test_a_class_beyond_int32_is_not_shortened_to_another_class():
    labels = as_labels(np.array([0, 2**32]), ClassIds(3))
    with pytest.raises(InputError, match="class ids from 0 to 2; row 1 holds 4294967296"):
        check_values(labels, ClassIds(3))


@pytest.mark.parametrize(
    ("labels", "conditions", "message"),
    [
        (np.array([0, 3]), ClassIds(3, null=0), "ids from 0 to 2; row 1 holds 3"),
        (np.array([[0.0], [np.nan]]), Vector(1), "labels must be finite.*row 1 holds NaN"),
        ({"a": np.full((2, 1, 1, 1), np.inf)}, {"a": ImageCondition((1, 1, 1))}, "a must.*row 0"),
    ],
)
def test_values_that_cannot_be_are_refused_with_their_row(labels, conditions, message):
    with pytest.raises(InputError, match=message):
        check_values(labels, conditions)


def test_a_lone_label_is_shared_by_the_batch():
    lone = {"class": 3, "age": np.array([[1.0, 2.0]]), "whole": np.arange(4)}
    shared = share(lone, 4)
    np.testing.assert_array_equal(shared["class"], [3] * 4)
    np.testing.assert_array_equal(shared["age"], [[1.0, 2.0]] * 4)
    assert shared["whole"] is lone["whole"]
    assert share(None, 4) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassIds(0), "num_classes must be a whole number of at least 1"),
        (lambda: ClassIds(3, drop_rate=1.5), r"the drop rate must lie in \[0, 1\]"),
        (lambda: ClassIds(3, null=4), r"the null class.* must lie in \[0, 3\]"),
        (lambda: ClassIds(3, names=("a",)), "3 classes must have as many names; got 1"),
        (lambda: Vector(0), "size of a vector"),
        (lambda: Vector(3, null=(1.0, 2.0)), r"shaped as the vector, \(3,\); got \(1.0, 2.0\)"),
        (lambda: Vector(3, drop_rate=float("nan")), "drop rate"),
        (lambda: check_conditions({"class": 10}), r"such as ClassIds\(10\).*got int"),
        (lambda: Sequence(0, 3), "length of a sequence"),
        (lambda: Sequence(3, 0), "size of a vector of a sequence"),
        (lambda: Sequence(3, 2, null=(1.0,)), r"null of a sequence.*\(2,\); got \(1.0,\)"),
        (lambda: Mask(0, of="text"), "length of a mask"),
        (lambda: Mask(3, of=None), "name of the sequence.*got None"),
        (lambda: ImageCondition((8, 8)), r"\(height, width, channels\); got \(8, 8\)"),
        (lambda: ImageCondition((8, 8, 0)), "each size of an image"),
        (lambda: check_conditions({"text_mask": Mask(5, of="text")}), r"sequences \(none\)"),
        (
            lambda: check_conditions({"m": Mask(5, of="s"), "s": Sequence(4, 2)}),
            "mask m is of a sequence 's' of 5 places; got the sequences s of 4",
        ),
        (lambda: conditions_of({"text_mask": np.ones((2, 3), bool)}), "stands beside its sequence"),
        (lambda: conditions_of(np.ones((2, 3), bool)), "bool and shape"),
        (lambda: conditions_of(np.zeros((2, 3, 4, 5, 6))), "float64 and shape"),
        (lambda: conditions_of(np.array([-1, 0])), "class ids"),
    ],
)
def test_conditions_that_cannot_be_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("labels", "conditions", "message"),
    [
        (LABELS, None, "to an unconditional model"),
        (None, BOTH, r"labels=None came.*age \(vector\), class \(class\)"),
        ({"class": LABELS["class"]}, BOTH, "must have the conditions .*; got class"),
        (LABELS | {"text": jnp.ones((4, 2))}, BOTH, "got age, class, text"),
        (jnp.ones((4, 5, 2)), Sequence(5, 3), r"sequences, floats of shape \(4, 5, 3\)"),
        (nulls(TEXT, 4) | {"text_mask": jnp.ones((4, 5))}, TEXT, r"masks, bool of shape \(4, 5\)"),
        (jnp.ones((4, 2, 2, 1), jnp.uint8), ImageCondition((2, 2, 1)), "images, floats.*got uint8"),
        (LABELS["class"], BOTH, "got labels"),
        (LABELS | {"age": jnp.ones((4, 3))}, BOTH, r"floats of shape \(4, 2\); got float32"),
        (LABELS | {"age": jnp.ones((4, 2), int)}, BOTH, "vectors, floats of shape"),
        (LABELS | {"class": jnp.ones(4)}, BOTH, "integer class ids"),
        (LABELS | {"class": jnp.zeros((4, 1), int)}, BOTH, r"one class id per example, \(4,\)"),
        (jnp.ones((4, 3)), ClassIds(3), r"weights over classes have shape \(4, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, conditions, message):
    with pytest.raises(InputError, match=message):
        check_labels(labels, conditions, 4)


def test_weights_over_classes_stand_for_class_ids():
    check_labels(jnp.ones((4, 11)), ClassIds(10), 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_here:Thing", "path.name 'no_such_module_here:Thing': No module named"),
        ("fmjax.conditions:ClasIds", "Did you mean 'ClassIds'"),
    ],
)
def test_an_object_that_cannot_be_found_is_named(name, message):
    with pytest.raises(InputError, match=message):
        load_object("path.name", name)


def test_a_module_that_fails_is_said_to_fail(tmp_path, monkeypatch):
    (tmp_path / "broken_piece.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="fails with ZeroDivisionError"):
        load_object("path.name", "broken_piece:Thing")
