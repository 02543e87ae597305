import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fmjax.conditions import ClassIds, Vector
from fmjax.conventions import Span
from fmjax.errors import InputError
from fmjax.models.embedders import (
    SPAN_SCALE,
    ConditionEmbed,
    LabelEmbed,
    TimeEmbed,
    VectorEmbed,
    sincos_2d,
    sinusoidal,
)

TIMES = np.linspace(0.0, 1.0, 1001, dtype=np.float32)


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, *args):
    return module.apply({"params": params}, *args)


def test_sinusoidal_is_its_formula():
    t, dim = np.array([0.0, 0.1234, 0.5, 1.0]), 16
    out = np.asarray(jax.jit(sinusoidal, static_argnums=1)(t.astype("float32"), dim))
    for b, time in enumerate(t):
        for k in range(dim // 2):
            angle = 1000.0 * time * 10_000.0 ** (-k / (dim // 2))
            # float32 holds angles near 1000 to 6e-5.
            np.testing.assert_allclose(out[b, k], np.cos(angle), atol=2e-4)
            np.testing.assert_allclose(out[b, k + dim // 2], np.sin(angle), atol=2e-4)


def test_features_tell_1001_times_apart():
    features = np.asarray(jax.jit(sinusoidal, static_argnums=1)(TIMES, 256))
    gaps = np.linalg.norm(np.diff(features, axis=0), axis=1)
    assert gaps.min() > 0.5
    assert len(np.unique(features, axis=0)) == 1001


def test_time_embedding_tells_1001_times_apart_after_its_mlp():
    module = TimeEmbed(width=32)
    out, _ = jax.jit(module.init_with_output)(jax.random.key(0), TIMES)
    assert len(np.unique(np.asarray(out), axis=0)) == 1001


def test_sincos_2d_is_its_formula():
    rows, columns, width = 3, 5, 12
    table, quarter = sincos_2d(rows, columns, width), width // 4
    assert table.dtype == np.float32
    for i in range(rows):
        for j in range(columns):
            w = 10_000.0 ** (-np.arange(quarter) / quarter)
            direct = np.concatenate([f(k * w) for k in (j, i) for f in (np.sin, np.cos)])
            np.testing.assert_allclose(table[i * columns + j], direct, atol=1e-6)


def test_sincos_2d_gives_every_patch_its_own_position():
    assert len(np.unique(sincos_2d(8, 16, 16), axis=0)) == 8 * 16


def test_null_class_has_a_row_of_its_own():
    module = LabelEmbed(num_classes=10, width=8)
    rows, params = jax.jit(module.init_with_output)(jax.random.key(0), np.arange(11))
    assert params["params"]["table"].shape == (11, 8)
    assert len(np.unique(np.asarray(rows), axis=0)) == 11
    gradient = jax.jit(jax.grad(lambda p: module.apply(p, np.array([10, 10])).sum()))(params)
    touched = np.asarray(gradient["params"]["table"]).any(axis=1)
    np.testing.assert_array_equal(touched, np.arange(11) == 10)


def test_weights_over_classes_mix_the_rows_and_a_row_of_the_identity_is_its_class():
    module = LabelEmbed(num_classes=4, width=8)
    rng = np.random.default_rng(0)
    table, weights = (rng.normal(size=(n, m)).astype(np.float32) for n, m in ((5, 8), (3, 5)))
    params = {"table": table}
    identity, ids = (apply(module, params, a) for a in (np.eye(5, dtype="f4"), np.arange(5)))
    np.testing.assert_array_equal(identity, ids)
    np.testing.assert_allclose(apply(module, params, weights), weights @ table, atol=1e-5)


@pytest.mark.parametrize("label", [-1, 11, 1000])
def test_a_class_out_of_range_is_nan_and_not_another_class(label):
    module = LabelEmbed(num_classes=10, width=8)
    rows = np.asarray(apply(module, {"table": np.ones((11, 8), np.float32)}, np.array([3, label])))
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1]).all()


def test_condition_is_the_sum_of_time_and_class():
    module = ConditionEmbed(width=8, conditions=ClassIds(3))
    t, labels = np.array([0.2, 0.7], np.float32), np.array([1, 3])
    params = jax.jit(module.init)(jax.random.key(0), t, labels)["params"]
    time = np.asarray(apply(TimeEmbed(8), params["time"], t))
    out = apply(module, params, t, labels)
    expected = time + np.asarray(params["label"]["table"])[labels]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_the_guidance_scale_is_added_and_is_nothing_at_first():
    t, w = np.array([0.2, 0.7], np.float32), np.array([1.5, 4.0], np.float32)
    module = ConditionEmbed(width=8, guidance=True)
    params = jax.jit(module.init)(jax.random.key(0), t, None, w)["params"]
    time = np.asarray(apply(ConditionEmbed(width=8), {"time": params["time"]}, t))
    np.testing.assert_array_equal(apply(module, params, t, None, w), time)
    params["guidance"]["dense_1"]["kernel"] = np.ones_like(params["guidance"]["dense_1"]["kernel"])
    embed = np.asarray(apply(TimeEmbed(8, scale=10.0), params["guidance"], w))
    out = apply(module, params, t, None, w)
    np.testing.assert_allclose(out, time + embed, atol=1e-5)
    assert np.abs(embed[0] - embed[1]).max() > 1e-3


TWO = {"age": Vector(3), "class": ClassIds(5), "nested": {"b": ClassIds(2)}}
T2 = np.array([0.2, 0.7], np.float32)
GIVEN = {
    "age": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    "class": np.array([4, 5]),
    "nested": {"b": np.array([0, 2])},
}


def test_each_condition_adds_its_embedding_under_its_name():
    module = ConditionEmbed(width=8, conditions=TWO)
    params = jax.jit(module.init)(jax.random.key(0), T2, GIVEN)["params"]
    assert params.keys() == {"time", "label_age", "label_class", "label_nested_b"}
    parts = [
        apply(TimeEmbed(8), params["time"], T2),
        apply(VectorEmbed(3, 8), params["label_age"], GIVEN["age"]),
        np.asarray(params["label_class"]["table"])[GIVEN["class"]],
        np.asarray(params["label_nested_b"]["table"])[GIVEN["nested"]["b"]],
    ]
    np.testing.assert_allclose(apply(module, params, T2, GIVEN), sum(parts), atol=1e-5)


def test_a_vector_is_embedded_by_its_formula_in_float32():
    module, x = VectorEmbed(size=3, width=8), np.asarray(GIVEN["age"])
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]
    assert 0.01 < np.std(params["dense_0"]["kernel"]) < 0.03
    first, second = (np.asarray(params[name]["kernel"]) for name in ("dense_0", "dense_1"))
    hidden = x @ first
    expected = (hidden / (1 + np.exp(-hidden))) @ second
    np.testing.assert_allclose(apply(module, params, x), expected, rtol=1e-4, atol=1e-6)
    assert apply(module, params, x.astype(jnp.bfloat16)).dtype == jnp.float32


class Ordinal(nn.Module):
    width: int
    rows: int = 2

    @nn.compact
    def __call__(self, ids):
        return jnp.ones((self.rows, self.width)) * ids[:, None] * self.param("a", nn.ones, ())


@dataclasses.dataclass(frozen=True)
class Levels:
    """A condition of a kind that no table knows, which may bring its own embedding."""

    drop_rate: float = 0.0
    kind: ClassVar[str] = "levels"

    def null_value(self):
        return np.float32(0)

    def check(self, name, x, batch):
        pass


class OwnLevels(Levels):
    def embedder(self, width, name):
        return Ordinal(width, name=name)


class WrongLevels(Levels):
    def embedder(self, width, name):
        return Ordinal(width + 1, name=name)


def test_a_condition_may_bring_its_own_embedding():
    module, levels = ConditionEmbed(width=8, conditions=OwnLevels()), np.array([2.0, 3.0], "f4")
    params = jax.jit(module.init)(jax.random.key(0), T2, levels)["params"]
    assert params["label"].keys() == {"a"}
    time = np.asarray(apply(TimeEmbed(8), params["time"], T2))
    out = apply(module, params, T2, levels)
    np.testing.assert_allclose(out, time + levels[:, None], atol=1e-5)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            Levels(),
            "cannot embed a condition of kind 'levels'.*class, vector: give Levels a",
        ),
        (WrongLevels(), r"embedding of labels must be of shape \(2, 8\); got \(2, 9\)"),
    ],
)
def test_a_condition_that_cannot_be_embedded_is_refused(condition, message):
    module = ConditionEmbed(width=8, conditions=condition)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), T2, np.zeros(2, np.float32))


def test_the_span_is_added_and_is_nothing_at_first():
    s, module = np.array([0.6, 0.1], np.float32), ConditionEmbed(width=8, span=True)
    params = jax.jit(module.init)(jax.random.key(0), Span(s, T2))["params"]
    time = np.asarray(apply(TimeEmbed(8), params["time"], s))  # s is the time of x
    np.testing.assert_array_equal(apply(module, params, Span(s, T2)), time)
    params["span"]["dense_1"]["kernel"] = np.ones_like(params["span"]["dense_1"]["kernel"])
    embed = np.asarray(apply(TimeEmbed(8, scale=SPAN_SCALE), params["span"], T2 - s))
    np.testing.assert_allclose(apply(module, params, Span(s, T2)), time + embed, atol=1e-5)
    assert np.abs(embed[0] - embed[1]).max() > 1e-3
