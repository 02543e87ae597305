"""Known densities on manifolds: ``python -m benchmarks.manifolds.synthetic``.

Learns a checkerboard on the sphere and on the torus, and mixtures of four wrapped normals on the
hyperbolic plane and on rotations, with one network of two times; then the map of that flow by the
Lagrangian identity. Writes results/manifolds_synthetic.json:

- ``KL``: of the truth to the flow, in nats, with its standard error, by the exact likelihood;
- ``energy distance`` of 2,000 generated points to 2,000 of the truth: of the flow in 50 RK4 steps,
  of its map in 1, 2 and 4 jumps, and of another 2,000 points of the truth (``floor``);
- ``jump off the flow``: how far one jump ends from where the flow does, root mean square.
"""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import machine
from benchmarks.manifolds.known import Task, tasks
from fmjax import Draw, Span, diagonal, log_likelihood, make_loss_fn, solve, solver_spec
from fmjax.flow_maps import Jumps, Lagrangian, make_flow_map_loss_fn
from fmjax.models.fourier_mlp import FourierMLP
from fmjax.paths import Adaptive, GeodesicPath
from fmjax.times import SortedPair, WithDiagonal
from fmjax.training.ema import update_ema

RESULTS = machine.RESULTS / "manifolds_synthetic.json"
BATCH, LEARNING_RATE, EMA = 512, 2e-3, 0.998
POINTS, ASKED = 2000, 1024  # generated, and those whose likelihood is asked


class Learner:
    """One task with its network."""

    def __init__(self, task: Task):
        self.task = task
        self.model = FourierMLP(48, 12.0, 128, 3, outputs=task.outputs, span=True)
        self.path = GeodesicPath(task.manifold)

    def apply_fn(self, params: Any, x: jax.Array, span: Any, labels: None = None) -> jax.Array:
        """The average velocity."""
        out = self.model.apply({"params": params}, self.task.features(x), span)
        return self.task.velocity(x, out)

    def init(self, seed: int) -> Any:
        """Fresh parameters."""
        x, t = self.task.sample(jax.random.key(0), 1), jnp.zeros(1)
        key = jax.random.key(seed)
        return self.model.init(key, self.task.features(x), Span(t, t))["params"]

    def flow(self, seed: int, steps: int) -> Any:
        """The parameters of the flow."""
        loss_fn = make_loss_fn(diagonal(self.apply_fn), self.path)
        return self._train(loss_fn, Draw(source=self.task.source), self.init(seed), seed, steps)

    def map(self, flow: Any, seed: int, steps: int) -> Any:
        """The parameters of the map of a flow, which lends its weights to begin with."""
        loss_fn = make_flow_map_loss_fn(
            self.apply_fn,
            Lagrangian(),
            self.path,
            teacher=self.velocity(flow),
            distance=Adaptive(0.5, 1e-2),
        )
        spans = WithDiagonal(SortedPair(), 0.25)
        draw = Draw(source=self.task.source, time_distribution=spans)
        return self._train(loss_fn, draw, flow, seed + 1, steps)

    def velocity(self, params: Any) -> Callable:
        """``velocity(x, t or Span(s, t), labels)``."""
        return functools.partial(diagonal(self.apply_fn), params)

    def _train(self, loss_fn: Callable, draw: Draw, params: Any, seed: int, steps: int) -> Any:
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps, 0.01)),
        )

        def step(state, key):
            params, average, opt_state, number = state
            data, drawn = jax.random.split(key)
            args = draw(drawn, jnp.arange(BATCH), self.task.sample(data, BATCH))
            grads = jax.grad(loss_fn)(params, *args)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            average = update_ema(average, params, number, EMA)
            return (params, average, opt_state, number + 1), None

        state = (params, params, optimizer.init(params), jnp.int32(0))
        keys = jax.random.split(jax.random.key(seed), steps)
        return jax.jit(lambda state, keys: jax.lax.scan(step, state, keys)[0])(state, keys)[1]


def divergence_of(learner: Learner, flow: Any, steps: int) -> list[float]:
    """The KL divergence of the truth to the flow, in nats, and its standard error."""
    task = learner.task
    x = task.sample(jax.random.key(11), ASKED)
    spec = solver_spec("rk4", steps, manifold=task.manifold)

    @jax.jit
    def log_p(x):
        return log_likelihood(learner.velocity(flow), x, spec=spec, source=task.source).log_p

    ratio = np.asarray(task.log_prob(x) - log_p(x), np.float64)
    return [round(float(ratio.mean()), 4), round(float(ratio.std() / np.sqrt(len(x))), 4)]


def energy(task: Task, x: jax.Array, y: jax.Array) -> float:
    """The energy distance, without bias: 2 E|x - y| - E|x - x'| - E|y - y'|."""
    n, apart = len(x), jax.jit(task.apart)
    own = sum(jnp.sum(apart(one, one)) / (n * (n - 1)) for one in (x, y))
    return round(float(2 * jnp.mean(apart(x, y)) - own), 5)


def measure(name: str, seed: int, flow_steps: int, map_steps: int, solver: int) -> dict[str, Any]:
    """The row of one task."""
    task = tasks()[name]
    learner, began = Learner(task), time.perf_counter()
    flow = jax.block_until_ready(learner.flow(seed, flow_steps))
    flow_seconds, began = time.perf_counter() - began, time.perf_counter()
    jumps = jax.block_until_ready(learner.map(flow, seed, map_steps))
    map_seconds = time.perf_counter() - began

    truth, other = (task.sample(jax.random.key(k), POINTS) for k in (21, 22))
    x0 = task.source.sample(jax.random.key(23), jnp.arange(POINTS), task.manifold.shape)
    spec = solver_spec("rk4", solver, manifold=task.manifold)
    carried = jax.jit(lambda x: solve(learner.velocity(flow), x, spec=spec).x1)(x0)
    distances = {"floor": energy(task, other, truth), "flow": energy(task, carried, truth)}
    for n in (1, 2, 4):
        chain = Jumps(n, manifold=task.manifold)
        ends = jax.jit(lambda x, c=chain: solve(learner.velocity(jumps), x, spec=c).x1)(x0)
        distances[f"{n} jumps"] = energy(task, ends, truth)
        if n == 1:
            off = float(jnp.sqrt(jnp.mean(jnp.square(task.manifold.dist(ends, carried)))))
    return {
        "KL": divergence_of(learner, flow, solver),
        "energy distance": distances,
        "jump off the flow": round(off, 4),
        "seconds of training": {"flow": round(flow_seconds, 1), "map": round(map_seconds, 1)},
    }


def main() -> None:
    """Reads the flags and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(tasks()), choices=list(tasks()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flow-steps", type=int, default=2000)
    parser.add_argument("--map-steps", type=int, default=1500)
    parser.add_argument("--solver", type=int, default=50, help="RK4 steps")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    results = machine.about() | {"batch": BATCH, "rows": {}}
    for name in given.tasks:
        row = measure(name, given.seed, given.flow_steps, given.map_steps, given.solver)
        results["rows"][name] = row
        print(f"{name:26}", row, flush=True)
        machine.write_json(given.out, results)


if __name__ == "__main__":
    main()
