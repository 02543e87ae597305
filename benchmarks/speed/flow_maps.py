"""What a flow map costs to train and saves in sampling: ``python -m benchmarks.speed.flow_maps``.

Two tables of one DiT on synthetic images, written to results/flow_maps_speed.json:

- the time of a training step (loss, backward pass, AdamW) of each loss of `fmjax.flow_maps` over
  that of plain flow matching with the same network of one time;
- images a second of one jump, and of the same weights' velocity guided at w in 25 Heun steps, which
  is what a jump that learned the guided flow replaces.

Everything is compiled first, then timed in turn; the figures are of the least time of each.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import machine
from benchmarks.speed.networks import DIGITS, with_noise
from benchmarks.timing import least_seconds
from fmjax import Guided, Span, classifier_free, make_loss_fn, solve, solver_spec
from fmjax.conditions import ClassIds
from fmjax.conventions import diagonal
from fmjax.draws import Draw
from fmjax.flow_maps import (
    AlphaFlow,
    Consistency,
    Jumps,
    Lagrangian,
    MeanFlow,
    Semigroup,
    make_flow_map_loss_fn,
)
from fmjax.models import adapters
from fmjax.models.dit import DiT
from fmjax.times import DyadicGrid, SortedPair, ToData, WithDiagonal

RESULTS = machine.RESULTS / "flow_maps_speed.json"
SHAPE, CLASSES, W = (8, 8, 1), 10, 1.5
SIZES = {k: v for k, v in DIGITS.items() if k != "num_classes"}
PLAIN = "flow matching"

IDENTITIES = {
    "MeanFlow": (MeanFlow(), SortedPair()),
    "MeanFlow, finite difference": (MeanFlow(derivative="fd"), SortedPair()),
    "improved MeanFlow": (MeanFlow(tangent="network"), SortedPair()),
    "Lagrangian": (Lagrangian(), SortedPair()),
    "semigroup": (Semigroup(split=None), SortedPair()),
    "shortcut": (Semigroup(finest=2**-6), DyadicGrid(7)),
    "alpha-Flow, alpha = 0.5": (AlphaFlow(0.5), SortedPair()),
    "consistency": (Consistency(), ToData()),
}


def make_network(span: bool) -> tuple[Any, Any]:
    """A DiT of one time or of two, and its parameters."""
    module = DiT(conditions=ClassIds(CLASSES), span=span, **SIZES)
    x, t = jnp.zeros((1, *SHAPE)), jnp.zeros(1)
    time = Span(t, t) if span else t
    params = module.init(jax.random.key(1), x, time, jnp.zeros(1, int))["params"]
    return adapters.from_linen(module), with_noise(params, jax.random.key(2))


def make_step(loss_fn: Callable, draw: Draw, params: Any, batch: int) -> Callable[[], None]:
    """One training step on its own state, as a function of nothing, that waits for its end."""
    optimizer = optax.adamw(1e-3)
    x1 = jax.random.normal(jax.random.key(3), (batch, *SHAPE))
    labels = jnp.arange(batch) % CLASSES

    @jax.jit
    def step(params, state, key):
        args = draw(key, jnp.arange(batch), x1, labels)
        more = {"target_params": params} if loss_fn.uses_target else {}
        if loss_fn.uses_step:
            more["step"] = jnp.int32(0)
        grads = jax.grad(loss_fn)(params, *args, noise=args.noise, **more)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    return lambda: jax.block_until_ready(step(params, state, jax.random.key(0)))


def training_steps(batch: int) -> dict[str, Callable[[], None]]:
    """A training step of each loss."""
    conditions = ClassIds(CLASSES, drop_rate=0.1)
    apply_fn, params = make_network(False)
    plain = make_loss_fn(apply_fn)
    steps = {PLAIN: make_step(plain, Draw(conditions=conditions), params, batch)}
    apply_fn, params = make_network(True)
    for name, (identity, spans) in IDENTITIES.items():
        loss_fn = make_flow_map_loss_fn(apply_fn, identity)
        draw = Draw(
            conditions=conditions,
            time_distribution=WithDiagonal(spans, 0.25),
            noise=loss_fn.noise,
        )
        steps[name] = make_step(loss_fn, draw, params, batch)
    return steps


def samplers(batch: int) -> dict[str, Callable[[], None]]:
    """The two ways to a guided sample, each a function of nothing."""
    apply_fn, params = make_network(True)
    labels = jnp.arange(batch) % CLASSES

    @jax.jit
    def jump(params, x0):
        return Jumps(1).solve(lambda x, t, y: apply_fn(params, x, t, y), x0, labels).x1

    @jax.jit
    def heun(params, x0):
        velocity = classifier_free(lambda x, t, y: diagonal(apply_fn)(params, x, t, y), CLASSES)
        return solve(velocity, x0, Guided(labels, W), solver_spec("heun", 25)).x1

    x0 = jax.random.normal(jax.random.key(4), (batch, *SHAPE))
    return {
        "one jump": lambda: jax.block_until_ready(jump(params, x0)),
        "25 guided Heun steps": lambda: jax.block_until_ready(heun(params, x0)),
    }


def main() -> None:
    """Measures, prints and writes both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    steps = least_seconds(options.rounds, **training_steps(options.batch))
    draws = least_seconds(options.rounds, **samplers(options.batch))
    result = machine.about() | {
        "network": SIZES,
        "shape": SHAPE,
        "batch": options.batch,
        "training step": {
            name: {"seconds": round(s, 5), "over flow matching": round(s / steps[PLAIN], 2)}
            for name, s in steps.items()
        },
        "sampling": {
            name: {"images per second": round(options.batch / s, 1)} for name, s in draws.items()
        },
        "one jump over 25 guided Heun steps": round(
            draws["25 guided Heun steps"] / draws["one jump"], 1
        ),
    }
    machine.write_json(RESULTS, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
