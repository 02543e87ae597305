"""What several pages train: a small network on points in the plane, the loop of "learn" again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fmjax import Draw, make_loss_fn
from fmjax.models import adapters, mlp


def train(
    sample: Callable,
    draw: Draw | None = None,
    steps: int = 2000,
    batch: int = 256,
    conditions: Any = None,
    **loss,
) -> Callable:
    """Trains an MLP and gives back what it learned.

    Args:
        sample: ``sample(key, n) -> (x0, x1, labels)``; x0 None draws it normal.
        draw: how times and pairs are drawn.
        steps: of Adam.
        batch: points in a step.
        conditions: what the labels are, None without.
        **loss: what `fmjax.make_loss_fn` takes beside the network.

    Returns:
        ``predict(x, t, labels)``.
    """
    model = mlp.MLP(width=64, depth=3, conditions=conditions)
    apply_fn, adam = (
        adapters.from_linen(model),
        optax.adam(optax.cosine_decay_schedule(3e-3, steps)),
    )
    loss_fn, draw = make_loss_fn(apply_fn, **loss), Draw() if draw is None else draw
    index = jnp.arange(batch)

    def step(carry, key):
        params, state = carry
        data_key, draw_key = jax.random.split(key)
        x0, x1, labels = sample(data_key, batch)
        grads = jax.grad(loss_fn)(params, *draw(draw_key, index, x1, labels, x0))
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    _, x1, labels = sample(jax.random.key(0), batch)
    params = model.init(jax.random.key(1), x1, jnp.zeros(batch), labels)["params"]
    keys = jax.random.split(jax.random.key(2), steps)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))((params, adam.init(params)))

    def predict(x, t, labels=None):
        return apply_fn(params, x, t, labels)

    return predict


def moons(key, n):
    """Two moons, centred."""
    turn, side, noise = jax.random.split(key, 3)
    angle = jax.random.uniform(turn, (n,), maxval=jnp.pi)
    arc = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    points = jnp.where(jax.random.bernoulli(side, shape=(n, 1)), arc, jnp.array([1.0, 0.5]) - arc)
    return None, 2 * points - jnp.array([1.0, 0.5]) + 0.1 * jax.random.normal(noise, (n, 2)), None


def ring(key, n, modes=8, radius=2.2, spread=0.25):
    """Narrow Gaussians on a circle."""
    which, noise = jax.random.split(key)
    angle = 2 * jnp.pi / modes * jax.random.randint(which, (n,), 0, modes)
    centre = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return None, centre + spread * jax.random.normal(noise, (n, 2)), None


def ways(velocity, x0, labels=None, steps=100):
    """The points (steps + 1, n, 2) of Euler steps from x0."""

    def euler(x, t):
        x = x + velocity(x, jnp.full(len(x), t), labels) / steps
        return x, x

    return jnp.concatenate([x0[None], jax.lax.scan(euler, x0, jnp.arange(steps) / steps)[1]])
