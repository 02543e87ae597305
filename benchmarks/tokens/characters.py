"""Characters of a text: bits of held-out ones by masks, by random tokens, and one after another.

    python -m benchmarks.tokens.characters --data=FOLDER            # with tinyshakespeare.txt
    python -m benchmarks.tokens.characters --data=FOLDER --models=mask

The text is that of github.com/karpathy/char-rnn, 1,115,394 characters of 65 kinds; without --data
it is Romeo and Juliet, which comes with fmjax. All three models are one transformer, parameter for
parameter, trained with the same steps on the same blocks: with masks by the bound of MD4 and MDLM,
from uniform tokens by the cross-entropy, and with causal attention on the next character. The last
tenth of the text is held out, in blocks of which each is modelled by itself. Of the flows the bits
are upper bounds, the tightest known (the score entropy from uniform tokens), estimated at so many
times a block; +- is the standard error of that estimate, the held-out text being what it is. Those
of the causal model are exact. Models that are not asked for
keep their rows in the file.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import RESULTS, about, write_json
from benchmarks.tokens.causal import NextToken, causal, next_tokens
from benchmarks.tokens.small_network import train
from fmjax import solve_sde
from fmjax.data.load import load
from fmjax.data.texts.own_text import own_text
from fmjax.data.token_codecs import Text
from fmjax.discrete import CrossEntropy, Masked, MixturePath, Unmask, token_log_likelihood
from fmjax.models.adapters import from_linen
from fmjax.models.token_transformer import TokenTransformer
from fmjax.models.tokens import without_time

MODELS = ("mask", "uniform", "autoregressive")


def text_of(folder: Path | None, length: int) -> tuple[Text, np.ndarray, np.ndarray]:
    """The characters of a text, its blocks to train on, and those held out."""
    if folder is None:
        found = load(f"text/romeo_and_juliet/{length}")
        return found.codec, found.train.x, found.test.x
    own = own_text(folder / "tinyshakespeare.txt", length)
    return own.codec, own.train.arrays["x"], own.test.arrays["x"]


def path_of(name: str, vocabulary: int) -> MixturePath | NextToken:
    """What a model is trained on."""
    if name == "autoregressive":
        return NextToken(vocabulary)
    return MixturePath(vocabulary, name, loss=Masked() if name == "mask" else CrossEntropy())


def network_of(name: str, model: TokenTransformer):
    """The transformer as the network of a model."""
    if name == "autoregressive":
        return causal(model)
    # How many tokens are masked says the time.
    return without_time(from_linen(model)) if name == "mask" else from_linen(model)


def bits(network, params: Any, path, x1: np.ndarray, times: int) -> dict:
    """Bits per character, and their standard error."""
    if isinstance(path, NextToken):
        x0, t = jnp.full(x1.shape, path.source.vocabulary), jnp.zeros(len(x1))

        def cost(x1):
            point = path.sample(x0, x1, t)
            return path.distance(network(params, point.x_t, t), x1, point.x_t, t)

        return {"bits": _round(np.mean(jax.jit(cost)(x1), dtype=float)), "std_error": 0.0}

    def bound(x1):
        denoiser = lambda x, t, labels=None: network(params, x, t)  # noqa: E731
        return token_log_likelihood(denoiser, path, x1, key=jax.random.key(8), times=times)

    found = jax.jit(bound)(x1)
    error = np.sqrt(np.sum(np.square(found.std_error), dtype=float)) / x1.size
    nats = -np.sum(found.log_p, dtype=float) / x1.size
    return {"bits": _round(nats), "std_error": _round(error)}


def _round(nats: float) -> float:
    return round(float(nats) / math.log(2), 4)


def drawn(network, params: Any, path, n: int, length: int) -> np.ndarray:
    """Samples (n, length)."""
    key = jax.random.key(3)
    if isinstance(path, NextToken):
        k = path.source.vocabulary
        return np.asarray(jax.jit(lambda key: next_tokens(network, params, k, key, n, length))(key))
    x0 = path.source.sample(key, jnp.arange(n), (length,))
    keys, solver = jax.random.split(jax.random.key(4), n), Unmask(path, length)
    denoiser = lambda x, t, labels=None: network(params, x, t)  # noqa: E731
    return np.asarray(jax.jit(lambda x0: solve_sde(denoiser, x0, keys, None, solver).x1)(x0))


def row_of(name: str, text: tuple[Text, np.ndarray, np.ndarray], args: argparse.Namespace) -> dict:
    """Trains a model, and says what it reaches."""
    codec, blocks, held_out = text
    begun, path = time.process_time(), path_of(name, codec.vocabulary)
    model = TokenTransformer(codec.vocabulary, args.width, args.depth, heads=4)
    shown = jnp.asarray(blocks)
    params = jax.jit(model.init)(jax.random.key(0), shown[:1], jnp.zeros(1))["params"]
    network = network_of(name, model)
    how = {"steps": args.steps, "batch": args.batch, "rate": args.rate}

    def data(key, n):
        return shown[jax.random.randint(key, (n,), 0, len(shown))]

    params, seconds = train(network, params, path, data, **how)
    row = {"parameters": sum(p.size for p in jax.tree.leaves(params))}
    row |= {"seconds": round(seconds), "cpu_seconds": round(time.process_time() - begun)}
    row |= {"held_out": bits(network, params, path, held_out, args.times)}
    return row | {"samples": codec.write(drawn(network, params, path, 3, args.length))}


def main() -> None:
    """Trains the models, and writes their rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder of tinyshakespeare.txt")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--length", type=int, default=128, help="characters in a block")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--steps", type=int, default=800, help="of Adam")
    parser.add_argument("--batch", type=int, default=16, help="blocks in a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="the first learning rate")
    parser.add_argument("--times", type=int, default=8, help="of the bound, for each block")
    parser.add_argument("--out", type=Path, default=RESULTS / "characters.json")
    args = parser.parse_args()
    text = text_of(args.data, args.length)
    setting = {k: v for k, v in vars(args).items() if k not in ("data", "models", "out")}
    setting |= {
        "text": "tinyshakespeare" if args.data else "romeo_and_juliet",
        "kinds": text[0].vocabulary,
    }
    for name in args.models:
        row = row_of(name, text, args)
        print(name, json.dumps(row, indent=1), flush=True)
        # Read only now: a call for another model may have written meanwhile.
        known = json.loads(args.out.read_text()) if args.out.exists() else {}
        rows = known.get("rows", {}) if known.get("setting") == setting else {}
        about_it = about(flags=False, cores=len(os.sched_getaffinity(0)))
        write_json(args.out, {**about_it, "setting": setting, "rows": {**rows, name: row}})


if __name__ == "__main__":
    main()
