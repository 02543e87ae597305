"""Flow maps on the 2-D tasks: ``python -m benchmarks.two_dim.flow_maps``.

Trains the flow of each task, and flow maps from scratch and from that flow, with one network and as
many steps each, and writes results/flow_maps_2d.json: exact W2 between 4,000 generated and 4,000
held-out points after 1, 2 and 4 jumps, mean and standard deviation over seeds. Beside it stand the
flow's own Euler steps (1, 2, 4, 100) and the floor, W2 between two held-out sets; 2-rectified flow
on these tasks is in results/two_dim.json (``python -m benchmarks.two_dim``). A method that diverges
is written down as it is.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import machine
from benchmarks.two_dim.protocol import TASKS, fresh_pairs, test_points
from fmjax import Span
from fmjax.draws import Draw
from fmjax.flow_maps import (
    AlphaFlow,
    Consistency,
    ECTSteps,
    Identity,
    Lagrangian,
    MeanFlow,
    Semigroup,
    SigmoidDecay,
    make_flow_map_loss_fn,
)
from fmjax.metrics.transport import wasserstein
from fmjax.models import adapters
from fmjax.models.mlp import MLP
from fmjax.paths import Adaptive
from fmjax.times import DyadicGrid, SortedPair, SpanDistribution, ToData, WithDiagonal
from fmjax.training.ema import update_ema

RESULTS = machine.RESULTS / "flow_maps_2d.json"
MODEL = MLP(width=128, depth=4, span=True)
APPLY = adapters.from_linen(MODEL)
BATCH, LEARNING_RATE, EMA = 512, 1e-3, 0.999
STEPS_PER_DISPATCH = 250
JUMPS = (1, 2, 4)
FLOW = "flow"


class Method(NamedTuple):
    """How a flow map is trained.

    Attributes:
        identity: for a number of steps.
        spans: the distribution of (s, t) off the diagonal.
        taught: whether a trained flow teaches it, and lends its weights to begin with.
        averaged: whether the frozen side has the averaged parameters.
        diagonal: the share of the batch that learns the velocity.
    """

    identity: Callable[[int], Identity]
    spans: SpanDistribution = SortedPair()
    taught: bool = False
    averaged: bool = False
    diagonal: float = 0.5


METHODS = {
    FLOW: Method(lambda steps: MeanFlow(), diagonal=1.0),
    "MeanFlow": Method(lambda steps: MeanFlow()),
    "improved MeanFlow": Method(lambda steps: MeanFlow(tangent="network")),
    "Lagrangian": Method(lambda steps: Lagrangian(), averaged=True),
    "semigroup": Method(lambda steps: Semigroup(split=None), averaged=True),
    "shortcut": Method(lambda steps: Semigroup(finest=2**-7), DyadicGrid(7), averaged=True),
    "alpha-Flow": Method(lambda steps: AlphaFlow(SigmoidDecay(0, steps))),
    "consistency": Method(lambda steps: Consistency(ECTSteps(double=max(1, steps // 9))), ToData()),
    "Lagrangian, taught": Method(lambda steps: Lagrangian(), taught=True, diagonal=0.25),
    "Eulerian, taught": Method(lambda steps: MeanFlow(), taught=True, diagonal=0.25),
    "progressive, taught": Method(
        lambda steps: Semigroup(finest=2**-7),
        DyadicGrid(7),
        taught=True,
        averaged=True,
        diagonal=0.25,
    ),
}


def train(method: Method, task: str, seed: int, steps: int, flow: Any) -> tuple[Any, float]:
    """The averaged parameters after training, and the seconds it took, compilation included."""
    began = time.perf_counter()
    teacher = functools.partial(_velocity, flow) if method.taught else None
    loss_fn = make_flow_map_loss_fn(
        APPLY,
        method.identity(steps),
        teacher=teacher,
        averaged=method.averaged,
        distance=None if method.diagonal == 1 else Adaptive(0.5, 1e-2),
    )
    spans = WithDiagonal(method.spans, method.diagonal)
    draw = Draw(time_distribution=spans, noise=loss_fn.noise)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps, 0.01))
    params = flow if method.taught else _init(seed)
    state = jax.tree.map(jnp.array, (params, params, optimizer.init(params), jnp.zeros((), int)))
    chunk = _make_chunk(loss_fn, draw, optimizer)
    rng, pairs = np.random.default_rng((seed, 7)), fresh_pairs(task)
    for k in range(steps // STEPS_PER_DISPATCH):
        shape = (STEPS_PER_DISPATCH, BATCH, 2)
        x0, x1 = (x.reshape(shape) for x in pairs(rng, STEPS_PER_DISPATCH * BATCH))
        state = chunk(state, jax.random.fold_in(jax.random.key(seed), k), x0, x1)
    return jax.block_until_ready(state[1]), time.perf_counter() - began


def _make_chunk(loss_fn: Callable, draw: Draw, optimizer: optax.GradientTransformation) -> Callable:
    """``chunk(state, key, x0, x1)``: a step for each row of x0 and x1 (steps, batch, 2)."""

    def step(state, given):
        params, average, opt_state, number = state
        args = draw(given[0], jnp.arange(BATCH), given[2], None, given[1])
        more = {"target_params": average} if loss_fn.uses_target else {}
        grads = jax.grad(loss_fn)(params, *args, noise=args.noise, step=number, **more)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, update_ema(average, params, number, EMA), opt_state, number + 1), None

    @functools.partial(jax.jit, donate_argnums=0)
    def chunk(state, key, x0, x1):
        return jax.lax.scan(step, state, (jax.random.split(key, len(x0)), x0, x1))[0]

    return chunk


def _init(seed: int) -> Any:
    span = Span(jnp.zeros(1), jnp.zeros(1))
    return MODEL.init(jax.random.key(seed), jnp.zeros((1, 2)), span)["params"]


def _velocity(params: Any, x: jax.Array, t: jax.Array, labels: None = None) -> jax.Array:
    return APPLY(params, x, Span(t, t), labels)


@functools.partial(jax.jit, static_argnames=("steps", "jump"))
def carried(params: Any, x0: jax.Array, steps: int, jump: bool) -> jax.Array:
    """x0 after so many equal jumps, or Euler steps of the velocity."""
    x = x0
    for k in range(steps):
        s, t = (jnp.full(len(x), i / steps) for i in (k, k + 1))
        x = x + APPLY(params, x, Span(s, t if jump else s), None) / steps
    return x


def quality(params: Any, task: str, jump: bool) -> dict[int, float]:
    """W2 to the held-out points by the number of evaluations."""
    x0, x1, _ = test_points(task)
    counts = JUMPS if jump else (*JUMPS, 100)
    found = {n: np.asarray(carried(params, x0, n, jump)) for n in counts}
    # A map that diverged gives numbers whose squares overflow, if it gives any.
    return {
        n: float(wasserstein(x, x1)) if np.all(np.abs(x) < 1e4) else float("inf")
        for n, x in found.items()
    }


def run(tasks: list[str], methods: list[str], seeds: list[int], steps: int, out: Path) -> None:
    """Trains and measures all, and writes each row as it is done."""
    results = json.loads(out.read_text()) if out.exists() else {}
    results |= machine.about()
    results |= {"steps": steps, "batch": BATCH, "seeds": seeds}
    table = results.setdefault("w2", {})
    for task in tasks:
        _, first, second = test_points(task)
        row = table.setdefault(task, {"floor": round(float(wasserstein(first, second)), 4)})
        flows = {seed: train(METHODS[FLOW], task, seed, steps, None) for seed in seeds}
        for name in methods:
            trained = {
                seed: flows[seed]
                if name == FLOW
                else train(METHODS[name], task, seed, steps, flows[seed][0])
                for seed in seeds
            }
            row[name] = summary(
                [quality(params, task, name != FLOW) for params, _ in trained.values()],
                [seconds for _, seconds in trained.values()],
            )
            print(f"{task:20} {name:20}", json.dumps(row[name]), flush=True)
            machine.write_json(out, results)


def summary(found: list[dict[int, float]], seconds: list[float]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of W2 by evaluations, and the seconds of training."""
    by_count = {n: [one[n] for one in found] for n in found[0]}
    row: dict[str, Any] = {
        str(n): [round(float(np.mean(w)), 4), round(float(np.std(w)), 4)]
        for n, w in by_count.items()
    }
    return row | {"seconds": round(float(np.mean(seconds)), 1)}


def main() -> None:
    """Reads the flags and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--steps", type=int, default=5000, help="of each training")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    run(given.tasks, given.methods, given.seeds, given.steps, given.out)


if __name__ == "__main__":
    main()
