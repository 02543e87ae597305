"""Times the fmjax of one checkout: its import, a training step, guided sampling; for checkouts.py.

Run as a file of its own with PYTHONPATH set to the checkout, which may be an older one: nothing of
this repository but fmjax is imported, and what has moved in fmjax is looked up in `PLACES`. Prints
the seconds as one line of JSON.
"""

import importlib
import inspect
import json
import os
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

PLACES = {  # newest first
    "keep_freed_memory": ("fmjax.run.allocator", "fmjax.run.memory"),
    "DataSpec": ("fmjax.factory", "fmjax.build"),
    "make_experiment": ("fmjax.factory", "fmjax.build"),
    "make_layout": ("fmjax.training.parallelism", "fmjax.training.parallel"),
    "make_init": ("fmjax.factory.training", "fmjax.run.ready"),
    "train_step": ("fmjax.factory.training", "fmjax.run.ready"),
    "make_sample_fn": ("fmjax.run.sample.sampler", "fmjax.run.sampling"),
    "Recipe": ("fmjax.factory", "fmjax.build"),
    "Guidance": ("fmjax.factory", "fmjax.build"),
    "solver_spec": ("fmjax.samplers", "fmjax.samplers.ode"),
}
SHAPE, CLASSES, SAMPLES, HEUN_STEPS, SCALE = (8, 8, 1), 10, 100, 25, 1.5


def find(name: str) -> Any:
    """An object of fmjax, from the first of its places that this checkout has.

    Raises:
        SystemExit: it has none of them.
    """
    for module in PLACES[name]:
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise SystemExit(f"{name} is in none of {', '.join(PLACES[name])}: add its place to PLACES.")


def data_spec() -> Any:
    """What a model knows of the digits; older checkouts knew neither codecs nor conditions."""
    try:
        from fmjax.conditions import ClassIds
        from fmjax.data.codecs import Pixels
    except ModuleNotFoundError:
        return find("DataSpec")(SHAPE, CLASSES)
    return find("DataSpec")(Pixels(SHAPE), ClassIds(CLASSES))


def median_seconds(name: str, run: Callable[[], Any], repeat: int) -> dict[str, float]:
    """Medians of the time and of the CPU time of a call, after two that compile and warm up."""
    times = []
    for _ in range(repeat + 2):
        began, worked = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        times.append((time.perf_counter() - began, time.process_time() - worked))
    wall, cpu = map(statistics.median, zip(*times[2:], strict=True))
    return {name: wall, f"{name}, CPU time": cpu}


def training_step(config: Any, experiment: Any, repeat: int) -> dict[str, float]:
    """Seconds of a training step of the digits' DiT."""
    layout, rng, n = find("make_layout")("jit"), np.random.default_rng(0), config.train.batch_size
    examples = {
        "x1": rng.integers(256, size=(n, *SHAPE), dtype=np.uint8),
        "labels": rng.integers(CLASSES, size=n, dtype=np.int32),
        "index": np.arange(n, dtype=np.int32),
    }
    state = layout.init(find("make_init")(experiment), jax.random.key(0))
    key = layout.init(lambda key: jax.random.fold_in(key, 1), jax.random.key(0))
    batch = layout.place(examples)
    train_step = find("train_step")
    older = "config" in inspect.signature(train_step).parameters
    made = train_step(*((config,) if older else ()), experiment, layout)
    step = layout.ahead(made, state, key, batch)

    def run():
        nonlocal state  # it is donated
        state, metrics = step(state, key, batch)
        return metrics["loss"]

    return median_seconds("training step", run, repeat)


def guided_sampling(experiment: Any, repeat: int) -> dict[str, float]:
    """Seconds of 100 guided digits by 25 Heun steps."""
    recipe = find("Recipe")(find("solver_spec")("heun", HEUN_STEPS), find("Guidance")())
    layout = find("make_layout")("jit")
    sample = find("make_sample_fn")(experiment, recipe, layout.mesh)
    params = layout.init(find("make_init")(experiment), jax.random.key(0)).params
    index = np.arange(SAMPLES, dtype=np.int32)
    given = index, index % CLASSES, np.full(SAMPLES, SCALE, np.float32)
    key = jax.random.key(0)
    return median_seconds("guided sampling", lambda: sample(params, key, *given), repeat)


def main() -> None:
    """Measures all three; the arguments are the repetitions of the step and of the sampling."""
    began = time.perf_counter()
    fmjax = importlib.import_module("fmjax")
    seconds = {"import fmjax": time.perf_counter() - began}
    checkout = Path(os.environ["PYTHONPATH"])
    if Path(fmjax.__file__).parents[1] != checkout:
        raise SystemExit(f"{checkout} holds no fmjax: {fmjax.__file__} was imported.")
    find("keep_freed_memory")()  # as train.py and sample.py do, before jax starts
    config = runpy.run_path(str(checkout / "configs" / "digits.py"))["get_config"]()
    experiment = find("make_experiment")(config, data_spec())
    steps, samplings = map(int, sys.argv[1:])
    seconds |= training_step(config, experiment, steps)
    seconds |= guided_sampling(experiment, samplings)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
