"""Training steps and guided sampling by fmjax, for train_step.py and sampling_xl.py.

A variant is a list of configuration keys, "model.scan=True model.remat=dots", or "defaults". What
runs is what `train.py` compiles: the step of the configuration, by the layout, its state donated.
"""

import gc
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from benchmarks.machine import versions
from benchmarks.speed.networks import with_noise
from benchmarks.speed.worker import THREADS, Variants, serve
from fmjax.conditions import ClassIds
from fmjax.config import ConfigDict, default_config
from fmjax.data.codecs import Pixels
from fmjax.factory import DataSpec, Experiment, make_experiment
from fmjax.factory.training import make_init, train_step
from fmjax.guidance import Guided, classifier_free
from fmjax.roofline.chips import chip_of
from fmjax.run.allocator import keep_freed_memory
from fmjax.samplers import solve, solver_spec
from fmjax.training.parallelism import make_layout

PACKAGES = ("jax", "jaxlib", "flax", "optax")


def configure(case: dict, name: str) -> ConfigDict:
    """The configuration of a case, with the keys that the variant's name sets."""
    config = default_config()
    model = {k: v for k, v in case["model"].items() if k != "num_classes"}
    config.model.update({"name": "dit", "dtype": case["dtype"], **model})
    config.optimizer.update({"learning_rate": 1e-4, "schedule": "constant", "warmup_steps": 0})
    config.train.batch_size = case["batch"]
    pairs = () if name == "defaults" else (pair.split("=", 1) for pair in name.split())
    for key, value in pairs:
        group, field = key.split(".")
        config[group][field] = {"True": True, "False": False}.get(value, value)
    return config


def experiment_of(case: dict, name: str) -> Experiment:
    """What the configuration stands for."""
    spec = DataSpec(Pixels(tuple(case["shape"])), ClassIds(case["model"]["num_classes"]))
    return make_experiment(configure(case, name), spec)


def batch_of(case: dict) -> dict[str, np.ndarray]:
    """Random uint8 images with labels, as the pipeline gives them."""
    rng, n = np.random.default_rng(0), case["batch"]
    return {
        "x1": rng.integers(256, size=(n, *case["shape"]), dtype=np.uint8),
        "labels": rng.integers(case["model"]["num_classes"], size=n, dtype=np.int32),
        "index": np.arange(n, dtype=np.int32),
    }


def noisy_params(experiment: Experiment) -> dict:
    """Parameters of a DiT whose output is not zero."""

    def init(key: jax.Array) -> dict:
        return with_noise(experiment.init_params(key), jax.random.fold_in(key, 1))

    return jax.jit(init)(jax.random.key(1))


def sampler(case: dict, name: str, params: dict) -> Callable[[int], float]:
    """``run(n) -> rms``: n batches by Euler, guided."""
    experiment = experiment_of(case, name)
    classes = case["model"]["num_classes"]
    labels = jnp.arange(case["batch"]) % classes
    x0 = jnp.asarray(np.load(case["weights"])["x0"])  # PyTorch starts there, too
    spec = solver_spec("euler", case["steps"])

    @jax.jit
    def sample(params, x0, w):
        velocity = classifier_free(
            lambda x, t, y: experiment.apply_fn(params, x, t, y), np.int32(classes)
        )
        return solve(velocity, x0, Guided(labels, w), spec).x1

    def run(n: int) -> float:
        for _ in range(n):
            x = sample(params, x0, case["guidance"])
        return float(jnp.sqrt(jnp.mean(jnp.square(x))))

    return run


class FmjaxVariants(Variants):
    """The variants, compiled when they are asked for."""

    def __init__(self):
        super().__init__()
        self.state, self.params = None, None

    def about(self) -> dict:
        """Versions, the device, and the flags it runs under."""
        device = jax.devices()[0]
        chip = chip_of(device)
        return {
            "device": device.device_kind,
            "platform": device.platform,
            "versions": versions(PACKAGES),
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
            "chip": None if chip is None else chip._asdict(),
        }

    def train(self, name: str, case: dict) -> dict:
        """Compiles a training step and runs it a few times."""
        experiment, layout = experiment_of(case, name), make_layout("jit")
        if self.state is None:  # one for all: a tree of parameters serves every variant
            self.state = layout.init(make_init(experiment), jax.random.key(0))
        key = layout.init(lambda k: jax.random.fold_in(k, 1), jax.random.key(0))
        batch = layout.place(batch_of(case))
        step = train_step(experiment, layout)
        began = time.perf_counter()
        compiled = layout.ahead(step, self.state, key, batch)
        seconds = time.perf_counter() - began

        def run(n: int) -> float:
            for _ in range(n):
                self.state, metrics = compiled(self.state, key, batch)
            return float(metrics["loss"])

        self.ready[name] = run
        memory = compiled.memory_analysis()
        return {
            "loss": run(case["warm"]),
            "compile seconds": round(seconds, 1),
            "temporary bytes": getattr(memory, "temp_size_in_bytes", None),
        }

    def size(self, case: dict) -> dict:
        """Parameters of the network, and operations of training on one image."""
        experiment = experiment_of(case, "defaults")
        params = jax.eval_shape(experiment.init_params, jax.random.key(0))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        return {"parameters": count, "training operations": experiment.flops}

    def sample(self, name: str, case: dict) -> dict:
        """Compiles a sampler and runs it once."""
        if self.params is None:
            self.params = noisy_params(experiment_of(case, name))
        self.ready[name] = sampler(case, name, self.params)
        return {"rms": self.ready[name](1)}

    def export(self, case: dict, weights: str, gradient: bool) -> dict:
        """Writes weights, inputs, and what the network makes of them in float32, to an .npz."""
        experiment = experiment_of(case | {"dtype": "float32"}, "defaults")
        params = noisy_params(experiment)
        keys, n = jax.random.split(jax.random.key(0), 3), min(case["batch"], 4)
        x, goal = (jax.random.normal(k, (n, *case["shape"])) for k in keys[:2])
        t, labels = jax.random.uniform(keys[2], (n,)), jnp.arange(n) % case["model"]["num_classes"]

        def loss(params):
            u = experiment.apply_fn(params, x, t, labels)
            return jnp.mean(jnp.square(u - goal)), u

        with jax.default_matmul_precision("float32"):
            if gradient:
                (_, u), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
                norm = {"grad_norm": optax.tree.norm(grads)}
            else:
                u, norm = jax.jit(loss)(params)[1], {}
        x0 = np.random.default_rng(0).standard_normal((case["batch"], *case["shape"]), np.float32)
        inputs = {"x": x, "t": t, "labels": labels, "goal": goal, "u": u, "x0": x0}
        flat = traverse_util.flatten_dict(params, sep="/")
        np.savez(weights, **norm, **inputs, **flat)
        return {}

    def matmul(self, size: int) -> dict:
        """Operations per second of float32 products (size, size) x (size, size)."""
        a, b = jax.random.normal(jax.random.key(0), (2, size, size))
        product = jax.jit(jnp.matmul)
        return self.multiply(
            size, lambda n: jax.block_until_ready([product(a, b) for _ in range(n)])
        )

    def clear(self) -> dict:
        """Forgets all variants and frees their memory."""
        self.state = self.params = None
        self.ready.clear()
        jax.clear_caches()
        gc.collect()
        return {}


def main() -> None:
    """Serves, on as many threads as are given and with the allocator of the commands."""
    if threads := os.environ.get(THREADS):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    keep_freed_memory()  # before jax starts
    serve(FmjaxVariants())


if __name__ == "__main__":
    main()
