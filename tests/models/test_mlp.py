import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds, Vector
from fmjax.errors import InputError
from fmjax.models.mlp import MLP

B = 6
T = np.linspace(0.05, 0.95, B, dtype=np.float32)
LABELS = np.array([0, 1, 2, 3, 1, 0])


X = np.random.default_rng(1).normal(size=(B, 2)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, labels=None):
    return model.apply({"params": params}, x, t, labels)


def make(**fields):
    """A small model, and parameters with nothing left at zero, as after training."""
    model = MLP(**{"width": 16, "depth": 2, **fields})
    labels = None if model.conditions is None else LABELS
    init = functools.partial(model.init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(jax.eval_shape(init, X, T, labels)["params"])
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.25, a.shape).astype(a.dtype) for a in leaves]
    return model, jax.tree.unflatten(tree, noise)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("shape", "conditions"), [((2,), None), ((2, 2, 3), ClassIds(3))])
def test_a_fresh_model_outputs_zero_in_the_shape_of_x(shape, conditions):
    labels = None if conditions is None else LABELS
    model, x = MLP(width=16, depth=2, conditions=conditions), np.ones((B, *shape), np.float32)
    out, _ = jax.jit(model.init_with_output)(jax.random.key(0), x, T, labels)
    assert out.shape == x.shape
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 0.0)


def test_without_zero_init_a_fresh_model_outputs_something():
    model = MLP(width=16, depth=1, zero_init=False)
    out, _ = jax.jit(model.init_with_output)(jax.random.key(0), X, T)
    assert np.abs(out).min() > 0


def test_time_and_class_matter():
    model, params = make(conditions=ClassIds(3))
    same_x = np.broadcast_to(X[:1], X.shape)
    by_time = apply(model, params, same_x, T, np.zeros(B, np.int32))
    by_class = apply(model, params, same_x, np.full(B, 0.5, np.float32), LABELS)
    assert len(np.unique(np.asarray(by_time), axis=0)) == B
    assert len(np.unique(np.asarray(by_class), axis=0)) == 4


def test_examples_do_not_see_their_neighbours():
    model, params = make(conditions=ClassIds(3))
    alone = apply(model, params, X[2:3], T[2:3], LABELS[2:3])
    together = apply(model, params, X, T, LABELS)[2:3]
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("conditions", [None, ClassIds(3)])
def test_the_guidance_scale_matters_where_it_is_an_input(conditions):
    model = MLP(width=16, depth=1, conditions=conditions, guidance=True, zero_init=False)
    labels = None if conditions is None else LABELS
    w = np.linspace(0, 4, B, dtype=np.float32)
    given = {"labels": labels, "guidance": w}
    params = jax.jit(model.init)(jax.random.key(0), X, T, given)["params"]
    without = MLP(width=16, depth=1, conditions=conditions, zero_init=False)
    condition = {k: v for k, v in params["condition"].items() if k != "guidance"}
    plain = apply(without, params | {"condition": condition}, X, T, labels)
    # As the network without it at first, so that a student may start from its teacher.
    np.testing.assert_allclose(apply(model, params, X, T, given), plain, rtol=1e-5, atol=1e-5)
    kernel = params["condition"]["guidance"]["dense_1"]["kernel"]
    params["condition"]["guidance"]["dense_1"]["kernel"] = kernel + 1.0
    same = np.broadcast_to(X[:1], X.shape), np.full(B, 0.5, np.float32)
    same_labels = None if labels is None else np.zeros(B, np.int32)
    out = apply(model, params, *same, {"labels": same_labels, "guidance": w})
    assert len(np.unique(np.asarray(out), axis=0)) == B


def test_weights_over_classes_stand_for_class_ids():
    model, params = make(conditions=ClassIds(3))
    weights = np.eye(4, dtype=np.float32)[LABELS]
    by_weight, by_id = (apply(model, params, X, T, given) for given in (weights, LABELS))
    np.testing.assert_allclose(by_weight, by_id, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_jvp_is_the_finite_difference_in_float64():
    with jax.enable_x64(True):
        model, params = make(depth=1)
        params, x, t = jax.tree.map(lambda a: a.astype(np.float64), (params, X, T))
        f = jax.jit(lambda x, t: model.apply({"params": params}, x, t))
        dx, dt, h = np.cos(x), np.ones_like(t), 1e-5
        _, tangent = jax.jit(lambda *args: jax.jvp(f, args, (dx, dt)))(x, t)
        difference = (f(x + h * dx, t + h * dt) - f(x - h * dx, t - h * dt)) / (2 * h)
        assert tangent.dtype == jnp.float64
        # Truncation is h^2 times the third derivative, of the order of time_scale^3.
        np.testing.assert_allclose(tangent, difference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("field", ["width", "depth"])
@pytest.mark.parametrize("value", [0, -2, 1.5, True])
def test_sizes_must_be_positive_whole_numbers(field, value):
    with pytest.raises(
        InputError, match=f"{field} must be a whole number of at least 1; got {value}"
    ):
        make(**{field: value})


@pytest.mark.parametrize(
    ("features", "message"),
    [(0, "at least 1; got 0"), (7, "time_features=7: expected an even"), (2.0, "whole number")],
)
def test_time_features_must_be_even(features, message):
    with pytest.raises(InputError, match=message):
        make(time_features=features)


def test_x_needs_a_feature_axis():
    model, params = make()
    with pytest.raises(InputError, match=r"x has shape \(6,\), expected \(batch, ...\)"):
        model.apply({"params": params}, X[:, 0], T)


def test_a_network_of_several_conditions_can_be_jitted_by_its_methods():
    model = MLP(width=8, depth=1, conditions={"class": ClassIds(3), "age": Vector(2)})
    labels = {"class": LABELS, "age": np.ones((B, 2), np.float32)}
    assert jax.jit(model.init)(jax.random.key(0), X, T, labels)["params"].keys() >= {"condition"}
    assert hash(model) == hash(model.clone())


def test_labels_are_checked():
    model, params = make()
    with pytest.raises(InputError, match="unconditional model"):
        model.apply({"params": params}, X, T, LABELS)
