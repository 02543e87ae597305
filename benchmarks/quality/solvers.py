"""Quality against evaluations on the trained digits: ``python -m benchmarks.quality.solvers``.

Takes a trained run (``python train.py --config=configs/digits.py``) and draws the same 1,000 guided
samples (w = 1.5), from the same noise, with each solver on its best grid and several budgets:

- ``frechet``: the squared Frechet distance of the samples to one half of the training images in 32
  PCA dimensions, as the evaluation of a run measures it (the other half: ``real_halves``);
- ``rmse``: the root mean square distance per pixel, in [-1, 1], to the exact flow (200 steps of
  dopri5), which tells the error of the solver from that of the network.

Evaluations are those of the velocity; under guidance each is two of the network, in one call.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.quality.trained_run import open_run
from fmjax.data import pixels
from fmjax.metrics.frechet import fit_pca, frechet_distance
from fmjax.samplers import SOLVERS, solver_spec
from fmjax.sources import StandardNormal

RESULTS = machine.RESULTS / "solvers.json"
NUM, BATCH, SCALE = 1000, 250, 1.5
COST = {"heun": 2, "midpoint": 2, "rk4": 4, "tsit5": 6}  # evaluations of a step; others take one
NAMES = (
    *("euler", "heun", "midpoint", "rk4", "tsit5"),
    *("ab2", "ab3", "dpmpp_2m", "unipc", "unipc_interpolated"),
)
GRIDS = {
    "uniform": {},
    "cosine": {"grid": "cosine"},
    "beta": {"grid": "beta"},
    "edm": {"grid": "edm"},
    "exponential": {"grid": "exponential"},
    "karras": {"grid": "karras"},
    "shift 0.5": {"shift": 0.5},
    "shift 2": {"shift": 2.0},
}
BUDGETS = (6, 8, 12, 16, 20, 24, 32, 48)
TRIAL = 12  # evaluations at which the grid of each solver is chosen


class Bench:
    """The trained flow, its noise, and what its samples are compared with."""

    def __init__(self, workdir: Path):
        self.run = open_run(workdir)
        self.index = jnp.arange(NUM)
        self.labels = self.index % 10
        shape = self.run.flow.experiment.spec.shape
        self.x0 = StandardNormal().sample(jax.random.key(0), self.index, shape)
        train = self.run.training_set()[0]
        order = np.random.default_rng(0).permutation(len(train))
        n = min(len(train) // 2, NUM)
        self.features = fit_pca(train, 32)
        self.n, self.half, other = n, train[order[:n]], train[order[n : 2 * n]]
        self.floor = self._frechet(other)
        self.exact = self.draw(solver_spec("dopri5", 200))[0]

    def draw(self, spec) -> tuple[np.ndarray, int]:
        """The samples in [-1, 1], and the evaluations made."""
        sample = self.run.guided_sampler(spec)
        w, parts = jnp.full(BATCH, SCALE), []
        for start in range(0, NUM, BATCH):
            rows = slice(start, start + BATCH)
            given = (self.x0[rows], jax.random.key(0), self.index[rows], self.labels[rows], w)
            parts.append(sample(*given))
        assert all(bool(part.success.all()) for part in parts)
        return np.concatenate([part.x1 for part in parts]), int(parts[0].nfe[0])

    def measure(self, solver: str, budget: int, grid: str) -> dict | None:
        """The figures of one solve, None for a budget that the solver cannot spend."""
        steps = budget // COST.get(solver, 1)
        if steps < SOLVERS[solver].min_steps:
            return None
        x1, nfe = self.draw(solver_spec(solver, steps, **GRIDS[grid]))
        return {
            "solver": solver,
            "grid": grid,
            "steps": steps,
            "nfe": nfe,
            "frechet": round(self._frechet(np.asarray(pixels.to_pixels(jnp.asarray(x1)))), 1),
            "rmse": round(float(np.sqrt(np.mean((x1 - self.exact) ** 2))), 5),
        }

    def _frechet(self, images: np.ndarray) -> float:
        return float(frechet_distance(self.features(images[: self.n]), self.features(self.half)))


def measure(workdir: Path, budgets: tuple[int, ...], names: tuple[str, ...]) -> dict:
    """Every solver on each grid at one budget, and on its best one at all of them."""
    bench, trials, curves = Bench(workdir), [], {}
    converged = bench._frechet(np.asarray(pixels.to_pixels(jnp.asarray(bench.exact))))
    for solver in names:
        here = [bench.measure(solver, TRIAL, grid) for grid in GRIDS]
        trials += here
        best = min(here, key=lambda row: row["rmse"])["grid"]
        curves[solver] = [row for budget in budgets if (row := bench.measure(solver, budget, best))]
        for row in curves[solver]:
            print(json.dumps(row), flush=True)
    return machine.about(device=jax.devices()[0].device_kind) | {
        "samples": NUM,
        "guidance": SCALE,
        "exact": round(converged, 1),
        "real_halves": round(bench.floor, 1),
        "grids_at": TRIAL,
        "grids": trials,
        "curves": curves,
        "needed": {
            f"within {share:.0%}": {
                solver: needed(curve, converged * (1 + share)) for solver, curve in curves.items()
            }
            for share in (0.5, 0.2, 0.1)
        },
    }


def needed(curve: list[dict], level: float) -> float | None:
    """The evaluations at which a curve comes below a level and stays there, interpolated."""
    below = [row["frechet"] <= level for row in curve]
    first = next((k for k in range(len(curve)) if all(below[k:])), None)
    if first is None:
        return None
    if first == 0:
        return float(curve[0]["nfe"])
    a, b = curve[first - 1], curve[first]
    share = (a["frechet"] - level) / (a["frechet"] - b["frechet"])
    return round(a["nfe"] + share * (b["nfe"] - a["nfe"]), 1)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/digits"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--solvers", nargs="+", default=NAMES)
    arguments = parser.parse_args()
    result = measure(arguments.workdir, tuple(arguments.budgets), tuple(arguments.solvers))
    machine.write_json(arguments.out, result)
    print(json.dumps(result["needed"], indent=1))


if __name__ == "__main__":
    main()
