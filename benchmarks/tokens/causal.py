"""The transformer of token flows as an autoregressive model: a place sees those before it alone."""

from collections.abc import Mapping
from typing import Any, ClassVar
from unittest import mock

import jax
import jax.numpy as jnp

from fmjax.conventions import ApplyFn, per_example_sum
from fmjax.discrete import MaskTokens
from fmjax.discrete.base import LOGITS
from fmjax.models import transformer
from fmjax.models.token_transformer import TokenTransformer
from fmjax.paths import PathSample
from fmjax.sources import NO_NOISE


class NextToken:
    """A path, for the training that all models share, on which x_t at every t is x1, shifted.

    Each place has the token before it, and the first one the mask, so that a network that sees no
    later place guesses every token from those before it alone. The loss is exact:

        -log p(x1) = -sum over i of log p(x1_i | x1_1, ..., x1_(i-1))
    """

    takes: ClassVar[str] = LOGITS
    noise = NO_NOISE

    def __init__(self, vocabulary: int):
        self.source = MaskTokens(vocabulary)

    def sample(
        self, x0: Any, x1: jax.Array, t: jax.Array, noise: Mapping[str, Any] | None = None
    ) -> PathSample:
        """The tokens, shifted by one place, and the tokens."""
        return PathSample(jnp.concatenate([x0[:, :1], x1[:, :-1]], axis=1), x1)

    def distance(self, logits: jax.Array, x1: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
        """The cross-entropy of each example (batch,), the mean over its tokens, in nats."""
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), x1[..., None], axis=-1)
        return -per_example_sum(log_p) / x1.shape[1]


def causal(model: TokenTransformer) -> ApplyFn:
    """The same transformer, parameter for parameter, with causal attention and without the time."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, *_: Any) -> jax.Array:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True)

    def apply_fn(params: Any, x: jax.Array, t: jax.Array, labels: Any = None) -> jax.Array:
        with mock.patch.object(transformer, "attend", attend):
            return model.apply({"params": params}, x, jnp.zeros_like(t), labels)

    return apply_fn


def next_tokens(
    apply_fn: ApplyFn, params: Any, vocabulary: int, key: jax.Array, n: int, length: int
) -> jax.Array:
    """n samples (n, length) of an autoregressive network, one place after another."""
    x0 = jnp.full((n, length + 1), vocabulary)

    def one(i, x):
        logits = apply_fn(params, x[:, :-1], jnp.zeros(n))[:, i]
        return x.at[:, i + 1].set(jax.random.categorical(jax.random.fold_in(key, i), logits))

    return jax.lax.fori_loop(0, length, one, x0)[:, 1:]
