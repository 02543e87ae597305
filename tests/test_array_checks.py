import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.array_checks import (
    check_class_ids,
    check_finite,
    check_leading_size,
    check_pairs,
    check_per_example,
    check_points,
    check_shaped_as,
    check_training_batch,
    is_concrete,
)
from fmjax.conventions import Span
from fmjax.errors import InputError

X = np.zeros((3, 2), np.float32)
T = jnp.zeros(3)


def refused(check, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        check(*args, **kwargs)
    return str(caught.value)


def test_traced_arrays_have_no_values():
    seen = []
    jax.jit(lambda x: seen.append(is_concrete(x)) or x)(X)
    assert seen == [False]
    assert is_concrete(X)
    assert is_concrete(T)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_example_that_is_not_finite_is_named(kind, bad):
    x = np.array([[0, 1], [0, bad], [bad, bad]])
    assert refused(check_finite, "x0", {"a": kind(X), "b": kind(x)}) == (
        "x0 must be finite; got NaN or infinity in 2 of 3 examples, the first of them 1."
    )
    check_finite("x0", (kind(X), kind(X[:0])))


def test_values_of_a_traced_program_are_not_looked_at():
    jax.jit(lambda x: check_finite("x", x))(np.array([[np.nan]]))


def test_numpy_arrays_are_looked_at_without_a_device(monkeypatch):
    monkeypatch.setattr("fmjax.array_checks.jnp.isfinite", None)
    check_finite("x0", X)


def test_an_array_must_have_the_shape_of_another():
    check_shaped_as("velocity", X, "x", (3, 2))
    found = refused(check_shaped_as, "velocity", X, "x", (3, 1))
    assert found == "velocity must be shaped as x, (3, 1); got (3, 2)."


def test_class_ids_pass():
    check_class_ids("labels", [0, 2, 2], count=3, num_classes=3)
    check_class_ids("labels", np.array([9], np.uint8))


@pytest.mark.parametrize(
    ("ids", "given", "message"),
    [
        (0, {}, r"class ids of shape \(n,\); got int64 of shape \(\)"),
        ([[0]], {}, r"class ids of shape \(n,\); got int64 of shape \(1, 1\)"),
        (np.zeros(0, int), {}, r"shape \(n,\); got int64 of shape \(0,\)"),
        ([0, 1], {"count": 3}, r"class ids of shape \(3,\); got int64 of shape \(2,\)"),
        ([0.0], {}, "integer class ids .* got float64"),
        ([True], {}, "integer class ids .* got bool"),
        ([0, -1], {}, "labels must be class ids from 0 on; got -1"),
        ([0, -1], {"num_classes": 3}, "labels must be class ids from 0 to 2; got -1"),
        ([1, 3], {"num_classes": 3}, "labels must be class ids from 0 to 2; got 3"),
    ],
)
def test_what_is_no_class_id_is_refused(ids, given, message):
    with pytest.raises(InputError, match=message):
        check_class_ids("labels", ids, **given)


def test_points_of_a_flow_have_its_shape_and_a_time_each():
    check_points(X, T, (2,))
    assert refused(check_points, X, T, (2, 1)) == (
        "this flow takes x (batch, 2, 1) and t (batch,); got (3, 2) and (3,)."
    )
    assert "got (3, 2) and ()" in refused(check_points, X, 0.5, (2,))


def test_labels_must_have_the_size_of_the_batch():
    check_leading_size(None, 3)
    check_leading_size({"a": X, "b": T}, 3)
    assert refused(check_leading_size, {"a": X, "b": T}, 4).startswith(
        "labels must have the leading size of the batch, 4; got an array of shape (3, 2)"
    )


def test_pairs_that_fit_pass():
    check_pairs((X, X[:, 0]), (X, X[:, 0]), {"class": np.zeros(3, int)})


@pytest.mark.parametrize(
    ("x0", "x1", "labels", "message"),
    [
        (X[:2], X, None, r"one shape, \(batch, ...\); got x0 \(2, 2\) and x1 \(3, 2\)"),
        ((X, X[:2]), (X, X), None, "one shape"),
        ((X, X), X, None, "must be built alike"),
        ((X, X[:2]), (X, X[:2]), None, "one leading size"),
        (np.float32(0), np.float32(0), None, "one shape"),
        (X, X, np.zeros(2), "leading size of the batch, 3"),
        (X + np.nan, X, None, "x0 must be finite"),
        (X, X + np.nan, None, "x1 must be finite"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(x0, x1, labels, message):
    with pytest.raises(InputError, match=message):
        check_pairs(x0, x1, labels)


def test_times_lie_in_the_unit_interval_one_for_each_example():
    check_training_batch(X, X, jnp.array([0.0, 0.5, 1.0]))
    assert "got values from -0.5 to 0" in refused(check_training_batch, X, X, T.at[0].set(-0.5))
    assert "got values from 0 to 1.5" in refused(check_training_batch, X, X, T.at[0].set(1.5))
    assert "t must lie in [0, 1]" in refused(check_training_batch, X, X, T.at[0].set(jnp.nan))
    assert "jnp.full((batch,), t)" in refused(check_training_batch, X, X, T[:2])
    assert "one shape" in refused(check_training_batch, X[:2], X, T)


def test_times_are_a_prefix_of_the_data():
    tree, times = {"a": X, "b": X[:, :1]}, jnp.full((3, 2), 0.5)
    for t in (T, {"a": T, "b": T}, {"a": times, "b": T}, Span(T, T)):
        check_training_batch(tree, tree, t)
    check_training_batch(X, X, times)
    assert "a prefix of x" in refused(check_training_batch, tree, tree, {"a": T})
    assert "one per element; got (3, 2)" in refused(check_training_batch, tree, tree, times)
    assert "got values from 0.5 to 1.5" in refused(
        check_training_batch, X, X, Span(T, T + jnp.array([0.5, 1.0, 1.5]))
    )


@pytest.mark.parametrize(
    "value", [np.arange(3), np.ones(3, bool), np.ones(3, "c8"), np.ones((3, 1)), 1.0, None]
)
def test_what_is_not_one_float_an_example_is_refused(value):
    check_per_example("the cost", np.ones(3, np.float16), 3)
    with pytest.raises(InputError, match=r"the cost must return one float per example, \(3,\)"):
        check_per_example("the cost", value, 3)
