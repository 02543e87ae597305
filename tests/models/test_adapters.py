"""Each adapter against its library's own way of calling and differentiating the same module."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from fmjax.errors import InputError
from fmjax.models.adapters import extend_params, from_equinox, from_linen, from_nnx

B = 5
X = np.random.default_rng(1).normal(size=(B, 2)).astype(np.float32)
T = np.linspace(0.0, 1.0, B, dtype=np.float32)
LABELS = np.array([0, 1, 2, 1, 0])
TRACES = []


def twice(params):
    return jax.tree.map(lambda a: jnp.asarray(2 * np.asarray(a)), params)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, t, labels):
        TRACES.append("linen")
        h = jnp.concatenate([x, t[:, None], nn.Embed(3, 4)(labels)], axis=-1)
        return nn.Dense(2)(nn.tanh(nn.Dense(8)(h)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(3, 4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(7, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x, t, labels):
        TRACES.append("nnx")
        self.calls[...] = self.calls[...] + 1
        h = jnp.concatenate([x, t[:, None], self.embed(labels)], axis=-1)
        h = self.dropout(nnx.tanh(self.norm(self.layers[0](h))))
        return self.layers[1](h)


class Equinox(eqx.Module):
    embed: eqx.nn.Embedding
    mlp: eqx.nn.MLP
    units: jax.Array

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.embed = eqx.nn.Embedding(3, 4, key=a)
        self.mlp = eqx.nn.MLP(7, 2, 8, 1, activation=jnp.tanh, key=b)
        self.units = jnp.array([1, 1])  # an integer array is not a parameter

    def __call__(self, x, t, label):
        TRACES.append("equinox")
        assert x.shape == (2,)
        assert t.shape == ()
        assert label.shape == ()
        h = jnp.concatenate([x, t[None], self.embed(label)])
        return self.units * self.mlp(h)


@functools.cache
def linen_case():
    module = Linen()
    params = jax.jit(module.init)(jax.random.key(0), X, T, LABELS)["params"]

    def loss(p):
        return jnp.square(module.apply({"params": p}, X, T, LABELS)).sum()

    return from_linen(module), params, *jax.jit(jax.value_and_grad(loss))(params)


@functools.cache
def nnx_case():
    module = Nnx(nnx.Rngs(0))
    apply_fn, params = from_nnx(module)
    loss = nnx.value_and_grad(lambda m: jnp.square(m(X, T, LABELS)).sum())
    value, gradient = nnx.jit(loss)(module)
    return apply_fn, params, value, nnx.to_pure_dict(gradient)


@functools.cache
def equinox_case():
    module = Equinox(jax.random.key(0))

    def loss(m):
        return jnp.square(jax.vmap(m)(X, T, LABELS)).sum()

    value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss))(module)
    return *from_equinox(module), value, gradient


CASES = pytest.mark.parametrize("case", [linen_case, nnx_case, equinox_case])


@pytest.mark.day_cases(1)
@pytest.mark.slow
@CASES
def test_value_and_gradient_are_those_of_the_library(case):
    apply_fn, params, value, gradient = case()

    def loss(p):
        return jnp.square(apply_fn(p, X, T, LABELS)).sum()

    ours, our_gradient = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(ours, value, rtol=1e-5)
    assert len(jax.tree.leaves(our_gradient)) == len(jax.tree.leaves(gradient)) >= 5
    for a, b in zip(jax.tree.leaves(our_gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert max(np.abs(g).max() for g in jax.tree.leaves(our_gradient)) > 0.1


@pytest.mark.slow
@CASES
def test_jit_traces_once_and_follows_the_parameters(case):
    apply_fn, params, _, _ = case()
    f = jax.jit(apply_fn)
    before = len(TRACES)
    first = f(params, X, T, LABELS)
    second = f(twice(params), X, T, LABELS)
    assert len(TRACES) == before + 1
    assert np.abs(np.asarray(second) - np.asarray(first)).max() > 0.1
    np.testing.assert_allclose(first, apply_fn(params, X, T, LABELS), atol=1e-5)


@pytest.mark.slow
@CASES
def test_it_is_pure(case):
    apply_fn, params, _, _ = case()
    first = apply_fn(params, X, T, LABELS)
    apply_fn(twice(params), X, T, LABELS)
    np.testing.assert_array_equal(apply_fn(params, X, T, LABELS), first)


@pytest.mark.slow
@CASES
def test_it_vmaps_over_labels_and_has_a_jvp(case):
    apply_fn, params, _, _ = case()
    stacked = np.stack([LABELS, LABELS[::-1]])
    mapped = jax.vmap(apply_fn, in_axes=(None, None, None, 0))
    for out, labels in zip(jax.jit(mapped)(params, X, T, stacked), stacked, strict=True):
        np.testing.assert_allclose(out, apply_fn(params, X, T, labels), atol=1e-5)

    def slope(t):
        return jax.jvp(lambda t: apply_fn(params, X, t, LABELS), (t,), (jnp.ones_like(t),))[1]

    assert np.abs(jax.jit(slope)(T)).max() > 0


@pytest.mark.slow
@CASES
def test_parameters_train_with_optax_and_donated_buffers(case):
    apply_fn, params, value, _ = case()
    optimizer = optax.sgd(1e-2)

    def step(params, state):
        gradient = jax.grad(lambda p: jnp.square(apply_fn(p, X, T, LABELS)).sum())(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=0)
    state = optimizer.init(params)
    for _ in range(5):
        params, state = step(params, state)
    assert jnp.square(apply_fn(params, X, T, LABELS)).sum() < value


def test_the_nnx_module_is_left_as_it_was():
    module = Nnx(nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngState))))
    apply_fn, params = from_nnx(module)
    out = apply_fn(params, X, T, LABELS)
    jax.jit(lambda p: jax.tree.map(lambda a: a + 1, p), donate_argnums=0)(params)
    after = nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngState)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    module.calls[...] = 100
    module.norm.mean[...] += 1.0
    _, params = from_nnx(module)
    np.testing.assert_array_equal(apply_fn(params, X, T, LABELS), out)


def test_nnx_in_eval_mode_has_no_dropout():
    module = Nnx(nnx.Rngs(0))
    module.eval()
    apply_fn, params = from_nnx(module)
    np.testing.assert_allclose(apply_fn(params, X, T, LABELS), module(X, T, LABELS), atol=1e-5)
    f = jax.jit(apply_fn)
    alone = f(params, X[:1], T[:1], LABELS[:1])
    np.testing.assert_allclose(alone, np.asarray(f(params, X, T, LABELS))[:1], atol=1e-5)


def test_the_equinox_module_survives_donated_parameters():
    module = Equinox(jax.random.key(0))
    _, params = from_equinox(module)
    jax.jit(lambda p: jax.tree.map(lambda a: a + 1, p), donate_argnums=0)(params)
    assert np.isfinite(module(X[0], T[0], LABELS[0])).all()


@pytest.mark.parametrize("labels", [None, {"a": LABELS, "b": X}])
def test_equinox_maps_any_pytree_of_labels(labels):
    one = jax.tree.map(lambda a: a.shape[1:], labels)

    class Module(eqx.Module):
        weight: jax.Array

        def __call__(self, x, t, label):
            assert jax.tree.map(jnp.shape, label) == one
            return self.weight * x * t

    apply_fn, params = from_equinox(Module(jnp.array(2.0)))
    np.testing.assert_allclose(apply_fn(params, X, T, labels), 2 * X * T[:, None], rtol=1e-6)


def test_trained_parameters_take_their_places_and_new_ones_stay_fresh():
    fresh = {"a": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, "new": jnp.full(4, 7.0)}
    trained = {"a": {"bias": jnp.arange(3.0), "kernel": jnp.ones((2, 3))}}
    expected = trained | {"new": fresh["new"]}
    extended = extend_params(fresh, trained)
    assert jax.tree.structure(extended) == jax.tree.structure(fresh)
    jax.tree.map(np.testing.assert_array_equal, extended, expected)


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        ({"b": jnp.ones(2)}, "the larger network has no parameter b, which"),
        ({"a": {"bias": jnp.ones(2)}}, r"parameter a/bias has shape \(2,\) .* and \(3,\)"),
    ],
)
def test_parameters_that_do_not_fit_a_larger_network_are_refused(trained, message):
    with pytest.raises(InputError, match=message):
        extend_params({"a": {"bias": jnp.zeros(3)}}, trained)
