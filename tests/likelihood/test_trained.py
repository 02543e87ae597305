"""Flows that are trained: their density integrates to one, and can itself be what is trained."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax.likelihood import Exact, Hutchinson, log_likelihood
from fmjax.samplers import solver_spec

KEY = jax.random.key(0)


def init_net(key, width, dims):
    keys = jax.random.split(key, 3)
    sizes = [(dims + 1, width), (width, width), (width, dims)]
    return [jax.random.normal(k, s) / math.sqrt(s[0]) for k, s in zip(keys, sizes, strict=True)]


def apply_net(params, x, t, labels=None):
    first, second, last = params
    hidden = jnp.tanh(jnp.concatenate([2 * x, 2 * t[:, None]], axis=1) @ first)
    return jnp.tanh(2 * hidden @ second) @ last


def train(loss_fn, params, steps, rate):
    """Adam on ``loss_fn(params, key)``; the parameters and the losses."""
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry, key):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, key)
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), loss

    keys = jax.random.split(jax.random.key(5), steps)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))
    (params, _), losses = run((params, adam.init(params)))
    return params, losses


@pytest.mark.nightly
def test_the_density_of_a_trained_flow_integrates_to_one():
    def loss_fn(params, key):  # two bumps, along the straight path
        side, noise, source, time = jax.random.split(key, 4)
        x1 = jax.random.rademacher(side, (256, 1), jnp.float32) * jnp.array([[1.0, 0.5]])
        x1 += 0.3 * jax.random.normal(noise, (256, 2))
        x0, t = jax.random.normal(source, (256, 2)), jax.random.uniform(time, (256,))
        x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
        return jnp.mean((apply_net(params, x_t, t) - (x1 - x0)) ** 2)

    params, _ = train(loss_fn, init_net(KEY, 32, 2), 800, 1e-2)
    side = np.linspace(-5, 5, 161, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    velocity = lambda x, t, labels: apply_net(params, x, t)  # noqa: E731
    spec = solver_spec("rk4", 20)
    p = np.exp(jax.jit(lambda x: log_likelihood(velocity, x, spec=spec).log_p)(grid))
    # The density is nothing at the border, where the trapezoidal rule would halve it.
    assert p.reshape(161, 161)[[0, -1]].max() < 1e-6
    assert p.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=1e-3)
    assert p.max() > 0.3  # two bumps, and not the source: 1 / (2 pi)


@pytest.mark.nightly
@pytest.mark.parametrize("trace", [Exact(), Hutchinson(2)])
def test_training_by_maximum_likelihood_reaches_the_entropy(trace):
    scale = jnp.array([[0.5, 0.0], [0.6, 0.8]])  # of x1 = 1 + scale z

    def nll(params, key, n=128, steps=4, trace=trace):
        z_key, probe_key = jax.random.split(key)
        x1 = 1.0 + jax.random.normal(z_key, (n, 2)) @ scale.T
        velocity = lambda x, t, labels: apply_net(params, x, t)  # noqa: E731
        how = {"spec": solver_spec("rk4", steps), "trace": trace, "key": probe_key}
        return -log_likelihood(velocity, x1, **how).log_p.mean()

    params, losses = train(nll, init_net(KEY, 16, 2), 300, 2e-2)
    entropy = math.log(2 * math.pi * math.e) + math.log(0.5 * 0.8)
    assert float(losses[0]) > entropy + 0.5
    # Read off exactly and in finer steps, whose error training cannot have used.
    found = float(jax.jit(lambda p, k: nll(p, k, 20_000, 16, Exact()))(params, jax.random.key(9)))
    # The standard error of the mean of 20,000 densities is 1 / sqrt(20,000) = 0.007.
    assert -0.03 < found - entropy < 0.05
