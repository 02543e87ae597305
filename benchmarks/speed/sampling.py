"""Sampling, timed: ``python -m benchmarks.speed.sampling``. Runs that are compared take turns.

- ``guided``: classifier-free guidance, both branches in one call, against the conditional field
  alone, at equal steps; and with guidance in a half of them (``interval``).
- ``diffrax``: our fixed Heun steps against the same steps in a bare `jax.lax.scan`.
- ``cache``: a fresh process until its first samples, with an empty and a warm compilation cache.
- ``peer``: the package torchdiffeq (and with it flow-matching's ODESolver, which calls it), on the
  same weights carried over to torch, where they are installed: the 2-D MLP and the digits' DiT.
- ``images``: guided digits per second.

Times are the least of several repetitions, in seconds. ``--only`` chooses, ``--toy`` is small.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.speed.networks import DIGITS, make_dit, network
from benchmarks.timing import least_seconds, rounded
from fmjax.guidance import Guided, classifier_free
from fmjax.models import dit, mlp
from fmjax.samplers import solve, solver_spec

RESULTS = machine.RESULTS / "sampling.json"
PACKAGES = ("jax", "diffrax", "flax", "torch", "torchdiffeq", "flow-matching")


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
    apply_fn, params, x0, labels = network(make_dit(size["dit"]), size["shape"], batch)
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

    least = least_seconds(
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
        return bare_heun(lambda x, t, y: apply_fn(params, x, t, y), x0, labels, spec.nodes())

    np.testing.assert_allclose(ours(params, x0), bare(params, x0), rtol=1e-3, atol=1e-3)
    least = least_seconds(
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
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from benchmarks.speed.sampling import digits_sampler
digits_sampler(64, 25)()
print(time.perf_counter() - began)
"""


def first_sample() -> dict:
    """Seconds from the start of Python's imports to the first 64 guided digits."""
    with tempfile.TemporaryDirectory() as folder:

        def once() -> float:
            command = [sys.executable, "-c", FIRST, folder]
            out = subprocess.run(
                command, check=True, capture_output=True, text=True, cwd=machine.ROOT
            )
            return float(out.stdout.split()[-1])

        cold, warm = once(), min(once() for _ in range(2))
    return {
        "seconds": {"empty cache": round(cold, 2), "warm cache": round(warm, 2)},
        "cold / warm": round(cold / warm, 2),
    }


def digits_sampler(batch: int, steps: int) -> Callable[[], jax.Array]:
    """Draws guided samples of the digits' DiT by Heun's steps, and waits for them."""
    apply_fn, params, x0, labels = network(make_dit(DIGITS), (8, 8, 1), batch)
    spec = solver_spec("heun", steps)

    @jax.jit
    def sample(params, x0, w):
        velocity = classifier_free(lambda x, t, y: apply_fn(params, x, t, y), 10)
        return solve(velocity, x0, Guided(labels, w), spec).x1

    return lambda: jax.block_until_ready(sample(params, x0, 1.5))


def measure(toy: bool, only: list[str], repeat: int) -> dict:
    """Every part that was asked for."""
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
            name: against_scan(make_dit(size["dit"]), size["shape"], batch, 3, repeat),
            "MLP of width 128": against_scan(mlp.MLP(), (2,), 256, 50, repeat),
        },
        "cache": first_sample,
        "images": lambda: {
            "guided digits per second": round(
                256 / least_seconds(2, run=digits_sampler(256, 25))["run"], 1
            )
        },
    }
    if importlib.util.find_spec("torchdiffeq") is not None:
        from benchmarks.speed.against_torchdiffeq import compare

        parts["peer"] = lambda: compare(16 if toy else 128, 25, repeat)
    return {part: run() for part, run in parts.items() if not only or part in only}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", default=[], help="parts to measure")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--toy", action="store_true", help="small networks only")
    arguments = parser.parse_args()
    measured = measure(arguments.toy, arguments.only, arguments.repeat)
    result = machine.about(PACKAGES, flags=False, device=jax.devices()[0].device_kind)
    if arguments.out.exists() and arguments.only:  # a part measured again replaces itself alone
        result = json.loads(arguments.out.read_text()) | result
    machine.write_json(arguments.out, result | measured)
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
