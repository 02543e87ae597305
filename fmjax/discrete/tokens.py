"""Tokens: their checks, and draws of them from probabilities."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Integer, Key, Shaped

from fmjax.array_checks import check_returned, is_concrete, shape_of
from fmjax.conventions import Array, at_least_float32, dtype_of
from fmjax.errors import InputError

Tokens = Integer[Array, "*places"]
"""A token at every place, (batch, ...)."""

OfPlaces = Float[Array, "*places"]
"""A number at every place."""

OfTokens = Float[Array, "*places vocabulary"]
"""A number for each data token at every place, such as a network's logits."""

OfStates = Float[Array, "*places states"]
"""A number for each state at every place: the data tokens and, where there is one, the mask."""

TokenTimes = Float[Array, "*times"]
"""Times (batch,), or of a shape that broadcasts against that of the tokens."""

NEVER = -1e9
"""The log-probability of what cannot be: its exponential is 0, and products with it are finite."""


def as_tokens(what: str, x: Any, count: int) -> Int[Array, "..."]:
    """Tokens as int32, once they are some.

    Args:
        what: as the message names them.
        x: integers (batch, ...).
        count: how many tokens there are; they are numbered from 0.

    Raises:
        InputError: they are not of integers, or one lies outside of 0 to count - 1.
    """
    shape_of(what, x)
    if not jnp.issubdtype(dtype_of(x), jnp.integer):
        raise InputError(
            f"{what} must be tokens, integers from 0 to {count - 1}; got {dtype_of(x)}. Write "
            f"{what}.astype(jnp.int32) if they are whole numbers."
        )
    if is_concrete(x) and jnp.size(x):
        with jax.ensure_compile_time_eval():
            low, high = int(jnp.min(x)), int(jnp.max(x))
        if low < 0 or high >= count:
            raise InputError(
                f"{what} must be tokens from 0 to {count - 1}; got {low if low < 0 else high}. "
                "The number of tokens is the vocabulary of the path."
            )
    return jnp.asarray(x, jnp.int32)


def as_logits(logits: Any, x: Tokens, vocabulary: int) -> Float[Array, "*places {vocabulary}"]:
    """Logits of data tokens in float32 or wider, once they fit the tokens.

    Args:
        logits: what the network gave (batch, ..., vocabulary).
        x: tokens (batch, ...).
        vocabulary: the number of data tokens.

    Raises:
        InputError: they are of another shape, or not of floats.
    """
    wanted = jax.ShapeDtypeStruct((*x.shape, vocabulary), jnp.float32)
    check_returned("the network", logits, "logits, (*x.shape, vocabulary)", wanted)
    return at_least_float32(logits)


def one_hot(x: Tokens, count: int, like: Float[Array, "..."]) -> Float[Array, "*places {count}"]:
    """One-hot vectors (..., count) of tokens (...), in the dtype of `like`; 0 for others."""
    return jax.nn.one_hot(x, count, dtype=like.dtype)


def pick(values: Float[Array, "... vocabulary"], x: Tokens) -> Float[Array, "..."]:
    """values[..., x]: of (..., count) and tokens (...), (...); 0 for a token that is not there.

    A product with one-hot vectors, which is faster than a gather and its transpose.
    """
    return jnp.sum(jnp.where(one_hot(x, values.shape[-1], values) > 0, values, 0), axis=-1)


def invert_cdf(weights: OfTokens, u: OfPlaces) -> Tokens:
    """The token at which the cumulated weights pass u times their sum.

    Args:
        weights: at least 0, (..., count), not necessarily of sum 1.
        u: uniform in [0, 1), (...).

    Returns:
        Tokens (...), int32, of which none has the weight 0 unless all have it.
    """
    total = jnp.cumsum(weights, axis=-1)
    level = u[..., None] * total[..., -1:]
    index = jnp.sum(total <= level, axis=-1, dtype=jnp.int32)
    # By rounding u times the sum may be the sum itself: the last token of any weight is meant.
    last = weights.shape[-1] - 1 - jnp.argmax(jnp.flip(weights > 0, -1), axis=-1)
    return jnp.minimum(index, last.astype(jnp.int32))


def draw(keys: Key[Array, " batch"], log_weights: OfTokens) -> Tokens:
    """A token at every place, with probabilities proportional to exp(log_weights).

    Args:
        keys: one per example (batch,).
        log_weights: (batch, ..., count).

    Returns:
        Tokens (batch, ...), int32.
    """
    drawn = jax.vmap(jax.random.categorical)(keys, log_weights)
    return drawn.astype(jnp.int32)


def uniform(
    keys: Key[Array, " batch"], x: Shaped[Array, "*shape"], dtype: Any
) -> Float[Array, "*shape"]:
    """Uniform numbers shaped as x, each example by its key."""
    return jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], dtype))(keys)
