"""Outputs beside the velocity: they start at zero, leave it as it is, and are counted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import Output, Span
from fmjax.errors import InputError
from fmjax.models.adapters import extend_params, from_linen
from fmjax.models.parts import PARTS
from tests.models.test_span import NETWORKS, B, S, T, randomised

POINTS = Span(jnp.asarray(S), jnp.asarray(T))


@functools.cache
def plain(make, shape):
    """The parameters of a trained network of two times, points, and what it gives there."""
    x = np.random.default_rng(1).normal(size=(B, *shape)).astype(np.float32)
    model = make(span=True)
    params = randomised(jax.eval_shape(model.init, jax.random.key(0), x, POINTS)["params"])
    return params, x, jax.jit(from_linen(model))(params, x, POINTS)


def with_parts(make, shape, parts=PARTS):
    """The same network with parts, and its parameters extended."""
    params, x, _ = plain(make, shape)
    model = make(span=True, parts=parts)
    fresh = jax.jit(model.init)(jax.random.key(0), x, POINTS)["params"]
    return jax.jit(from_linen(model)), extend_params(fresh, params)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_a_network_with_parts_begins_as_that_without_to_the_bit(make, shape):
    _, x, expected = plain(make, shape)
    apply_fn, extended = with_parts(make, shape)
    out = apply_fn(extended, x, POINTS)
    assert isinstance(out, Output)
    assert list(out.parts) == ["velocity", *PARTS]
    np.testing.assert_array_equal(out["velocity"], expected)
    assert np.abs(expected).max() > 0.1
    for name, like in (("divergence", (B,)), ("diagonal", x.shape)):
        assert out[name].shape == like
        assert out[name].dtype == expected.dtype
        np.testing.assert_array_equal(out[name], 0)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_each_part_is_there_alone_and_leaves_the_velocity_when_it_is_trained(make, shape):
    _, x, expected = plain(make, shape)
    for name in PARTS:
        apply_fn, extended = with_parts(make, shape, (name,))
        extended[name] = randomised(extended[name], seed=2)
        out = apply_fn(extended, x, POINTS)
        assert set(out.parts) == {"velocity", name}
        assert np.abs(out[name]).max() > 0.01
        assert len(np.unique(np.asarray(out[name]).reshape(B, -1), axis=0)) == B
        np.testing.assert_array_equal(out["velocity"], expected)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_without_parts_parameters_and_program_are_those_without_the_field(make, shape):
    model, x = make(span=True), jnp.zeros((B, *shape))
    params = jax.eval_shape(model.init, jax.random.key(0), x, POINTS)["params"]
    assert not set(PARTS) & set(params)
    out = jax.eval_shape(from_linen(model), params, x, POINTS)
    assert out.shape == x.shape


@pytest.mark.parametrize(("make", "shape"), NETWORKS)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"parts": "divergence"}, 'expected a tuple of names, e.g. \\("divergence",\\)'),
        ({"parts": ("divergense",)}, "unknown part of a network 'divergense'"),
        ({"parts": ("diagonal", "diagonal")}, "expected each name once"),
        ({"parts": ("diagonal",), "span": False}, "build it with span=True"),
    ],
)
def test_parts_that_cannot_be_are_refused(make, shape, how, message):
    model = make(**{"span": True, **how})
    with pytest.raises(InputError, match=message):
        jax.eval_shape(
            functools.partial(model.init, jax.random.key(0)), jnp.zeros((B, *shape)), POINTS
        )
