"""Likelihood in few jumps: ``python -m benchmarks.two_dim.few_step_likelihood``.

On three tasks of protocol.py a flow map with a divergence head learns, by Lagrangian distillation,
the flow whose velocity is known: the data are Gaussians on a circle, or on a curve, of which
MixtureFlow has the velocity and the density in closed form. Writes
results/few_step_likelihood.json. For each number of evaluations, on 2,000 held-out points and in
nats per dimension:

- ``error``: the mean of |few-step - exact log-density| / 2;
- ``bias``: the mean of (few-step - exact) / 2, by which the mean log-likelihood is wrong.

Beside them stand the same two for the likelihood by an adaptive solve (`fmjax.log_likelihood`) of
the closed-form velocity, of which ``evaluations`` are the mean number, and of the diagonal of the
trained network.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import machine
from benchmarks.two_dim.protocol import TASKS, TEST_SEED
from fmjax import Draw, Span, diagonal, log_likelihood
from fmjax.conventions import take_part
from fmjax.flow_maps import (
    DivergenceHead,
    Lagrangian,
    few_step_log_likelihood,
    make_flow_map_loss_fn,
)
from fmjax.models.adapters import from_linen
from fmjax.models.mlp import MLP
from fmjax.testing import MixtureFlow
from fmjax.times import AnyPair, WithDiagonal

RESULTS = machine.RESULTS / "few_step_likelihood.json"
EVALUATIONS = (1, 2, 4, 8)
POINTS = 2000
BATCH, RATE, STEPS_PER_DISPATCH = 256, 2e-3, 250
HEAD = DivergenceHead(scale=5.0, trace="exact")
MODEL = MLP(width=128, depth=3, time_scale=10.0, span=True, parts=("divergence",))
PER_CURVE = 64  # Gaussians at the middles of equal parts of a curve, closer than their deviation


def eight_gaussians() -> MixtureFlow:
    """The closed form of `fmjax.data.toys.eight_gaussians`."""
    angle = np.arange(8) * (2 * np.pi / 8)
    return MixtureFlow(np.ones(8), 5.0 * _unit(angle), 1.0)


def moons() -> MixtureFlow:
    """That of `fmjax.data.toys.moons`: two half circles with noise 0.1."""
    outer = _unit(np.pi * _middles(PER_CURVE))
    centers = np.concatenate([outer, np.array([1.0, 0.5]) - outer])
    return MixtureFlow(np.ones(2 * PER_CURVE), 2.0 * centers - np.array([1.0, 0.0]), 0.1)


def s_curve() -> MixtureFlow:
    """That of `fmjax.data.toys.s_curve`: a curve of two bends with noise 0.075."""
    angle = 3 * np.pi * (_middles(2 * PER_CURVE) - 0.5)
    curve = np.stack([np.sin(angle), np.sign(angle) * (np.cos(angle) - 1)], axis=-1)
    return MixtureFlow(np.ones(2 * PER_CURVE), 1.5 * curve, 0.075)


FLOWS: dict[str, Callable[[], MixtureFlow]] = {
    "N -> 8gaussians": eight_gaussians,
    "N -> moons": moons,
    "N -> scurve": s_curve,
}


def main() -> None:
    """Reads the flags, runs, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(FLOWS), choices=FLOWS)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    results |= machine.about(flags=False, device=jax.devices()[0].platform)
    for task in options.tasks:
        row = measure(task, options.steps)
        results.setdefault("tasks", {})[task] = row
        machine.write_json(options.out, results)
        print(f"{task:16}", json.dumps(row), flush=True)


def measure(task: str, steps: int) -> dict:
    """The row of one task."""
    flow, began = FLOWS[task](), time.perf_counter()
    apply_fn = from_linen(MODEL)
    params = train(task, flow, steps)
    seconds = time.perf_counter() - began
    x1 = jnp.asarray(TASKS[task].target(np.random.default_rng(TEST_SEED), POINTS))
    exact = flow.log_density(x1, jnp.ones(POINTS))
    row = {"steps": steps, "seconds_of_training": round(seconds), "jumps": {}}
    row["nats_per_dimension"] = round(float(-exact.mean()) / 2, 4)
    for jumps in EVALUATIONS:
        found = few_step_log_likelihood(
            lambda x, span, labels: apply_fn(params, x, span, labels),
            x1,
            scale=HEAD.scale,
            steps=jumps,
        )
        row["jumps"][str(jumps)] = _errors(found, exact)
    velocity = diagonal(apply_fn)
    solves = {
        "closed_form_velocity": flow.velocity,
        "diagonal": lambda x, t, y: take_part(velocity(params, x, t, y), "velocity"),
    }
    for name, v in solves.items():
        solved = jax.jit(functools.partial(log_likelihood, v))(x1)
        row[name] = _errors(solved.log_p, exact) | {"evaluations": float(solved.nfe.mean())}
    return row


def train(task: str, flow: MixtureFlow, steps: int) -> dict:
    """The parameters of the flow map after so many steps."""
    loss_fn = make_flow_map_loss_fn(
        from_linen(MODEL), Lagrangian(), teacher=flow.velocity, divergence=HEAD
    )
    draw = Draw(time_distribution=WithDiagonal(AnyPair(), 0.25), noise=loss_fn.noise)
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, min(100, steps // 2), steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def step(state, given):
        params, opt_state = state
        args = draw(given[0], jnp.arange(BATCH), given[1])
        grads = jax.grad(loss_fn)(params, *args, noise=args.noise)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    @functools.partial(jax.jit, donate_argnums=0)
    def chunk(state, key, x1):
        return jax.lax.scan(step, state, (jax.random.split(key, len(x1)), x1))[0]

    t = jnp.zeros(2)
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((2, 2)), Span(t, t))["params"]
    state, rng = (params, optimizer.init(params)), np.random.default_rng(0)
    for k in range(0, steps, STEPS_PER_DISPATCH):
        size = min(STEPS_PER_DISPATCH, steps - k)
        x1 = TASKS[task].target(rng, size * BATCH).reshape(size, BATCH, 2)
        state = chunk(state, jax.random.key(k), jnp.asarray(x1))
    return jax.block_until_ready(state[0])


def _errors(found: jax.Array, exact: jax.Array) -> dict[str, float]:
    difference = np.asarray(found - exact, np.float64) / 2
    return {
        "error": round(float(np.abs(difference).mean()), 4),
        "bias": round(float(difference.mean()), 4),
    }


def _middles(n: int) -> np.ndarray:
    """The middles of n equal parts of [0, 1]."""
    return (np.arange(n) + 0.5) / n


def _unit(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


if __name__ == "__main__":
    main()
