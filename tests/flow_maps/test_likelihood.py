"""The likelihood in a few jumps: exact at the closed form, learned by a network, and bad input."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import Draw, Output, Span
from fmjax.errors import InputError
from fmjax.flow_maps import (
    DivergenceHead,
    Lagrangian,
    few_step_log_likelihood,
    make_flow_map_loss_fn,
)
from fmjax.models.adapters import from_linen
from fmjax.models.mlp import MLP
from fmjax.sources import Empirical
from fmjax.testing import GaussianMap, MixtureFlow
from fmjax.times import AnyPair, WithDiagonal

SCALE, MEAN, STD = 5.0, np.array([2.0, -1.0]), 0.4
FLOW = GaussianMap(np.zeros(2), 1.0, MEAN, STD)


def average(x, span, labels=None):
    divergence = FLOW.average_divergence(x, span) / SCALE
    return Output(velocity=FLOW.average_velocity(x, span), divergence=divergence)


def points_and_density(dtype):
    x = MEAN + STD * np.random.default_rng(0).normal(size=(50, 2))
    log_p = -0.5 * ((x - MEAN) ** 2).sum(1) / STD**2 - 2 * np.log(STD) - np.log(2 * np.pi)
    return jnp.asarray(x.astype(dtype)), log_p


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 1e-5), (np.float64, 1e-9)])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_at_the_closed_form_it_is_exact_in_any_number_of_jumps(dtype, error, steps):
    with jax.enable_x64(dtype == np.float64):
        x, expected = points_and_density(dtype)
        found = jax.jit(
            functools.partial(few_step_log_likelihood, average, scale=SCALE, steps=steps)
        )(x)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=error, atol=error)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("grid", [(1.0, 0.7, 0.1, 0.0), (0.0, 0.2, 1.0)])
def test_the_times_may_be_any_between_the_data_and_the_source(grid):
    x, expected = points_and_density(np.float32)
    seen = []

    def told(x, span, labels):
        jax.debug.callback(lambda s, t: seen.append((float(s), float(t))), span.s[0], span.t[0])
        return average(x, span)

    found = few_step_log_likelihood(told, x, scale=SCALE, grid=grid)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    jax.effects_barrier()
    down = sorted(grid, reverse=True)
    np.testing.assert_allclose(
        sorted(seen, reverse=True), list(itertools.pairwise(down)), rtol=1e-6
    )


def test_labels_reach_the_network():
    def shifted(x, span, labels):
        return average(x - labels[:, None], span)

    x, expected = points_and_density(np.float32)
    labels = jnp.linspace(0, 1, len(x))
    # Each jump carries x - label, and the density of the source is asked at the end of x itself.
    found = few_step_log_likelihood(shifted, x, labels, scale=SCALE, steps=2)
    assert np.abs(found - expected)[1:].min() > 1e-4


@pytest.mark.nightly
def test_a_trained_head_tells_the_density_of_a_mixture():
    angle = np.arange(4) * np.pi / 2
    flow = MixtureFlow(np.ones(4), 2 * np.stack([np.cos(angle), np.sin(angle)], -1), 0.7)
    model = MLP(width=64, depth=3, time_scale=10.0, span=True, parts=("divergence",))
    apply_fn, head = from_linen(model), DivergenceHead(SCALE, trace="exact")
    loss_fn = make_flow_map_loss_fn(apply_fn, Lagrangian(), teacher=flow.velocity, divergence=head)
    draw = Draw(time_distribution=WithDiagonal(AnyPair(), 0.25), noise=loss_fn.noise)
    adam = optax.adam(optax.cosine_decay_schedule(4e-3, 1000))

    def step(carry, key):
        params, state = carry
        args = draw(key, jnp.arange(256), flow.sample(key, 256))
        grads = jax.grad(loss_fn)(params, *args, noise=args.noise)
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    t = jnp.zeros(2)
    params = model.init(jax.random.key(0), jnp.zeros((2, 2)), Span(t, t))["params"]
    keys = jax.random.split(jax.random.key(1), 1000)
    params = jax.jit(lambda p: jax.lax.scan(step, (p, adam.init(p)), keys)[0][0])(params)
    x1 = flow.sample(jax.random.key(2), 1000)

    def error(steps):
        found = few_step_log_likelihood(
            lambda x, span, labels: apply_fn(params, x, span, labels),
            x1,
            scale=head.scale,
            steps=steps,
        )
        return float(jnp.abs(found - flow.log_density(x1, jnp.ones(1000))).mean()) / 2

    assert error(8) < 0.08
    assert error(8) < error(1) < 0.2


def call(x1=None, average=average, **how):
    x1 = jnp.ones((3, 2)) if x1 is None else x1
    return few_step_log_likelihood(average, x1, **({"scale": SCALE, "steps": 2} | how))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"average": 3}, "average must be a function"),
        ({"source": 3}, "the source must be an object with log_prob"),
        ({"source": Empirical(jnp.ones((3, 2)))}, "a source that is data has no density"),
        ({"scale": 0.0}, "scale of the divergence must be a positive number"),
        ({"steps": None}, "how many jumps is not said; write steps=8"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"grid": "even"}, "unknown time grid 'even'"),
        ({"grid": (0.9, 0.0), "steps": None}, "the grid goes from"),
        ({"grid": (1.0, 0.0)}, "the grid has 1 steps, and steps=2 were asked"),
        ({"x1": {"a": jnp.ones((3, 2))}}, "x1 must be one array"),
        ({"x1": jnp.ones((3, 2), int)}, "x1 must be of floats"),
        ({"x1": jnp.full((3, 2), jnp.nan)}, "x1 must be finite"),
        ({"average": lambda x, span, labels: x}, "'divergence' is wanted"),
        (
            {"average": lambda x, span, labels: Output(velocity=x[:, :1], divergence=x[:, 0])},
            "average must return floats shaped as x",
        ),
        (
            {"average": lambda x, span, labels: Output(velocity=x, divergence=x)},
            "the divergence of average must return one float per example",
        ),
    ],
)
def test_what_does_not_fit_is_refused(how, message):
    with pytest.raises(InputError, match=message):
        call(**how)
