"""Training steps of a flow on the sphere by fmjax, for sphere_speed.py.

A variant is "sphere WIDTH", or "flat WIDTH": the same network and the straight path in R^3.
"""

import itertools
import os

import jax
import jax.numpy as jnp
import optax

from benchmarks.machine import versions
from benchmarks.speed.worker import THREADS, Variants, serve
from fmjax.draws import Draw
from fmjax.losses import make_loss_fn
from fmjax.manifolds import Sphere, UniformOn, in_tangent_space
from fmjax.paths import GeodesicPath
from fmjax.run.allocator import keep_freed_memory
from fmjax.sources import StandardNormal

BATCH, DEPTH = 512, 5


def _init(key: jax.Array, width: int) -> list[tuple[jax.Array, jax.Array]]:
    sizes = [4, *[width] * DEPTH, 3]
    return [
        (
            jax.random.normal(jax.random.fold_in(key, k), (a, b)) / a**0.5,
            jnp.zeros(b),
        )
        for k, (a, b) in enumerate(itertools.pairwise(sizes))
    ]


def _network(params, x, t, labels=None):
    """A perceptron of x and t with the activation x sigmoid(x)."""
    h = jnp.concatenate([x, t[:, None]], axis=1)
    for kernel, bias in params[:-1]:
        h = jax.nn.silu(h @ kernel + bias)
    return h @ params[-1][0] + params[-1][1]


def _run(space: str, width: int):
    """``run(n)``: n training steps, each on points drawn anew from the data."""
    sphere, optimizer = Sphere(2), optax.adam(1e-3)
    if space == "sphere":
        loss_fn = make_loss_fn(in_tangent_space(_network, sphere), GeodesicPath(sphere))
        draw = Draw(source=UniformOn(sphere))
    else:
        loss_fn, draw = make_loss_fn(_network), Draw(source=StandardNormal())
    x1 = sphere.wrapped_normal(jax.random.key(1), jnp.tile(sphere.origin, (BATCH, 1)), 0.3)

    @jax.jit
    def step(state, key):
        params, moments, number = state
        args = draw(jax.random.fold_in(key, number), jnp.arange(BATCH), x1)
        loss, grads = jax.value_and_grad(loss_fn)(params, *args)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments, number + 1), loss

    params = _init(jax.random.key(0), width)
    state, key = (params, optimizer.init(params), jnp.int32(0)), jax.random.key(2)

    def run(n: int) -> float:
        nonlocal state
        for _ in range(n):
            state, loss = step(state, key)
        return float(loss)

    return run


class Served(Variants):
    """fmjax's steps."""

    def about(self) -> dict:
        """Versions and threads."""
        return {
            "versions": versions(("jax", "jaxlib", "optax")),
            "threads": int(os.environ.get(THREADS, 0)),
        }

    def prepare(self, name: str) -> dict:
        """Compiles a variant, and says its loss after 200 steps."""
        space, width = name.split()
        self.ready[name] = _run(space, int(width))
        return {"loss": self.ready[name](200)}


if __name__ == "__main__":
    if threads := os.environ.get(THREADS):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    keep_freed_memory()  # before jax starts, as the commands do
    serve(Served())
