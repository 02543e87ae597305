"""A Gaussian whose mean is a function of a condition is learned: its means and its covariance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import Draw, make_loss_fn, solve, solver_spec
from fmjax.conditions import ImageCondition, Mask, Sequence, Vector
from fmjax.models.adapters import from_linen
from fmjax.models.dit import DiT
from fmjax.models.mlp import MLP

FACTOR = jnp.array([[0.5, 0.0], [0.3, 0.2]])  # of the covariance, the same under every condition
BATCH, PLACES, ASKED, SAMPLES = 256, 4, 6, 1000


def plane(c):
    """From two numbers to the mean."""
    return jnp.stack([jnp.sin(2 * c[:, 0]) + c[:, 1], c[:, 0] * c[:, 1]], axis=1)


def vectors(key, n):
    c = jax.random.uniform(key, (n, 2), minval=-1, maxval=1)
    return c, plane(c)


def sequences(key, n):
    """The mean is a function of the sum over the places that count; the others hold noise."""
    value_key, length_key = jax.random.split(key)
    c = jax.random.uniform(value_key, (n, PLACES, 2), minval=-1, maxval=1)
    mask = jnp.arange(PLACES)[None] < jax.random.randint(length_key, (n, 1), 1, PLACES + 1)
    first = jnp.sum(jnp.where(mask[..., None], c, 0), axis=1) / jnp.sum(mask, axis=1)[:, None]
    return {"text": c, "text_mask": mask}, 2 * first


def images(key, n):
    """The mean is read off two pixels."""
    c = jax.random.uniform(key, (n, 2, 2, 1), minval=-1, maxval=1)
    return c, plane(c[:, 0, :, 0])


TEXT = {"text": Sequence(PLACES, 2), "text_mask": Mask(PLACES, of="text")}
MLP64 = functools.partial(MLP, width=64, depth=2)
# An image of two pixels for a vector of two numbers, which DiT takes as two patches.
DIT32 = functools.partial(DiT, patch_size=1, width=32, depth=2, heads=2)
CASES = [
    pytest.param(MLP64, Vector(2), vectors, id="vector"),
    pytest.param(MLP64, TEXT, sequences, id="sequence", marks=pytest.mark.nightly),
    pytest.param(MLP64, ImageCondition((2, 2, 1)), images, id="image", marks=pytest.mark.nightly),
    pytest.param(DIT32, TEXT, sequences, id="sequence, dit", marks=pytest.mark.nightly),
]


def trained(model, shape, conditioned, steps):
    """A velocity that has seen that many batches."""
    apply_fn, draw = from_linen(model), Draw()
    loss_fn = make_loss_fn(apply_fn)
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, steps))
    labels, _ = conditioned(jax.random.key(0), BATCH)
    params = model.init(jax.random.key(1), jnp.zeros((BATCH, *shape)), jnp.zeros(BATCH), labels)
    params = params["params"]

    def step(state, key):
        params, opt_state = state
        data_key, noise_key, draw_key = jax.random.split(key, 3)
        labels, mean = conditioned(data_key, BATCH)
        x1 = (mean + jax.random.normal(noise_key, (BATCH, 2)) @ FACTOR.T).reshape(BATCH, *shape)
        args = draw(draw_key, jnp.arange(BATCH), x1, labels)
        updates, opt_state = optimizer.update(jax.grad(loss_fn)(params, *args), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    keys = jax.random.split(jax.random.key(2), steps)
    (params, _), _ = jax.jit(lambda s: jax.lax.scan(step, s, keys))(
        (params, optimizer.init(params))
    )
    return functools.partial(apply_fn, params)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "conditions", "conditioned"), CASES)
def test_sampled_means_and_covariances_are_those_of_each_condition(make, conditions, conditioned):
    shape = (1, 2, 1) if make.func is DiT else (2,)
    velocity = trained(make(conditions=conditions), shape, conditioned, steps=2000)
    labels, means = conditioned(jax.random.key(3), ASKED)
    x0 = jax.random.normal(jax.random.key(4), (ASKED * SAMPLES, *shape))
    repeated = jax.tree.map(lambda a: jnp.repeat(a, SAMPLES, axis=0), labels)
    x1 = jax.jit(lambda x0, y: solve(velocity, x0, y, solver_spec("heun", 20)).x1)(x0, repeated)
    samples = np.asarray(x1).reshape(ASKED, SAMPLES, 2)
    covariance = np.asarray(FACTOR @ FACTOR.T)
    spread = np.std(np.asarray(means), axis=0)
    assert spread.min() > 0.3  # the conditions differ by more than what is allowed below
    for found, mean in zip(samples, np.asarray(means), strict=True):
        np.testing.assert_allclose(found.mean(axis=0), mean, atol=0.12)
        np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.06)
