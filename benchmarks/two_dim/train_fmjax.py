"""The 2-D table by fmjax: many steps in one dispatch, the seeds spread over the CPU devices."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.two_dim import protocol
from benchmarks.two_dim.protocol import METHODS, Pairs
from benchmarks.two_dim.runner import EulerPath, Library
from fmjax import couplings, paths
from fmjax.draws import Draw
from fmjax.losses import make_loss_fn
from fmjax.metrics.trajectory import PathStatistics, path_statistics
from fmjax.schedules import Cosine, Linear

STEPS_PER_DISPATCH = 250


class Recipe(NamedTuple):
    """A path, and how its pairs are made, in the compiled step."""

    path: paths.Path
    coupling: couplings.Coupling = couplings.independent


_NOISY = paths.NoisyStraight(protocol.SIGMA)
_BRIDGE = paths.BrownianBridge(protocol.BRIDGE_SIGMA)
RECIPES = {
    "FM": Recipe(paths.AffinePath(Linear(protocol.SIGMA))),
    "I-CFM": Recipe(_NOISY),
    "OT-CFM": Recipe(_NOISY, couplings.exact()),
    "SB-CFM": Recipe(_BRIDGE, couplings.schroedinger_bridge(protocol.BRIDGE_SIGMA)),
    "VP": Recipe(paths.AffinePath(Cosine())),
    "1-RF": Recipe(paths.AffinePath()),
    "2-RF": Recipe(paths.AffinePath()),
}
OPTIMIZER = optax.adamw(protocol.LEARNING_RATE, weight_decay=protocol.WEIGHT_DECAY)


def init(key: jax.Array) -> list:
    """Parameters as torch.nn.Linear draws them: uniform in +-1 / sqrt(fan in)."""
    widths = [3, *[protocol.WIDTH] * protocol.HIDDEN_LAYERS, 2]
    layers = []
    for k, (before, after) in enumerate(itertools.pairwise(widths)):
        keys = jax.random.split(jax.random.fold_in(key, k))
        draw = partial(jax.random.uniform, minval=-(before**-0.5), maxval=before**-0.5)
        layers.append((draw(keys[0], (before, after)), draw(keys[1], (after,))))
    return layers


def selu(x: jax.Array) -> jax.Array:
    """SELU (arXiv:1706.02515), by exp: expm1, as in jax.nn.selu, takes a third of a step on a CPU.

    The two differ by the rounding of 1 + x, 6e-8.
    """
    negative = 1.6732632423543772 * (jnp.exp(jnp.minimum(x, 0.0)) - 1.0)
    return 1.0507009873554805 * jnp.where(x > 0, x, negative)


def apply_fn(params: list, x: jax.Array, t: jax.Array, labels: None = None) -> jax.Array:
    """The network of the protocol: [x, t] through three hidden layers of 64, SELU."""
    h = jnp.concatenate([x, t[:, None]], axis=-1)
    for weight, bias in params[:-1]:
        h = selu(h @ weight + bias[None])
    return h @ params[-1][0] + params[-1][1][None]


def make_chunk(method: str) -> Callable:
    """``chunk(state, key, x0, x1)``: a step for each row of x0 and x1 (steps, batch, 2)."""
    recipe = RECIPES[method]
    loss_fn = make_loss_fn(apply_fn, recipe.path)
    draw = Draw(coupling=recipe.coupling, noise=loss_fn.noise)
    index = jnp.arange(METHODS[method].batch)

    def step(state, given):
        params, opt_state = state
        args = draw(given[0], index, given[2], None, given[1])
        grads = jax.grad(loss_fn)(params, *args, noise=args.noise)
        updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    @partial(jax.jit, donate_argnums=0)
    def chunk(state, key, x0, x1):
        return jax.lax.scan(step, state, (jax.random.split(key, len(x0)), x0, x1))[0]

    return chunk


def _data(method: str, pairs: Pairs, seed: int, steps: int) -> Iterator[tuple]:
    """(x0, x1), each (steps of a dispatch, batch, 2), made by threads two dispatches ahead."""
    rng = np.random.default_rng(seed)
    batch = METHODS[method].batch
    sizes = [STEPS_PER_DISPATCH] * (steps // STEPS_PER_DISPATCH)
    sizes += [steps % STEPS_PER_DISPATCH] if steps % STEPS_PER_DISPATCH else []

    def make(rng, size):
        return tuple(x.reshape(size, batch, 2) for x in pairs(rng, size * batch))

    with ThreadPoolExecutor(2) as pool:
        waiting = []
        for generator, size in zip(rng.spawn(len(sizes)), sizes, strict=True):
            waiting.append(pool.submit(make, generator, size))
            if len(waiting) > 2:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def train(method: str, pairs: dict[int, Pairs], steps: int) -> tuple[dict[int, list], float]:
    """Trains one flow for each seed at the same time; their parameters, and the seconds of all."""
    began = time.perf_counter()
    devices = dict(zip(pairs, itertools.cycle(jax.devices()), strict=False))
    chunk, states, keys = make_chunk(method), {}, {}
    for seed, device in devices.items():
        params = init(jax.random.key(seed))
        states[seed] = jax.device_put((params, OPTIMIZER.init(params)), device)
        keys[seed] = jax.device_put(jax.random.fold_in(jax.random.key(seed), 1), device)
    streams = {seed: _data(method, pairs[seed], seed, steps) for seed in pairs}
    for k in range(-(-steps // STEPS_PER_DISPATCH)):
        for seed, device in devices.items():
            data = jax.device_put(next(streams[seed]), device)
            states[seed] = chunk(states[seed], jax.random.fold_in(keys[seed], k), *data)
    jax.block_until_ready(states)
    return {seed: state[0] for seed, state in states.items()}, time.perf_counter() - began


@partial(jax.jit, static_argnames="steps")
def _statistics(params: list, x0: jax.Array, steps: int) -> PathStatistics:
    return path_statistics(partial(apply_fn, params), x0, None, steps)


def solve(params: list, x0: np.ndarray, steps: int) -> EulerPath:
    """The flow's path from x0 by Euler steps; see `fmjax.metrics.trajectory`."""
    found = jax.device_get(_statistics(params, x0, steps))
    return EulerPath(found.x1, found.one_step, float(np.mean(found.energy)))


LIBRARY = Library("fmjax", train, solve)
