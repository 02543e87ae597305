import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import (
    ClassIds,
    Vector,
    abstract_labels,
    check_conditions,
    check_labels,
    conditions_of,
    null_labels,
    nulls,
    share,
)
from fmjax.errors import InputError
from fmjax.names import describe, load_object, rebuild

BOTH = {"class": ClassIds(10, drop_rate=0.1, names=tuple("abcdefghij")), "age": Vector(2)}
LABELS = {"class": jnp.arange(4), "age": jnp.ones((4, 2))}


def test_nulls_are_shaped_as_the_conditions():
    check_labels(nulls(BOTH, 4), BOTH, 4)
    abstract = abstract_labels(BOTH, 4)
    jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), abstract, nulls(BOTH, 4))
    null = null_labels({"class": ClassIds(10), "other": ClassIds(10, 3), "v": Vector(2, (1, 2))})
    assert null["class"] == 10
    assert null["other"] == 3
    np.testing.assert_array_equal(null["v"], [1, 2])


@pytest.mark.parametrize("conditions", [None, ClassIds(3), Vector(2, (0.1, -3.0)), BOTH])
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
        (lambda: conditions_of(np.zeros((2, 3, 4))), "float64 of shape"),
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
