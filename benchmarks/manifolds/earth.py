"""Densities on the earth: ``python -m benchmarks.manifolds.earth --data=FOLDER``.

FOLDER has volcano.csv, earthquake.csv, flood.csv and fire.csv, each with the columns latitude and
longitude in degrees under one line of names: the data of Mathieu and Nickel (arXiv:2006.10605) and
of what came after. The protocol is that of Riemannian flow matching (Chen and Lipman,
arXiv:2302.03660): one tenth for validation and one for test, split at random by the seed, a uniform
source, the parameters of the best validation; test NLL in nats. Here the network is smaller.

Volcano and earthquake are measured a second time without the copies that they contain: 82 % of the
test points of volcano lie in its training set as well, so that its NLL rewards memory.

Beside each NLL stand the integral of the density (from points of the kernel density; 1 but for the
error of the solver), the NLL of that kernel density, the seconds of training, and the figures that
are published. Writes results/earth.json, a row as each run is done; a row that is there is kept.
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import machine
from benchmarks.manifolds.kernel_density import KernelDensity, fit_kernel_density
from fmjax.data.tables.globe import unit_vectors
from fmjax.likelihood import log_likelihood
from fmjax.losses import make_loss_fn
from fmjax.manifolds import Sphere, UniformOn, in_tangent_space
from fmjax.models import adapters
from fmjax.models.fourier_mlp import FourierMLP
from fmjax.paths import GeodesicPath
from fmjax.samplers import solver_spec
from fmjax.samplers.time_grids import BetaGrid
from fmjax.times import Beta
from fmjax.training.ema import update_ema

RESULTS = machine.RESULTS / "earth.json"
SPHERE = Sphere(2)
SOURCE = UniformOn(SPHERE)
BATCH, EMA, LEARNING_RATE, WEIGHT_DECAY = 512, 0.999, 3e-3, 1e-4
LOOKS = 5  # at the validation points during training
AT_ONCE = 128  # points of one solve
VALIDATION = 256  # of the validation points are looked at


class Setting(NamedTuple):
    """How one data set is learned.

    Attributes:
        file: its name.
        copies: whether they stay.
        features: of the network.
        largest: frequency of them.
        steps: of training.
        solver: RK4 steps of the likelihood.
    """

    file: str
    copies: bool
    features: int
    largest: float
    steps: int
    solver: int


SETTINGS = {
    "volcano": Setting("volcano", True, 128, 1500.0, 2000, 600),
    "volcano without copies": Setting("volcano", False, 96, 60.0, 400, 100),
    "earthquake": Setting("earthquake", True, 192, 400.0, 5000, 120),
    "earthquake without copies": Setting("earthquake", False, 128, 200.0, 2500, 120),
    "flood": Setting("flood", True, 128, 100.0, 8000, 50),
    "fire": Setting("fire", True, 256, 1000.0, 16000, 120),
}
# Mean and standard deviation over 5 runs, in nats.
PUBLISHED = {
    "Riemannian flow matching, arXiv:2302.03660": {
        "volcano": [-7.93, 1.67],
        "earthquake": [-0.28, 0.08],
        "flood": [0.42, 0.05],
        "fire": [-1.86, 0.11],
    },
    "Riemannian diffusion model, arXiv:2208.07949": {
        "volcano": [-6.61, 0.96],
        "earthquake": [-0.40, 0.05],
        "flood": [0.43, 0.07],
        "fire": [-1.38, 0.05],
    },
}


class Split(NamedTuple):
    """Points (n, 3) in float64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read(folder: Path, setting: Setting, seed: int) -> Split:
    """The points of a data set, split by the seed."""
    degrees = np.loadtxt(folder / f"{setting.file}.csv", delimiter=",", skiprows=1)
    if not setting.copies:
        degrees = np.unique(degrees, axis=0)
    points = unit_vectors(*np.deg2rad(degrees).T)
    points = points[np.random.default_rng(seed).permutation(len(points))]
    n = len(points) // 10
    return Split(points[2 * n :], points[:n], points[n : 2 * n])


class Flow:
    """The flow of one setting: its network, its training and its likelihood."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.model = FourierMLP(setting.features, setting.largest)
        self.apply_fn = in_tangent_space(adapters.from_linen(self.model), SPHERE)
        # Equal steps of the root of 1 - t: the velocity is roughest near the data.
        late = BetaGrid(1.0, 0.5)
        self.spec = solver_spec("rk4", setting.solver, grid=late, manifold=SPHERE)
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(
                optax.cosine_decay_schedule(LEARNING_RATE, setting.steps),
                weight_decay=WEIGHT_DECAY,
            ),
        )

    def init(self, seed: int) -> Any:
        """Parameters, their average, the optimiser's state and the number of the step."""
        point = jnp.zeros((1, 3))
        params = self.model.init(jax.random.key(seed), point, jnp.zeros(1))["params"]
        return jax.tree.map(jnp.array, (params, params, self.optimizer.init(params), 0))

    @functools.partial(jax.jit, static_argnums=(0, 4), donate_argnums=1)
    def train(self, state: Any, key: jax.Array, points: jax.Array, steps: int) -> Any:
        """The state after so many steps on points (n, 3)."""
        loss_fn = make_loss_fn(self.apply_fn, GeodesicPath(SPHERE))
        late = Beta(1.0, 0.4)

        def step(state, key):
            params, average, opt_state, number = state
            chosen, source, time_key = jax.random.split(key, 3)
            x1 = points[jax.random.randint(chosen, (BATCH,), 0, len(points))]
            x0 = SPHERE.uniform(source, (BATCH,))
            t = late.quantile(jax.random.uniform(time_key, (BATCH,)))
            grads = jax.grad(loss_fn)(params, x0, x1, t, None)
            updates, opt_state = self.optimizer.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            average = update_ema(average, params, number, EMA)
            return (params, average, opt_state, number + 1), None

        return jax.lax.scan(step, state, jax.random.split(key, steps))[0]

    def log_prob(self, params: Any, x: np.ndarray) -> np.ndarray:
        """The log-density in nats (n,) of points (n, 3)."""
        parts = []
        for k in range(0, len(x), AT_ONCE):
            part = x[k : k + AT_ONCE]
            room = np.concatenate([part, np.tile(part[:1], (AT_ONCE - len(part), 1))])
            found = self._solve(params, jnp.asarray(room, jnp.float32))
            parts.append(np.asarray(found)[: len(part)])
        return np.concatenate(parts).astype(np.float64)

    @functools.partial(jax.jit, static_argnums=0)
    def _solve(self, params: Any, x: jax.Array) -> jax.Array:
        velocity = functools.partial(self.apply_fn, params)
        return log_likelihood(velocity, x, spec=self.spec, source=SOURCE).log_p


def fit(flow: Flow, split: Split, seed: int) -> tuple[Any, dict[str, Any]]:
    """The averaged parameters that the validation points are likeliest under, and a report."""
    state, train = flow.init(seed), jnp.asarray(split.train, jnp.float32)
    chunk, looked_at = flow.setting.steps // LOOKS, split.validation[:VALIDATION]
    best, kept, at, seconds = np.inf, None, 0, 0.0
    for k in range(LOOKS):
        began = time.perf_counter()
        key = jax.random.fold_in(jax.random.key(seed), k)
        state = jax.block_until_ready(flow.train(state, key, train, chunk))
        seconds += time.perf_counter() - began
        nll = -flow.log_prob(state[1], looked_at).mean()
        if nll < best:
            best, kept, at = nll, jax.tree.map(jnp.array, state[1]), (k + 1) * chunk
    return kept, {
        "validation": round(float(best), 4),
        "best step": at,
        "seconds of training": round(seconds, 1),
    }


def integral(
    flow: Flow, params: Any, kernels: KernelDensity, n: int, seed: int
) -> tuple[float, float]:
    """The integral of the flow's density, and its standard error: the mean of p / q under q."""
    wide = kernels._replace(uniform=0.2)
    x = wide.sample(np.random.default_rng((seed, 1)), n)
    x = x.astype(np.float32).astype(np.float64)  # the points that the flow sees
    ratio = np.exp(flow.log_prob(params, x) - wide.log_prob(x))
    return float(ratio.mean()), float(ratio.std() / np.sqrt(n))


def measure(folder: Path, name: str, seed: int, share: float, n: int) -> dict[str, Any]:
    """The row of one data set and one seed."""
    setting = SETTINGS[name]
    setting = setting._replace(steps=max(LOOKS, round(setting.steps * share)))
    split, flow = read(folder, setting, seed), Flow(setting)
    params, report = fit(flow, split, seed)
    kernels = fit_kernel_density(split.train, split.validation[:VALIDATION])
    total, error = integral(flow, params, kernels, n, seed)
    return {
        "nll": round(float(-flow.log_prob(params, split.test).mean()), 4),
        "kernel density": round(float(-kernels.log_prob(split.test).mean()), 4),
        "integral": [round(total, 4), round(error, 4)],
        **report,
    }


def run(folder: Path, names: list[str], seeds: list[int], share: float, n: int, out: Path) -> None:
    """Measures what is not there yet, and writes each row as it is done."""
    results = json.loads(out.read_text()) if out.exists() else {}
    about = {"batch": BATCH, "share of the steps": share, "published": PUBLISHED}
    about["settings"] = {name: setting._asdict() for name, setting in SETTINGS.items()}
    results |= machine.about(flags=False) | about
    rows = results.setdefault("runs", {})
    for seed in seeds:
        for name in names:
            if str(seed) not in rows.setdefault(name, {}):
                rows[name][str(seed)] = measure(folder, name, seed, share, n)
                print(f"{name:26} seed {seed}", json.dumps(rows[name][str(seed)]), flush=True)
            results["table"] = {name: summary(found) for name, found in rows.items() if found}
            machine.write_json(out, results)


def summary(runs: dict[str, dict]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds."""
    row: dict[str, Any] = {"seeds": len(runs)}
    for column in ("nll", "kernel density", "seconds of training"):
        found = [one[column] for one in runs.values()]
        row[column] = [round(float(np.mean(found)), 3), round(float(np.std(found)), 3)]
    row["integral"] = round(float(np.mean([one["integral"][0] for one in runs.values()])), 3)
    return row


def main() -> None:
    """Reads the flags and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the four tables")
    parser.add_argument("--sets", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of training")
    parser.add_argument("--points", type=int, default=768, help="for the integral")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    run(given.data, given.sets, given.seeds, given.share, given.points, given.out)


if __name__ == "__main__":
    main()
