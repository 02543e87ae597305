"""Forward passes and training steps of published networks by fmjax, for published.py."""

import gc
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.machine import versions
from benchmarks.speed.worker import THREADS, Variants, serve
from fmjax.conditions import ClassIds
from fmjax.models import dit, flux, mmdit, unet
from fmjax.models.autoencoders.tiny import TinyAutoencoder
from fmjax.run.allocator import keep_freed_memory

PACKAGES = ("jax", "jaxlib", "flax", "optax")
SIDE, PLACES = 16, 77  # of latents and of a text


class Network(NamedTuple):
    """``apply(params, *inputs)``, its parameters, and inputs of a batch."""

    apply: Callable[..., jax.Array]
    params: Any
    inputs: tuple


def _normal(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(len(shape)), shape)


def _of(model: Any, *inputs: Any) -> Network:
    params = jax.jit(model.init)(jax.random.key(0), *inputs)["params"]
    return Network(lambda p, *given: model.apply({"params": p}, *given), params, inputs)


def _dit(batch: int) -> Network:
    model = dit.preset("DiT-S/2", conditions=ClassIds(1000))
    return _of(model, _normal(batch, 32, 32, 4), jnp.full(batch, 0.5), jnp.arange(batch))


def _unet(batch: int) -> Network:
    model = unet.preset("UNet-CIFAR10/torchcfm")
    return _of(model, _normal(batch, 32, 32, 3), jnp.full(batch, 0.5))


def _text(model: Any, batch: int) -> Network:
    pooled = _normal(batch, model.pooled_size)
    labels = {"text": _normal(batch, PLACES, model.text_size), "pooled": pooled}
    return _of(model, _normal(batch, SIDE, SIDE, 16), jnp.full(batch, 0.5), labels)


def _mmdit(batch: int) -> Network:
    network = _text(mmdit.preset("SD3-medium", depth=2), batch)
    positions = network.params.pop("positions")  # fixed: no parameter in PyTorch

    def apply(params: Any, *inputs: Any) -> jax.Array:
        return network.apply(params | {"positions": positions}, *inputs)

    return network._replace(apply=apply)


def _flux(batch: int) -> Network:
    sizes = {"width": 320, "heads": 5, "axes": flux.usual_axes(64)}
    return _text(flux.preset("FLUX.1-schnell", **sizes, scan=True), batch)


def _decoder(batch: int) -> Network:
    model = TinyAutoencoder(32, pooled=True)
    z = _normal(batch, SIDE, SIDE, 32)
    params = jax.jit(lambda k: model.init(k, z, method="decode"))(jax.random.key(0))["params"]
    return Network(lambda p, z: model.apply({"params": p}, z, method="decode"), params, (z,))


NETWORKS = {
    "DiT-S/2": _dit,
    "U-Net, CIFAR-10": _unet,
    "MM-DiT, 2 layers": _mmdit,
    "FLUX/10": _flux,
    "TAEF2": _decoder,
}


class Published(Variants):
    """What is compiled when it is asked for."""

    def about(self) -> dict:
        """Versions and the device."""
        return {"device": jax.devices()[0].device_kind, "versions": versions(PACKAGES)}

    def prepare(self, network: str, batch: int, work: str) -> dict:
        """Compiles a forward pass or a training step, and runs it once."""
        made = NETWORKS[network](batch)
        count = sum(leaf.size for leaf in jax.tree.leaves(made.params))
        began = time.perf_counter()
        self.ready[work] = _forward(made) if work == "forward" else _step(made)
        self.ready[work](1)
        return {"parameters": count, "compile seconds": time.perf_counter() - began}

    def clear(self) -> dict:
        """Forgets it."""
        self.ready.clear()
        jax.clear_caches()
        gc.collect()
        return {}


def _forward(network: Network) -> Callable[[int], None]:
    apply = jax.jit(network.apply)

    def run(n: int) -> None:
        for _ in range(n):
            jax.block_until_ready(apply(network.params, *network.inputs))

    return run


def _step(network: Network) -> Callable[[int], None]:
    optimizer = optax.adamw(1e-4, b2=0.99, weight_decay=0.0)

    def step(state: tuple, *inputs: Any) -> tuple:
        params, moments = state
        gradient = jax.grad(lambda p: jnp.mean(jnp.square(network.apply(p, *inputs) - 1)))(params)
        updates, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments

    compiled = jax.jit(step, donate_argnums=0)
    state = [(network.params, jax.jit(optimizer.init)(network.params))]

    def run(n: int) -> None:
        for _ in range(n):
            state.append(jax.block_until_ready(compiled(state.pop(), *network.inputs)))

    return run


def main() -> None:
    """Serves, on as many threads as are given and with the allocator of the commands."""
    if threads := os.environ.get(THREADS):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    keep_freed_memory()  # before jax starts
    serve(Published())


if __name__ == "__main__":
    main()
