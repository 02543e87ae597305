"""Sampling, timed: ``python benchmarks/sampling.py``. Runs that are compared take turns.

- ``guided``: classifier-free guidance, both branches in one call, against the conditional field
  alone, at equal steps; and with guidance in a half of them (``interval``).
- ``diffrax``: our fixed Heun steps against the same steps in a bare `jax.lax.scan`.
- ``cache``: a fresh process until its first samples, with an empty and a warm compilation cache.
- ``peer``: the package torchdiffeq (and with it flow-matching's ODESolver, which calls it), on the
  same weights carried over to torch, where they are installed: the 2-D MLP and the digits' DiT.
- ``images``: guided digits per second.
- ``large`` (only when it is asked for): 50 guided Euler steps of DiT-XL/2 in bfloat16, fmjax and
  PyTorch taking turns on one device, each in a process of its own (sampling_large.py); ``--torch``
  is the interpreter that has torch, by default this one if it has. For a GPU:
  ``python benchmarks/sampling.py --only large --torch=PYTHON --out=sampling_gpu.json``.

Times are the least of several repetitions, in seconds. ``--only`` chooses, ``--toy`` is small.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.guidance import Guided, classifier_free
from fmjax.models import adapters, dit, mlp
from fmjax.samplers.ode import nodes, solve, solver_spec

from digits import cpu_name
from sampling_large import large

RESULTS = ROOT / "benchmarks" / "results" / "sampling.json"
PACKAGES = ("jax", "diffrax", "flax", "torch", "torchdiffeq", "flow-matching")
DIGITS = {"width": 64, "depth": 4, "heads": 4, "patch_size": 2, "num_classes": 10}


def times(repeat: int, **runs: Callable) -> dict[str, float]:
    """The least time of each run, taken in turns so that a busy machine is busy for all."""
    for run in runs.values():
        run()
    least = dict.fromkeys(runs, np.inf)
    for _ in range(repeat):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - began)
    return least


def network(module, shape: tuple[int, ...], batch: int):
    """A velocity with random weights, points and labels for it; the output layer is not zero."""
    x0 = jax.random.normal(jax.random.key(0), (batch, *shape))
    classes = module.num_classes
    labels = None if classes is None else jnp.arange(batch) % classes
    params = module.init(jax.random.key(1), x0, jnp.zeros(batch), labels)["params"]
    keys = jax.random.split(jax.random.key(2), len(jax.tree.leaves(params)))
    leaves, tree = jax.tree.flatten(params)
    # A fresh DiT outputs zero; noise of the size of its other weights makes it a field.
    noisy = [p + 0.02 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return adapters.from_linen(module), jax.tree.unflatten(tree, noisy), x0, labels


def bare_heun(velocity, x0, labels, times_of):
    """Heun's steps without a library."""
    times_of = jnp.asarray(times_of, x0.dtype)

    def step(x, ends):
        t, h = ends[0], ends[1] - ends[0]
        first = velocity(x, jnp.full(x.shape[:1], t), labels)
        second = velocity(x + h * first, jnp.full(x.shape[:1], ends[1]), labels)
        return x + h / 2 * (first + second), None

    return jax.lax.scan(step, x0, jnp.stack([times_of[:-1], times_of[1:]], axis=1))[0]


def guided(size: dict, batch: int, steps: int, repeat: int) -> dict:
    """Guidance, everywhere and in an interval, against the conditional field."""
    apply_fn, params, x0, labels = network(dit.DiT(**size["dit"]), size["shape"], batch)
    null, spec = size["dit"]["num_classes"], solver_spec("euler", steps)

    @jax.jit
    def plain(params, x0):
        return solve(lambda x, t, y: apply_fn(params, x, t, y), x0, labels, spec).x1

    def with_guidance(interval):
        @jax.jit
        def run(params, x0, w):
            velocity = classifier_free(
                lambda x, t, y: apply_fn(params, x, t, y), null, interval=interval
            )
            return solve(velocity, x0, Guided(labels, w), spec).x1

        return lambda: jax.block_until_ready(run(params, x0, 1.5))

    least = times(
        repeat,
        plain=lambda: jax.block_until_ready(plain(params, x0)),
        guided=with_guidance(None),
        # The times k / steps in the interval are one half of them.
        interval=with_guidance((0.25, 0.75 - 0.5 / steps)),
    )
    return {
        "seconds": rounded(least),
        "guided / plain": round(least["guided"] / least["plain"], 3),
        "interval / plain": round(least["interval"] / least["plain"], 3),
        "batch": batch,
        "steps": steps,
        "solver": "euler",
    }


def against_scan(module, shape, batch: int, steps: int, repeat: int) -> dict:
    """Our solve against a bare scan of the same steps."""
    apply_fn, params, x0, labels = network(module, shape, batch)
    spec = solver_spec("heun", steps)

    @jax.jit
    def ours(params, x0):
        return solve(lambda x, t, y: apply_fn(params, x, t, y), x0, labels, spec).x1

    @jax.jit
    def bare(params, x0):
        return bare_heun(lambda x, t, y: apply_fn(params, x, t, y), x0, labels, nodes(spec))

    np.testing.assert_allclose(ours(params, x0), bare(params, x0), rtol=1e-3, atol=1e-3)
    least = times(
        repeat,
        ours=lambda: jax.block_until_ready(ours(params, x0)),
        scan=lambda: jax.block_until_ready(bare(params, x0)),
    )
    return {
        "seconds": rounded(least),
        "ours / scan": round(least["ours"] / least["scan"], 3),
        "batch": batch,
        "steps": steps,
        "solver": "heun",
    }


FIRST = """
import sys, time
began = time.perf_counter()
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/benchmarks"]
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[2])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
import sampling
run = sampling.digits_sampler(64, 25)[0]
run()
print(time.perf_counter() - began)
"""


def first_sample() -> dict:
    """Seconds from the start of Python's imports to the first 64 guided digits."""
    with tempfile.TemporaryDirectory() as folder:

        def once() -> float:
            command = [sys.executable, "-c", FIRST, str(ROOT), folder]
            out = subprocess.run(command, check=True, capture_output=True, text=True)
            return float(out.stdout.split()[-1])

        cold, warm = once(), min(once() for _ in range(2))
    return {
        "seconds": {"empty cache": round(cold, 2), "warm cache": round(warm, 2)},
        "cold / warm": round(cold / warm, 2),
    }


def digits_sampler(batch: int, steps: int) -> tuple[Callable, Callable, dict, jax.Array, jax.Array]:
    """A guided sampler of the digits' DiT: how to run it, its network and its inputs."""
    apply_fn, params, x0, labels = network(dit.DiT(**DIGITS), (8, 8, 1), batch)
    spec = solver_spec("heun", steps)

    @jax.jit
    def sample(params, x0, w):
        velocity = classifier_free(lambda x, t, y: apply_fn(params, x, t, y), 10)
        return solve(velocity, x0, Guided(labels, w), spec).x1

    return (
        lambda: jax.block_until_ready(sample(params, x0, 1.5)),
        lambda: sample(params, x0, 1.5),
        params,
        x0,
        labels,
    )


def peers(batch: int, steps: int, repeat: int) -> dict:
    """torchdiffeq on the same weights: the MLP without guidance, the DiT with it."""
    import torch
    from torchdiffeq import odeint

    from sampling_torch import TorchDiT, TorchMLP

    found = {}
    module = mlp.MLP(width=128, depth=3)
    apply_fn, params, x0, _ = network(module, (2,), 16 * batch)
    spec, times_of = solver_spec("midpoint", steps), torch.linspace(0, 1, steps + 1)
    run = jax.jit(
        lambda params, x0: solve(lambda x, t, y: apply_fn(params, x, t, y), x0, None, spec).x1
    )
    theirs, start = TorchMLP(params, module), torch.tensor(np.asarray(x0))

    def torch_mlp():
        with torch.inference_mode():
            return odeint(theirs, start, times_of, method="midpoint")[-1]

    found["mlp"] = compare_with_torch(lambda: run(params, x0), torch_mlp, repeat)
    found["mlp"] |= {"points": len(x0), "steps": steps, "solver": "midpoint"}

    apply_fn, params, x0, labels = network(dit.DiT(**DIGITS), (8, 8, 1), batch)

    @jax.jit
    def guided_digits(params, x0):
        velocity = classifier_free(lambda x, t, y: apply_fn(params, x, t, y), 10)
        return solve(velocity, x0, Guided(labels, 1.5), spec).x1

    theirs = TorchDiT(params, dit.DiT(**DIGITS), (8, 8, 1), np.asarray(labels), scale=1.5)
    start = torch.tensor(np.asarray(x0))

    def torch_dit():
        with torch.inference_mode():
            return odeint(theirs, start, times_of, method="midpoint")[-1]

    found["digits"] = compare_with_torch(lambda: guided_digits(params, x0), torch_dit, repeat)
    found["digits"] |= {"images": batch, "steps": steps, "solver": "midpoint", "guidance": 1.5}
    return found


def compare_with_torch(ours: Callable, theirs: Callable, repeat: int) -> dict:
    """Both give the same points; then both are timed."""
    np.testing.assert_allclose(ours(), theirs().numpy(), rtol=1e-2, atol=1e-3)
    least = times(repeat, fmjax=lambda: jax.block_until_ready(ours()), torch=theirs)
    return {"seconds": rounded(least), "torch / fmjax": round(least["torch"] / least["fmjax"], 2)}


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    """To a hundredth of a millisecond."""
    return {name: round(value, 5) for name, value in seconds.items()}


def measure(toy: bool, only: list[str], repeat: int) -> dict:
    """Every part that was asked for, but the large one."""
    s2 = {"dit": dit.PRESETS["DiT-S/2"] | {"num_classes": 10}, "shape": (32, 32, 4)}
    small = {"dit": DIGITS, "shape": (8, 8, 1)}
    size, batch, steps = (small, 4, 4) if toy else (s2, 4, 4)
    name = "digits' DiT" if toy else "DiT-S/2"
    parts = {
        "guided": lambda: (
            {name: guided(size, batch, steps, repeat)}
            | {"digits' DiT": guided(small, 64, 24, repeat)}
        ),
        "diffrax": lambda: {
            name: against_scan(dit.DiT(**size["dit"]), size["shape"], batch, 3, repeat),
            "MLP of width 128": against_scan(mlp.MLP(), (2,), 256, 50, repeat),
        },
        "cache": first_sample,
        "images": lambda: {
            "guided digits per second": round(
                256 / times(2, run=digits_sampler(256, 25)[0])["run"], 1
            )
        },
        "peer": lambda: peers(16 if toy else 128, 25, repeat),
    }
    if importlib.util.find_spec("torchdiffeq") is None:
        del parts["peer"]
    return {part: run() for part, run in parts.items() if not only or part in only}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", default=[], help="parts to measure")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--toy", action="store_true", help="small networks only")
    has_torch = importlib.util.find_spec("torch") is not None
    python = sys.executable if has_torch else None
    parser.add_argument("--torch", default=python, metavar="PYTHON", help="of the large part")
    parser.add_argument("--batch", type=int, default=64, help="images, of the large part")
    arguments = parser.parse_args()
    measured = {}
    if "large" in arguments.only:  # first: this process has not yet taken the GPU's memory
        size = arguments.toy, arguments.torch, arguments.batch, arguments.repeat
        measured["large"] = large(*size)
    result = {
        "command": "python benchmarks/sampling.py",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {cpu_name()}, {jax.devices()[0].device_kind}",
        "versions": {
            name: importlib.metadata.version(name)
            for name in PACKAGES
            if importlib.util.find_spec(name.replace("-", "_"))
        },
    }
    measured |= measure(arguments.toy, arguments.only, arguments.repeat)
    if arguments.out.exists() and arguments.only:  # a part measured again replaces itself alone
        result = json.loads(arguments.out.read_text()) | result
    result |= measured
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
