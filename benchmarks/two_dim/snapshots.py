"""A flow through snapshots in time: ``python -m benchmarks.two_dim.snapshots``.

Cells that move to the right, and up or down from the second quarter of the time on, by a velocity
that is known; 5 snapshots of 600 to 1,500 cells each, no cell seen twice. The middle one is held
out. Writes results/snapshots.json, mean and standard deviation over seeds:

- W1 and W2 from the first snapshot's cells, carried to the time that was held out and to the last
  one, to 1,200 fresh cells at that time; beside the same of other fresh cells (the floor), and of
  the straight line between the optimally paired neighbours of the held-out snapshot, which needs no
  network (McCann's interpolation);
- how far each carried cell ends from where the true flow takes it (root mean square).
"""

import argparse
import json
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import machine
from fmjax import Draw, make_loss_fn, solve, solver_spec
from fmjax.couplings.host import host_exact
from fmjax.data.snapshots import Snapshots
from fmjax.intervals import on_intervals
from fmjax.metrics.transport import wasserstein
from fmjax.models import adapters
from fmjax.models.mlp import MLP
from fmjax.training import fit

RESULTS = machine.RESULTS / "snapshots.json"
SIZES = {0.0: 800, 6.0: 1200, 12.0: 600, 18.0: 1500, 24.0: 1000}  # hours
HELD_OUT, LAST, FRESH = 12.0, 24.0, 1200
MODEL = MLP(width=128, depth=3)
APPLY = adapters.from_linen(MODEL)


def true_velocity(x: jax.Array, t: jax.Array, labels: None = None) -> jax.Array:
    """Four to the right, and away from the axis once a quarter of the time has passed."""
    opening = jax.nn.sigmoid(20 * (t - 0.25))
    return jnp.stack([jnp.full_like(t, 4.0), 3 * opening * jnp.tanh(4 * x[:, 1])], axis=1)


def cells_at(rng: np.random.Generator, hours: float, number: int) -> np.ndarray:
    """Fresh cells at a time: each begins by itself, and moves as the truth says."""
    return truly_carried(rng.normal(size=(number, 2)) * [0.4, 0.3], hours)


def truly_carried(x: np.ndarray, hours: float) -> np.ndarray:
    """Where the true flow takes cells of time 0."""
    x = jnp.asarray(x, jnp.float32)
    if hours == 0:
        return np.asarray(x)
    return np.asarray(solve(true_velocity, x, None, solver_spec("rk4", 100), t1=hours / LAST).x1)


def train(snapshots: Snapshots, seed: int, steps: int) -> tuple:
    """The averaged parameters of the field over all snapshots."""
    params = MODEL.init(jax.random.key(seed), jnp.zeros((1, 2)), jnp.zeros(1))["params"]
    local = on_intervals(APPLY)
    with tempfile.TemporaryDirectory() as folder:
        state = fit(
            local,
            params,
            snapshots,
            loss_fn=make_loss_fn(local),
            draw=Draw(),
            optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
            steps=steps,
            batch_size=256,
            seed=seed,
            ema=0.999,
            workdir=folder,
            log_every=1000,
            checkpoint_every=steps,
        )
    return state.ema_params


def measure(seed: int, steps: int) -> dict[str, float]:
    """The figures of one seed."""
    rng = np.random.default_rng((seed, 1))
    points = {hours: cells_at(rng, hours, n) for hours, n in SIZES.items()}
    snapshots = Snapshots(points).without(HELD_OUT)
    began = time.perf_counter()
    params = train(snapshots, seed, steps)
    figures = {"seconds": time.perf_counter() - began}
    start = cells_at(rng, 0.0, FRESH)
    for hours in (HELD_OUT, LAST):
        t1 = snapshots.scaled(hours)
        field = lambda x, t, labels: APPLY(params, x, t, labels)  # noqa: E731
        carried = np.asarray(solve(field, jnp.asarray(start), t1=t1).x1)
        fresh, other = (cells_at(rng, hours, FRESH) for _ in range(2))
        name = "held out" if hours == HELD_OUT else "last"
        for p in (1, 2):
            figures[f"{name}: W{p}"] = wasserstein(carried, fresh, p)
            figures[f"{name}: W{p}, floor"] = wasserstein(other, fresh, p)
        error = np.square(carried - truly_carried(start, hours)).sum(axis=1)
        figures[f"{name}: distance from the true place"] = float(np.sqrt(error.mean()))
    before, after = points[6.0], points[18.0]
    n = min(len(before), len(after))
    before, after = (x[rng.permutation(len(x))[:n]] for x in (before, after))
    middle = (host_exact(before, after) + after) / 2
    fresh = cells_at(rng, HELD_OUT, n)
    for p in (1, 2):
        figures[f"held out: W{p}, straight line"] = wasserstein(middle, fresh, p)
    return figures


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    runs = [measure(seed, options.steps) for seed in range(options.seeds)]
    result = machine.about() | {
        "seeds": options.seeds,
        "steps": options.steps,
        "figures": {
            name: {
                "mean": round(float(np.mean([run[name] for run in runs])), 4),
                "std": round(float(np.std([run[name] for run in runs])), 4),
            }
            for name in runs[0]
        },
    }
    machine.write_json(RESULTS, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
