"""Two tokens of 128 on a checkerboard, the example of the package flow_matching, against its floor.

    python -m benchmarks.tokens.checkerboard
    python -m benchmarks.tokens.checkerboard --steps=30000 --batch=4096   # as many as there

8,192 of the 128 x 128 squares are black and equally likely, so that no bound of the negative
log-likelihood is below ln 8192 = 9.0109 nats. The network is that example's: tokens embedded in 128
dimensions, three hidden layers of 128, swish, kappa = t^2. Each source is reported by every bound
that it has, of the trained network and of the exact posterior, and its samples by the share on
empty squares and by the total variation and the Kullback-Leibler divergence of their counts.
"""

import argparse
import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import RESULTS, about, write_json
from benchmarks.tokens.small_network import initial, layers, train
from fmjax import solve_sde
from fmjax.discrete import (
    Corrector,
    CrossEntropy,
    GeneralisedKL,
    Masked,
    MixturePath,
    ScoreEntropy,
    Unmask,
    token_log_likelihood,
)
from fmjax.schedules import Polynomial

V, WIDTH = 128, 128
BLACK = (np.add.outer(np.arange(V) // 32, np.arange(V) // 32) % 2) == 0
FLOOR = math.log(BLACK.sum())
TRAINED = {"mask": CrossEntropy(), "uniform": ScoreEntropy()}
BOUNDS = {
    "mask": {"masked": Masked(), "generalised KL": GeneralisedKL()},
    "uniform": {"score entropy": ScoreEntropy(), "generalised KL": GeneralisedKL()},
}


def board(key: jax.Array, n: int) -> jax.Array:
    """Black squares (n, 2), int32."""
    number = jax.random.randint(key, (n,), 0, int(BLACK.sum()))
    return jnp.asarray(np.argwhere(BLACK), jnp.int32)[number]


def network(params, x, t, labels=None):
    """Logits (n, 2, 128)."""
    table, rest = params
    h = jax.nn.one_hot(x, V + 1) @ table
    h = jax.nn.swish(jnp.concatenate([h.reshape(len(x), -1), t[:, None]], axis=1))
    return layers(rest, h).reshape(len(x), 2, V)


def exact(path: MixturePath):
    """The exact posterior as a network of this path."""
    black = jnp.asarray(BLACK, jnp.float32)

    def logits(x, t, labels=None):
        likelihood = jnp.swapaxes(_likelihood(path, x, t), 0, 1)  # (2, n, V)
        others = jnp.stack([likelihood[1] @ black.T, likelihood[0] @ black])
        # What the token itself says, the path adds where it is to.
        own = likelihood if not (path.masks or path.add_likelihood) else 1.0
        return jnp.log(jnp.swapaxes(others * own, 0, 1) + 1e-30)

    return logits


def _likelihood(path, x, t):
    """p_t(x | x1) up to a factor, for every x1 (n, 2, V)."""
    share, rest = (f(t)[:, None, None] for f in (path.kappa.alpha, path.kappa.sigma))
    here = jax.nn.one_hot(x, V)
    if path.masks:
        return jnp.where((x == V)[..., None], 1.0, here)
    return share * here + rest / V


def measured(path: MixturePath, denoiser, args: argparse.Namespace) -> dict:
    """The bounds of a network, in nats of both tokens, with their standard errors."""
    x1 = board(jax.random.key(7), args.points)
    found = {}
    for name, bound in BOUNDS[path.start].items():

        def run(x1, bound=bound):
            key = jax.random.key(8)
            return token_log_likelihood(denoiser, path, x1, key=key, times=16, bound=bound).log_p

        cost = -np.asarray(jax.jit(run)(x1), np.float64)
        error = cost.std() / len(cost) ** 0.5
        found[name] = {"nats": round(float(cost.mean()), 4), "std_error": round(float(error), 4)}
    return found


def sampled(path: MixturePath, denoiser, solver, args: argparse.Namespace) -> dict:
    """How samples are distributed."""
    n = args.samples
    x0 = path.source.sample(jax.random.key(3), jnp.arange(n), (2,))
    keys = jax.random.split(jax.random.key(4), n)
    x = np.asarray(jax.jit(lambda x: solve_sde(denoiser, x, keys, None, solver).x1)(x0))
    return distances(np.bincount(x[:, 0] * V + x[:, 1], minlength=V * V))


def distances(counts: np.ndarray) -> dict:
    """The share on empty squares, and how far the counts are from the law."""
    n, law = counts.sum(), BLACK.ravel() / BLACK.sum()
    on_black = counts[BLACK.ravel()]
    p = on_black / on_black.sum()
    divergence = np.sum(p[p > 0] * np.log(p[p > 0])) + FLOOR
    return {
        "empty": round(float(1 - on_black.sum() / n), 5),
        "total_variation": round(float(0.5 * np.abs(counts / n - law).sum()), 4),
        "kl_on_black": round(float(divergence), 4),
    }


def main() -> None:
    """Trains both sources, and writes what they reach."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3000, help="of Adam")
    parser.add_argument("--batch", type=int, default=1024, help="examples in a step")
    parser.add_argument("--points", type=int, default=200_000, help="for the bounds")
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--solver_steps", type=int, default=64)
    parser.add_argument("--out", default=str(RESULTS / "checkerboard_tokens.json"))
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    ideal = rng.multinomial(args.samples, BLACK.ravel() / BLACK.sum())
    result = {"floor_nats": round(FLOOR, 4), "samples_of_the_law_itself": distances(ideal)}
    result["setting"] = {k: v for k, v in vars(args).items() if k != "out"}
    for start in ("mask", "uniform"):
        path = MixturePath(V, start, Polynomial(2), TRAINED[start])
        table = jax.random.normal(jax.random.key(5), (V + 1, WIDTH))
        params = table, initial(jax.random.key(6), 2 * WIDTH + 1, WIDTH, 3, 2 * V)
        how = {"steps": args.steps, "batch": args.batch, "rate": 3e-3}
        params, seconds = train(network, params, path, board, **how)

        def trained(x, t, labels=None, params=params):
            return network(params, x, t)

        row = {"seconds": round(seconds, 1), "steps_per_second": round(args.steps / seconds, 1)}
        row["bounds"] = measured(path, trained, args)
        row["bounds_of_the_exact_posterior"] = measured(path, exact(path), args)
        solver = Unmask(path, args.solver_steps)
        row["samples"] = sampled(path, trained, solver, args)
        mended = dataclasses.replace(solver, corrector=Corrector(3.0))
        row["samples_with_corrector"] = sampled(path, trained, mended, args)
        row["samples_of_the_exact_posterior"] = sampled(path, exact(path), solver, args)
        result[start] = row
        print(start, row, flush=True)
    write_json(Path(args.out), {**about(), **result})


if __name__ == "__main__":
    main()
