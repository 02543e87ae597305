"""Pairing a batch by optimal transport, timed: ``python -m benchmarks.pairing``.

From two point clouds to x0 in its new order, the cost matrix included, all on one core and on the
same float32 arrays:

- ``exact``: `fmjax.couplings.exact` compiled, as it runs inside a training step;
- ``host_exact``: `fmjax.couplings.host_exact`, numpy and scipy, as a data thread runs it;
- ``sinkhorn``: `fmjax.couplings.schroedinger_bridge(1.0)` compiled, epsilon 2, which samples;
- ``scipy``: ``cdist`` and ``linear_sum_assignment``, nothing else;
- ``pot``: ``ot.dist`` and ``ot.emd``, as torchcfm pairs, with enough iterations to end.

The figure is the least of several runs in milliseconds: of the wall clock, and of the process's
own CPU time, which other work on the machine disturbs less; ratios are of the latter. ``cost`` is
the total squared distance of the pairs over that of POT's plan.
"""

import argparse
import os
import time
from pathlib import Path

import jax
import numpy as np
import ot
import threadpoolctl
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from benchmarks import machine
from benchmarks.timing import interleave, rounds_of
from fmjax.couplings import exact, host_exact, schroedinger_bridge

RESULTS = machine.RESULTS / "pairing.json"
PACKAGES = ("jax", "numpy", "scipy", "ott-jax", "POT")


def clouds(task: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Source and data (n, features), float32."""
    rng = np.random.default_rng(n)
    if task == "normal to normal, 64-D":
        return tuple(rng.normal(size=(2, n, 64)).astype(np.float32))
    x0 = rng.normal(size=(n, 2))
    x1 = rng.normal(size=(n, 2))
    if task == "normal to 8 gaussians, 2-D":
        angle = rng.integers(0, 8, n) * np.pi / 4
        x1 += 5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x0.astype(np.float32), x1.astype(np.float32)


TASKS = ("normal to 8 gaussians, 2-D", "normal to normal, 2-D", "normal to normal, 64-D")


def compiled(coupling):
    """A coupling as a function of numpy arrays, compiled once per size."""
    program = jax.jit(lambda x0, x1: coupling(jax.random.key(0), x0, x1)[0])
    return lambda x0, x1: np.asarray(program(x0, x1))


def by_scipy(x0, x1):
    """The plain assignment."""
    return x0[linear_sum_assignment(cdist(x1, x0, "sqeuclidean"))[1]]


def by_pot(x0, x1):
    """POT's network simplex; the plan of equal weights is a permutation."""
    uniform = np.full(len(x0), 1 / len(x0))
    plan = ot.emd(uniform, uniform, ot.dist(x0, x1).astype(np.float64), numItermax=10_000_000)
    return x0[np.argmax(plan, axis=0)]


METHODS = {
    "exact": compiled(exact()),
    "host_exact": host_exact,
    "sinkhorn": compiled(schroedinger_bridge(1.0)),
    "scipy": by_scipy,
    "pot": by_pot,
}


def use_one_core() -> None:
    """Binds this process to one core of the CPU, jax and the libraries below numpy included."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    threadpoolctl.threadpool_limits(1)
    jax.config.update("jax_platforms", "cpu")


def least_times(x0, x1, seconds: float) -> dict[str, tuple[float, float]]:
    """Least wall and CPU time of each method, in milliseconds."""

    def timed(pair) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        pair(x0, x1)
        return time.perf_counter() - wall, time.process_time() - cpu

    runs = {method: lambda pair=pair: timed(pair) for method, pair in METHODS.items()}
    found = interleave(runs, rounds_of(seconds))
    return {method: tuple(1e3 * np.min(times, axis=0)) for method, times in found.items()}


def measure(sizes: list[int], seconds: float) -> list[dict]:
    """One row for each task, size and method."""
    rows = []
    for task in TASKS:
        for n in sizes:
            x0, x1 = clouds(task, n)
            costs = {  # compiles
                method: np.square(pair(x0, x1).astype(np.float64) - x1).sum()
                for method, pair in METHODS.items()
            }
            times = least_times(x0, x1, seconds)
            for method, (wall, cpu) in times.items():
                row = {
                    "task": task,
                    "n": n,
                    "method": method,
                    "wall_ms": float(f"{wall:.4g}"),
                    "cpu_ms": float(f"{cpu:.4g}"),
                    "times_as_fast_as_pot": round(times["pot"][1] / cpu, 2),
                    "cost": costs[method] / costs["pot"],
                }
                rows.append(row)
                print(*row.values(), sep="  ", flush=True)
    return rows


def main() -> None:
    """Measures, prints and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 512, 2048])
    parser.add_argument("--seconds", type=float, default=8.0, help="per task and size")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    use_one_core()
    record = machine.about(PACKAGES, cores=1) | {
        "sizes": args.sizes,
        "rows": measure(args.sizes, args.seconds),
    }
    machine.write_json(args.out, record)


if __name__ == "__main__":
    main()
