"""Tokens of many kinds by four flows: how far the law of samples is from that of the data.

    python -m benchmarks.tokens.dirichlet

Four independent tokens of K kinds, each with probabilities softmax(U(0, 1)) of its own, as in Stark
et al., arXiv:2402.05841. Reported is the mean over the tokens of KL(samples, law), in nats; of
samples of the law itself it is (K - 1) / (2 n), the floor. The flows on the simplex
are solved from the exact posterior, too, which leaves the error of the steps alone.
"""

import argparse
import time
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
SOLVER_STEPS = {"linear": (50, 400), "fisher": (50,), "mask": (50,), "uniform": (50,)}


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


def exact_posterior(path: SimplexPath, log_law: jax.Array):
    """The exact posterior as a network of this path.

    Of the linear path the point x_t can end at the corner y where (x_t - t e_y) / (1 - t) lies
    inside the simplex, which is where x_t has t or more at y; all its starts are as likely. Of the
    geodesic the distance a to the corner grows to a / (1 - t), at most pi / 2, and a cap of it by
    the sines of both, to the power K - 2. A point that no corner explains, by the error of the
    steps before, goes to the corner that lacks least.
    """
    power = path.vocabulary - 2

    def logits(x, t, labels=None):
        t = t[:, None, None]
        if path.geometry == "linear":
            log_density, lacking = 0.0, t - x
        else:
            angle = jnp.arccos(jnp.clip(jnp.sqrt(x), 0, 1 - 1e-6))
            start = angle / (1 - t)
            ratio = jnp.sin(jnp.minimum(start, jnp.pi / 2)) / jnp.sin(angle)
            log_density, lacking = power * jnp.log(ratio), start - jnp.pi / 2
        return log_density - 1e6 * jnp.maximum(lacking, 0) + log_law[None]

    return logits


def solved(path, denoiser, n: int, steps: int) -> np.ndarray:
    """n samples (n, 4)."""
    index, key = jnp.arange(n), jax.random.key(2)
    if isinstance(path, MixturePath):
        x0 = path.source.sample(key, index, (LENGTH,))
        keys = jax.random.split(jax.random.fold_in(key, 1), n)
        solver = Unmask(path, steps)
        return np.asarray(jax.jit(lambda x: solve_sde(denoiser, x, keys, None, solver).x1)(x0))
    x0 = path.source.sample(key, index, (LENGTH, path.vocabulary))
    name = "geodesic_euler" if path.geometry == "fisher" else "euler"
    solver = solver_spec(name, steps, manifold=path.manifold)
    velocity = simplex_velocity(denoiser, path)
    x1 = jax.jit(lambda x: solve(velocity, x, None, solver).x1)(x0)
    return np.asarray(nearest_corners(x1))


def divergence(x: np.ndarray, law: np.ndarray) -> float:
    """The mean over the tokens of KL(counts, law)."""
    total = 0.0
    for i, p in enumerate(law):
        q = np.bincount(x[:, i], minlength=len(p)) / len(x)
        total += np.sum(q[q > 0] * np.log(q[q > 0] / p[q > 0]))
    return float(total / len(law))


def measured(method: str, kinds: int, args: argparse.Namespace) -> dict:
    """The divergences of one method by the number of steps, and the seconds of all of it."""
    begun = time.process_time()
    noise = np.random.default_rng(kinds).uniform(size=(LENGTH, kinds))
    law = np.exp(noise) / np.exp(noise).sum(axis=1, keepdims=True)
    log_law, path = jnp.asarray(np.log(law), jnp.float32), path_of(method, kinds)
    jumps = isinstance(path, MixturePath)

    def data(key, n):
        x = jax.random.categorical(key, log_law[None], shape=(n, LENGTH))
        return x if jumps else corners(x, kinds)

    network = network_of(kinds)
    params = initial(jax.random.key(0), LENGTH * (kinds + jumps) + 1, WIDTH, 2, LENGTH * kinds)
    how = {"steps": args.steps, "batch": 512, "rate": 1e-3}
    params, _ = train(network, params, path, data, **how)
    denoisers = {"network": lambda x, t, labels=None: network(params, x, t)}
    if not jumps:
        denoisers["exact"] = exact_posterior(path, log_law)
    found = {
        f"{name}, {steps} steps": round(divergence(solved(path, f, args.samples, steps), law), 5)
        for name, f in denoisers.items()
        for steps in SOLVER_STEPS[method]
    }
    return {**found, "cpu_seconds": round(time.process_time() - begun, 1)}


def main() -> None:
    """Trains every method for every K, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", default="20,40,80,160", help="K, separated by commas")
    parser.add_argument("--steps", type=int, default=2000, help="of Adam")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--out", default=str(RESULTS / "dirichlet_tokens.json"))
    args = parser.parse_args()
    setting, rows = {"steps": args.steps, "batch": 512, "samples": args.samples}, {}
    for kinds in map(int, args.kinds.split(",")):
        rows[kinds] = {"floor": round((kinds - 1) / (2 * args.samples), 5)}
        for method in SOLVER_STEPS:
            rows[kinds][method] = measured(method, kinds, args)
            print(kinds, method, rows[kinds][method], flush=True)
        # After every K, so that a run that is cut short leaves what it has.
        write_json(Path(args.out), {**about(), "setting": setting, "kl_nats": rows})


if __name__ == "__main__":
    main()
