"""The identities at the flow map of a mixture, which has no closed form: integrated numerically."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import Draw, Span
from fmjax.conventions import expand
from fmjax.flow_maps import (
    AlphaFlow,
    Jumps,
    Lagrangian,
    MeanFlow,
    Semigroup,
    make_flow_map_loss_fn,
)
from fmjax.models import adapters
from fmjax.models.mlp import MLP
from fmjax.testing import MixtureFlow
from fmjax.times import SortedPair, WithDiagonal

FLOW = MixtureFlow([0.3, 0.7], np.array([[-1.5, 0.5], [1.0, -1.0]]), np.array([0.4, 0.6]))
N, STEPS = 16, 128


def carried(x, span):
    """Where the ODE leads from x at s until t, by the classical Runge-Kutta rule."""
    h = (span.t - span.s) / STEPS

    def step(x, k):
        t = span.s + k * h
        wide = expand(h, x)
        k1 = FLOW.velocity(x, t)
        k2 = FLOW.velocity(x + wide / 2 * k1, t + h / 2)
        k3 = FLOW.velocity(x + wide / 2 * k2, t + h / 2)
        k4 = FLOW.velocity(x + wide * k3, t + h)
        return x + wide / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jax.lax.scan(step, x, jnp.arange(STEPS))[0]


def network(params, x, span, labels):
    """The average velocity of the mixture's flow, and something wrong of the size of params."""
    length = expand(jnp.where(span.s == span.t, 1.0, span.t - span.s), x)
    u = (carried(x, span) - x) / length
    on_diagonal = expand(span.s == span.t, x)
    u = jnp.where(on_diagonal, FLOW.velocity(x, span.s), u)
    return u + params * expand(span.t - span.s, x) * jnp.sin(x)


def points(dtype):
    """x0 and x1 with the pairs' x_s on the path, and spans of at least 0.1."""
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(2, N, 2))
    s = rng.uniform(0, 0.6, N)
    t = s + rng.uniform(0.1, 0.4, N)
    return (jnp.asarray(x, dtype) for x in (x0, x1, s, t))


@functools.cache
def residual(name, wrong):
    identity = {
        "MeanFlow": MeanFlow(),
        "improved MeanFlow": MeanFlow(tangent="network"),
        "Lagrangian": Lagrangian(),
        "semigroup": Semigroup(split=0.4),
        "alpha-Flow, 0": AlphaFlow(0.0),
    }[name]
    with jax.enable_x64(True):
        x0, x1, s, t = points(np.float64)
        loss_fn = make_flow_map_loss_fn(
            network, identity, teacher=lambda x, t, labels: FLOW.velocity(x, t)
        )
        return float(jnp.sqrt(jax.jit(loss_fn)(jnp.asarray(wrong), x0, x1, Span(s, t), None)))


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["MeanFlow", "Lagrangian", "semigroup"])
def test_an_identity_holds_on_a_mixture_and_not_beside_it(name):
    assert residual(name, 0.0) < 1e-6  # what 128 steps of order 4 leave
    assert residual(name, 0.1) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["improved MeanFlow", "alpha-Flow, 0"])
def test_its_relatives_hold_there_too(name):
    assert residual(name, 0.0) < 1e-6
    assert residual(name, 0.1) > 1e-3


@pytest.mark.slow
def test_chains_of_jumps_lead_where_one_jump_does():
    """X_{s,t} o X_{r,s} = X_{r,t} and back again, which a wrong map does not do."""

    def lead(wrong, x, grid, **ends):
        average = functools.partial(network, jnp.asarray(wrong))
        return jax.jit(lambda x: Jumps(grid=grid).solve(average, x, **ends).x1)(x)

    with jax.enable_x64(True):
        x0 = next(points(np.float64))
        once = lead(0.0, x0, [0.0, 1.0])
        np.testing.assert_allclose(lead(0.0, x0, [0.0, 0.3, 1.0]), once, atol=1e-6)
        np.testing.assert_allclose(lead(0.0, once, [1.0, 0.0], t0=1.0, t1=0.0), x0, atol=1e-6)
        gap = np.abs(lead(0.1, x0, [0.0, 0.3, 1.0]) - lead(0.1, x0, [0.0, 1.0]))
        assert gap.max() > 1e-2


@pytest.mark.nightly
def test_a_trained_map_is_a_semigroup_and_the_flow_within_its_error():
    """Its error, and how far one jump is from two, both below 0.1 where the data's scale is 1.3."""
    model = MLP(width=64, depth=3, span=True)
    apply_fn = adapters.from_linen(model)
    span = Span(jnp.zeros(1), jnp.zeros(1))
    params = model.init(jax.random.key(0), jnp.zeros((1, 2)), span)["params"]
    loss_fn = make_flow_map_loss_fn(
        apply_fn, Lagrangian(), teacher=lambda x, t, labels: FLOW.velocity(x, t)
    )
    draw = Draw(time_distribution=WithDiagonal(SortedPair(), 0.25))
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 1500))

    def step(state, key):
        params, optimizer_state = state
        batch, rest = jax.random.split(key)
        x1 = FLOW.sample(batch, 256)
        args = draw(rest, jnp.arange(256), x1)
        grads = jax.grad(loss_fn)(params, *args)
        updates, optimizer_state = optimizer.update(grads, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state), None

    keys = jax.random.split(jax.random.key(1), 1500)
    state = jax.jit(lambda state: jax.lax.scan(step, state, keys)[0])(
        (params, optimizer.init(params))
    )
    average = functools.partial(apply_fn, state[0])
    x0 = jax.random.normal(jax.random.key(2), (1000, 2))
    once, twice = (Jumps(n).solve(average, x0).x1 for n in (1, 2))
    exact = carried(x0, Span(jnp.zeros(1000), jnp.ones(1000)))
    for a, b in ((once, twice), (once, exact), (twice, exact)):
        assert jnp.sqrt(jnp.mean((a - b) ** 2)) < 0.1
