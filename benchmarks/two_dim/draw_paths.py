"""The learned paths of the 2-D table: ``python -m benchmarks.two_dim.draw_paths``.

Trains each method on one task for a fifth of the table's steps (seed 42) and draws the paths of 200
points into docs/two_dim_paths.png. Needs matplotlib.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from benchmarks.machine import ROOT
from benchmarks.two_dim.protocol import EULER_STEPS, METHODS, TASKS, test_points
from benchmarks.two_dim.runner import Runner
from benchmarks.two_dim.train_fmjax import LIBRARY, apply_fn

SEED, SHARE, POINTS = 42, 0.2, 200
SOURCE, TARGET, LINE = "#1f77b4", "#d62728", "#888888"


@jax.jit
def trajectory(params: list, x0: jax.Array) -> jax.Array:
    """The points (100 + 1, n, 2) of Euler steps from x0 (n, 2)."""

    def step(x, k):
        t = jax.numpy.full(len(x), k / EULER_STEPS)
        return x + apply_fn(params, x, t) / EULER_STEPS, x

    last, points = jax.lax.scan(step, x0, jax.numpy.arange(EULER_STEPS))
    return jax.numpy.concatenate([points, last[None]])


def main() -> None:
    """Trains, draws, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="N -> moons", choices=TASKS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "two_dim_paths.png")
    options = parser.parse_args()
    runner, source = Runner(LIBRARY), test_points(options.task)[0][:POINTS]
    figure = Figure(figsize=(2.2 * len(METHODS), 2.6))
    axes = figure.subplots(1, len(METHODS))
    for axis, (method, settings) in zip(axes, METHODS.items(), strict=True):
        trained, _ = runner.train(method, options.task, [SEED], int(SHARE * settings.steps))
        paths = np.asarray(trajectory(trained[SEED], source))
        axis.plot(*np.moveaxis(paths, 2, 0), color=LINE, linewidth=0.3, alpha=0.6)
        axis.scatter(*paths[0].T, s=2, color=SOURCE, zorder=2)
        axis.scatter(*paths[-1].T, s=2, color=TARGET, zorder=3)
        axis.set_title(method)
        axis.set_aspect("equal")
        axis.set_axis_off()
    figure.tight_layout(pad=0.3)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
