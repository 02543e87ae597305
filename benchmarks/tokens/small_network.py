"""A small network of a few tokens, and its training, in plain jax."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fmjax import Draw, make_loss_fn

Network = Callable[[Any, jax.Array, jax.Array, Any], jax.Array]


def initial(key: jax.Array, inputs: int, width: int, depth: int, outputs: int) -> list:
    """Weights and biases: `depth` hidden layers of one width."""
    sizes = [inputs, *[width] * depth, outputs]
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [(jax.random.normal(k, (n, m)) / n**0.5, jnp.zeros(m)) for k, n, m in pairs]


def layers(params: list, h: jax.Array) -> jax.Array:
    """The network of these weights, with swish between its layers."""
    for w, b in params[:-1]:
        h = jax.nn.swish(h @ w + b[None])
    w, b = params[-1]
    return h @ w + b[None]


def train(
    network: Network,
    params: Any,
    path: Any,
    data: Callable[[jax.Array, int], jax.Array],
    *,
    steps: int,
    batch: int,
    rate: float,
) -> tuple[Any, float]:
    """Adam with a cosine schedule, all steps in one program.

    Args:
        network: ``network(params, x, t, labels)``.
        params: where to start.
        path: what it is trained on, with a source.
        data: ``data(key, n)``, n examples.
        steps: of Adam.
        batch: examples in a step.
        rate: the first learning rate.

    Returns:
        The trained parameters, and the seconds of the steps alone.
    """
    loss_fn = make_loss_fn(network, path)
    draw = Draw(source=path.source, noise=loss_fn.noise, stratify=batch)
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry, key):
        params, state = carry
        data_key, draw_key = jax.random.split(key)
        args = draw(draw_key, jnp.arange(batch), data(data_key, batch))
        grads = jax.grad(loss_fn)(params, *args, noise=args.noise)
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    carry = params, adam.init(params)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[0]).lower(carry).compile()
    start = time.perf_counter()
    params = jax.block_until_ready(run(carry))[0]
    return params, time.perf_counter() - start
