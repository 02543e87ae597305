"""Tokens of many kinds by four flows: how far the law of samples is from that of the data.

    python -m benchmarks.tokens.dirichlet --kinds=20,40,80,160

Four independent tokens of K kinds, each with probabilities softmax(U(0, 1)) of its own, as in Stark
et al., arXiv:2402.05841. Reported is the mean over the tokens of KL(samples, law), in nats; of
samples of the law itself it is (K - 1) / (2 n).
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import RESULTS, about, write_json
from benchmarks.tokens.small_network import initial, layers, train
from fmjax import solve, solve_sde, solver_spec
from fmjax.discrete import (
    Masked,
    MixturePath,
    ScoreEntropy,
    SimplexPath,
    Unmask,
    corners,
    nearest_corners,
    simplex_velocity,
)

LENGTH, WIDTH = 4, 128
METHODS = ("linear", "fisher", "mask", "uniform")


def path_of(method: str, kinds: int):
    """The path of a method."""
    if method in ("linear", "fisher"):
        return SimplexPath(kinds, method)
    loss = Masked() if method == "mask" else ScoreEntropy()
    return MixturePath(kinds, method, loss=loss)


def network_of(kinds: int):
    """Logits (n, 4, kinds) of tokens, or of points of the simplex."""

    def network(params, x, t, labels=None):
        h = jax.nn.one_hot(x, kinds + 1) if x.ndim == 2 else x
        h = jnp.concatenate([h.reshape(len(x), -1), t[:, None]], axis=1)
        return layers(params, h).reshape(len(x), LENGTH, kinds)

    return network


def solved(method, path, denoiser, n: int, steps: int, seed: int) -> np.ndarray:
    """n samples (n, 4)."""
    index, key = jnp.arange(n), jax.random.key(seed)
    if isinstance(path, MixturePath):
        x0 = path.source.sample(key, index, (LENGTH,))
        keys = jax.random.split(jax.random.fold_in(key, 1), n)
        return solve_sde(denoiser, x0, keys, None, Unmask(path, steps)).x1
    x0 = path.source.sample(key, index, (LENGTH, path.vocabulary))
    name = "geodesic_euler" if method == "fisher" else "euler"
    solver = solver_spec(name, steps, manifold=path.manifold)
    return nearest_corners(solve(simplex_velocity(denoiser, path), x0, None, solver).x1)


def divergence(x: np.ndarray, law: np.ndarray) -> float:
    """The mean over the tokens of KL(counts, law)."""
    total = 0.0
    for i, p in enumerate(law):
        q = np.bincount(x[:, i], minlength=len(p)) / len(x)
        total += np.sum(q[q > 0] * np.log(q[q > 0] / p[q > 0]))
    return total / len(law)


def measured(method: str, kinds: int, args: argparse.Namespace) -> float:
    """The divergence of one method."""
    noise = np.random.default_rng(kinds).uniform(size=(LENGTH, kinds))
    law = np.exp(noise) / np.exp(noise).sum(axis=1, keepdims=True)
    logits, path = jnp.asarray(np.log(law), jnp.float32), path_of(method, kinds)

    def data(key, n):
        x = jax.random.categorical(key, logits[None], shape=(n, LENGTH))
        return x if isinstance(path, MixturePath) else corners(x, kinds)

    network, wide = network_of(kinds), kinds + isinstance(path, MixturePath)
    params = initial(jax.random.key(0), LENGTH * wide + 1, WIDTH, 2, LENGTH * kinds)
    how = {"steps": args.steps, "batch": 512, "rate": 1e-3}
    params, _ = train(network, params, path, data, **how)
    part = min(args.samples, 20_000)

    @jax.jit
    def draw(seed):
        return solved(method, path, lambda x, t, y=None: network(params, x, t), part, 50, seed)

    x = np.concatenate([np.asarray(draw(seed)) for seed in range(args.samples // part)])
    return float(divergence(x, law))


def main() -> None:
    """Trains every method for every K, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", default="20,40,80,160", help="K, separated by commas")
    parser.add_argument("--steps", type=int, default=2000, help="of Adam")
    parser.add_argument("--samples", type=int, default=100_000, help="a multiple of 20,000")
    parser.add_argument("--out", default=str(RESULTS / "dirichlet_tokens.json"))
    args = parser.parse_args()
    rows = {}
    for kinds in map(int, args.kinds.split(",")):
        rows[kinds] = {"floor": round((kinds - 1) / (2 * args.samples), 5)}
        for method in METHODS:
            rows[kinds][method] = round(measured(method, kinds, args), 5)
            print(kinds, method, rows[kinds][method], flush=True)
    setting = {"steps": args.steps, "samples": args.samples}
    write_json(Path(args.out), {**about(), "setting": setting, "kl_nats": rows})


if __name__ == "__main__":
    main()
