"""Where tokens start: the laws of x0. Each is independent from place to place."""

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Integer, PRNGKeyArray

from fmjax.checks import check_at_least
from fmjax.conventions import Array, example_keys, per_example_sum
from fmjax.discrete.tokens import as_tokens
from fmjax.errors import InputError
from fmjax.sources import Shape


class TokenSource(Protocol):
    """A `fmjax.sources.Source` of tokens, each place drawn by itself from the same law p_0.

    Attributes:
        vocabulary: the number of data tokens, from 0 to vocabulary - 1.
    """

    @property
    def vocabulary(self) -> int:
        """The number of data tokens."""

    def sample(
        self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape
    ) -> Integer[Array, "batch ..."]:
        """Tokens (batch, *shape), int32; see `fmjax.sources.Law`."""

    def log_prob(self, x: Integer[Array, "batch ..."]) -> Float[Array, " batch"]:
        """The log-probability in nats (batch,) of tokens (batch, ...)."""

    def probabilities(self) -> Float[np.ndarray, " vocabulary"]:
        """p_0 of the data tokens (vocabulary,), float64; all 0 where the source is the mask."""


@dataclass(frozen=True)
class MaskTokens:
    """Every token is the mask, which is one token more than the data have: number `vocabulary`.

    Args:
        vocabulary: the number of data tokens.

    Raises:
        InputError: it is no whole number of at least 2.
    """

    vocabulary: int

    def __post_init__(self):
        check_vocabulary(self.vocabulary)

    @property
    def mask(self) -> int:
        """The mask, which is no data token."""
        return self.vocabulary

    def sample(
        self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape
    ) -> Integer[Array, "batch ..."]:
        """Masks (batch, *shape); the key is not used."""
        example_keys(key, index)
        return jnp.full((*index.shape, *shape), self.mask, jnp.int32)

    def log_prob(self, x: Integer[Array, "batch ..."]) -> Float[Array, " batch"]:
        """0 where every token is the mask, else -infinity."""
        x = as_tokens("x", x, self.vocabulary + 1)
        return per_example_sum(jnp.where(x == self.mask, 0.0, -jnp.inf))

    def probabilities(self) -> Float[np.ndarray, " vocabulary"]:
        """See `TokenSource.probabilities`."""
        return np.zeros(self.vocabulary)


@dataclass(frozen=True)
class UniformTokens:
    """Every data token is as likely as any other.

    Args:
        vocabulary: the number of data tokens.

    Raises:
        InputError: it is no whole number of at least 2.
    """

    vocabulary: int

    def __post_init__(self):
        check_vocabulary(self.vocabulary)

    def sample(
        self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape
    ) -> Integer[Array, "batch ..."]:
        """Tokens (batch, *shape), int32."""

        def one(key):
            return jax.random.randint(key, shape, 0, self.vocabulary, jnp.int32)

        return jax.vmap(one)(example_keys(key, index))

    def log_prob(self, x: Integer[Array, "batch ..."]) -> Float[Array, " batch"]:
        """-L log(vocabulary) for L tokens, in nats (batch,)."""
        x = as_tokens("x", x, self.vocabulary)
        return per_example_sum(jnp.full(x.shape, -math.log(self.vocabulary)))

    def probabilities(self) -> Float[np.ndarray, " vocabulary"]:
        """See `TokenSource.probabilities`."""
        return np.full(self.vocabulary, 1 / self.vocabulary)


@dataclass(frozen=True)
class CategoricalTokens:
    """Tokens of any p_0, such as the frequencies of the data.

    Args:
        p: the probability of each data token, a sequence of numbers of at least 0 that sum to 1.

    Raises:
        InputError: there are fewer than two, one is negative, or they do not sum to 1.
    """

    p: tuple[float, ...]

    def __post_init__(self):
        try:
            p = np.asarray(self.p, np.float64)
        except (TypeError, ValueError):
            p = np.zeros(0)  # refused below
        if p.ndim != 1 or len(p) < 2 or not (np.all(p >= 0) and abs(p.sum() - 1) < 1e-4):
            raise InputError(
                "p must be the probabilities of the tokens, at least two numbers of at least 0 "
                f"that sum to 1; got {self.p!r:.60}."
            )
        object.__setattr__(self, "p", tuple(float(one) for one in p / p.sum()))

    @property
    def vocabulary(self) -> int:
        """The number of data tokens."""
        return len(self.p)

    def sample(
        self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape
    ) -> Integer[Array, "batch ..."]:
        """Tokens (batch, *shape), int32."""
        logits = self._logits()

        def one(key):
            return jax.random.categorical(key, logits, shape=shape).astype(jnp.int32)

        return jax.vmap(one)(example_keys(key, index))

    def log_prob(self, x: Integer[Array, "batch ..."]) -> Float[Array, " batch"]:
        """The sum of log p_0 over the tokens, in nats (batch,)."""
        return per_example_sum(self._logits()[as_tokens("x", x, self.vocabulary)])

    def probabilities(self) -> Float[np.ndarray, " vocabulary"]:
        """See `TokenSource.probabilities`."""
        return np.asarray(self.p)

    def _logits(self) -> Array:
        with np.errstate(divide="ignore"):
            return jnp.asarray(np.log(self.p))


def check_vocabulary(vocabulary: int) -> None:
    """Checks a number of tokens.

    Raises:
        InputError: it is no whole number of at least 2.
    """
    check_at_least("the vocabulary, the number of tokens,", vocabulary, 2)
