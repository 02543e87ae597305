"""Paths of any probabilities, with the rates of least kinetic energy; those of a metric.

Of all rates whose tokens are at every t distributed as p_t(. | x1), these have the least kinetic
energy of the flux, in the metric that p_t itself gives:

    u_t(y, x | x1) = p_t(y | x1) max(d/dt log p_t(y | x1) - d/dt log p_t(x | x1), 0)

Source: Shaul et al., arXiv:2412.03487.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_flag, check_methods, check_positive
from fmjax.conventions import Array
from fmjax.discrete.base import TokenLoss, TokenPath, check_loss, times_for
from fmjax.discrete.guess import Guess, guided_rates
from fmjax.discrete.losses import CrossEntropy
from fmjax.discrete.token_sources import (
    CategoricalTokens,
    TokenSource,
    UniformTokens,
    check_vocabulary,
)
from fmjax.discrete.tokens import (
    NEVER,
    OfPlaces,
    OfStates,
    OfTokens,
    Tokens,
    TokenTimes,
    as_logits,
    invert_cdf,
    one_hot,
    pick,
)
from fmjax.errors import InputError
from fmjax.schedules import END, clamp

_ENDS = 1e-3


class KineticPath(TokenPath):
    """A path of any probabilities that has the kinetic-optimal rates; `MetricPath`, `OwnPath`."""

    add_likelihood: bool

    @abc.abstractmethod
    def log_weights(self, x1: Tokens, t: TokenTimes) -> OfStates:
        """log p_t(. | x1) up to a constant of each row.

        Args:
            x1: data tokens (...).
            t: times that broadcast against x1, inside (0, 1).

        Returns:
            (..., vocabulary), finite, differentiable in t.
        """

    @property
    def states(self) -> int:
        """The vocabulary: no mask."""
        return self.vocabulary

    def probabilities(self, x1: Tokens, t: TokenTimes) -> OfStates:
        """p_t(. | x1); see `TokenPath.probabilities`."""
        return jax.nn.softmax(self._log_weights(x1, t))

    def rates(self, x: Tokens, x1: Tokens, t: TokenTimes) -> OfStates:
        """The rates of least kinetic energy; see `TokenPath.rates`."""
        p, slope = self._moving(x1, t)
        return p * jnp.maximum(slope - pick(slope, x)[..., None], 0.0)

    def marginal_rates(self, log_p: OfTokens, x: Tokens, t: TokenTimes) -> OfStates:
        """The mean of `rates` over x1; see `TokenPath.marginal_rates`.

        It holds vocabulary x vocabulary numbers at every token.
        """
        x1 = jnp.broadcast_to(jnp.arange(self.vocabulary), (*x.shape, self.vocabulary))
        t = jnp.broadcast_to(t, x.shape)[..., None]
        each = self.rates(jnp.broadcast_to(x[..., None], x1.shape), x1, t)
        return jnp.sum(jnp.exp(log_p)[..., None] * each, axis=-2)

    def log_posterior(self, logits: OfTokens, x: Tokens, t: TokenTimes) -> OfTokens:
        """log p(x1 | x_t); see `TokenPath.log_posterior`."""
        logits = as_logits(logits, x, self.vocabulary)
        if self.add_likelihood:
            logits = logits + self._log_likelihoods(x, times_for(t, x))
        return jnp.maximum(jax.nn.log_softmax(logits), NEVER)

    def _log_likelihoods(self, x: Array, t: Array) -> Array:
        """log p_t(x | x1) for every x1 (..., vocabulary)."""
        x1 = jnp.broadcast_to(jnp.arange(self.vocabulary), (*x.shape, self.vocabulary))
        t = jnp.broadcast_to(t, x.shape)[..., None]
        log_p = jax.nn.log_softmax(self._log_weights(x1, t))
        here = one_hot(x, self.vocabulary, log_p)[..., None, :]
        return jnp.maximum(jnp.sum(log_p * here, axis=-1), NEVER)

    def rate_divergence(self, log_p: OfTokens, x1: Tokens, x: Tokens, t: TokenTimes) -> OfPlaces:
        """The generalised KL at every token; see `fmjax.discrete.losses.GeneralisedKL`."""
        t = times_for(t, x)
        wanted, found = self.rates(x, x1, t), self.marginal_rates(log_p, x, t)
        active = (wanted > 0) & (found > 0)
        ratio = jnp.where(active, wanted, 1.0) / jnp.where(active, found, 1.0)
        return jnp.sum(found - wanted + wanted * jnp.log(ratio), axis=-1)

    def leap(
        self, guess: Guess, x: Tokens, x1: Tokens, t: TokenTimes, s: TokenTimes, u: OfPlaces
    ) -> Tokens:
        """A step at the rates of t: given x1, or the guided ones; see `TokenPath.leap`."""
        t = jnp.broadcast_to(t, x.shape)
        branches = guess.branches
        rates = guided_rates(self, branches, x, t) if branches else self.rates(x, x1, t)
        chance = -jnp.expm1(-(s - t) * jnp.sum(rates, axis=-1))
        jumps = u < chance
        inside = jnp.where(jumps, u / jnp.where(jumps, chance, 1.0), 0.0)
        return jnp.where(jumps, invert_cdf(rates, inside), x)

    def _at(self, x0: Array, x1: Array, t: Array, u: Array) -> Array:
        return invert_cdf(self.probabilities(x1, t), u)

    def _log_weights(self, x1: Array, t: Array) -> Array:
        t = jnp.broadcast_to(t, jnp.broadcast_shapes(x1.shape, jnp.shape(t)))
        return self.log_weights(x1, clamp(t, END, 1 - END))

    def _moving(self, x1: Array, t: Array) -> tuple[Array, Array]:
        """p_t(. | x1) and its logarithmic derivative, up to a constant of each row."""
        t = jnp.asarray(t)
        weights, slope = jax.jvp(lambda t: self._log_weights(x1, t), (t,), (jnp.ones_like(t),))
        return jax.nn.softmax(weights), slope


@dataclass(frozen=True, eq=False)
class MetricPath(KineticPath):
    """Tokens near the data token come before those far from it.

        p_t(x | x1) = softmax over x of -beta_t dist(x, x1),    beta_t = c (t / (1 - t))^a
        u_t(y, x | x1) = p_t(y | x1) beta'_t max(dist(x, x1) - dist(y, x1), 0)

    At t = 0 all tokens are equally likely. The rates lead towards x1 alone. Source: Shaul et al.,
    arXiv:2412.03487.

    Args:
        distances: dist(x, x1), (vocabulary, vocabulary), the row of x1 its distances to every x;
            for tokens with an embedding, `embedding_distances`.
        c: the scale of beta, positive.
        a: its power, positive.
        loss: as in `MixturePath`.
        add_likelihood: as in `MixturePath`.

    Raises:
        InputError: the distances are no square array of numbers of at least 0, or one of them is 0
            between two tokens, or not 0 from a token to itself; c or a is not positive.
    """

    distances: Any
    c: float = 3.0
    a: float = 0.9
    loss: TokenLoss = field(default_factory=CrossEntropy)
    add_likelihood: bool = True

    def __post_init__(self):
        object.__setattr__(self, "distances", _checked_distances(self.distances))
        check_positive("c of MetricPath", self.c)
        check_positive("a of MetricPath", self.a)
        check_flag("add_likelihood", self.add_likelihood)
        check_loss(self)

    @property
    def vocabulary(self) -> int:  # type: ignore[override]  # a field of the other paths
        """The number of tokens."""
        return len(self.distances)

    @property
    def source(self) -> TokenSource:
        """The law of x0: all tokens are equally likely."""
        return UniformTokens(self.vocabulary)

    def log_weights(self, x1: Tokens, t: TokenTimes) -> OfStates:
        """-beta_t dist(., x1); see `KineticPath.log_weights`."""
        beta = self.c * jnp.exp(self.a * (jnp.log(t) - jnp.log1p(-t)))
        return -beta[..., None] * jnp.asarray(self.distances, beta.dtype)[x1]


@dataclass(frozen=True, eq=False)
class OwnPath(KineticPath):
    """A path of your own probabilities p_t(. | x1), with its kinetic-optimal rates.

    Args:
        vocabulary: the number of tokens.
        weights_fn: ``weights_fn(x1, t) -> (..., vocabulary)``, log p_t(. | x1) up to a constant,
            for tokens x1 (...) and times t (...) inside (0, 1), made of jax operations, finite.
        loss: as in `MixturePath`.
        add_likelihood: as in `MixturePath`.

    Raises:
        InputError: the function gives another shape or what is not finite; or p_t depends on x1 at
            t = 0, or at t = 1 is not x1 alone, to within 1e-3.
    """

    vocabulary: int
    weights_fn: Callable[[Tokens, TokenTimes], OfStates]
    loss: TokenLoss = field(default_factory=CrossEntropy)
    add_likelihood: bool = True

    def __post_init__(self):
        check_vocabulary(self.vocabulary)
        check_methods("weights_fn", self.weights_fn, such_as="lambda x1, t: ...")
        check_flag("add_likelihood", self.add_likelihood)
        check_loss(self)
        start, end = self._end(0.0), self._end(1.0)
        if not np.abs(start - start[:1]).max() < _ENDS:
            raise InputError(
                "p_t of a path must be the same for every x1 at t = 0, the law of the source; that "
                f"of weights_fn differs by {np.abs(start - start[:1]).max():.2g}."
            )
        if not np.abs(end - np.eye(self.vocabulary)).max() < _ENDS:
            raise InputError(
                "p_t of a path must be x1 alone at t = 1; that of weights_fn has the probability "
                f"{np.diagonal(end).min():.4g} there."
            )

    @property
    def source(self) -> TokenSource:
        """The law of x0: p_0."""
        p = self._end(0.0)[0]
        return CategoricalTokens(tuple(p / p.sum()))

    def log_weights(self, x1: Tokens, t: TokenTimes) -> OfStates:
        """See `KineticPath.log_weights`."""
        weights = self.weights_fn(x1, t)
        wanted = jax.ShapeDtypeStruct((*x1.shape, self.vocabulary), jnp.float32)
        check_returned("weights_fn", weights, "(*x1.shape, vocabulary)", wanted)
        return weights

    def _end(self, t: float) -> np.ndarray:
        """p_t(. | x1), a row for each x1, float64."""
        with jax.ensure_compile_time_eval():
            x1 = jnp.arange(self.vocabulary)
            p = np.asarray(self.probabilities(x1, jnp.full(x1.shape, t)), np.float64)
        if not np.all(np.isfinite(p)):
            raise InputError(f"weights_fn must be finite inside (0, 1); near t = {t:g} it is not.")
        return p


def embedding_distances(
    embedding: Any, power: float = 2.0
) -> Float[np.ndarray, "vocabulary vocabulary"]:
    """Distances between tokens that have an embedding, ||e_x - e_y||^power, of mean 1.

    Args:
        embedding: (vocabulary, width), no two rows the same.
        power: positive.

    Returns:
        (vocabulary, vocabulary), float64, with the mean 1 between different tokens, so that the c
        of `MetricPath` means the same for any embedding.

    Raises:
        InputError: the embedding has another shape, is not finite or has equal rows, or power is
            not positive.
    """
    check_positive("the power of the distances", power)
    try:
        e = np.asarray(embedding, np.float64)
    except (TypeError, ValueError):
        e = np.zeros(0)  # refused below
    if e.ndim != 2 or len(e) < 2 or not np.all(np.isfinite(e)):
        raise InputError(
            "the embedding must be finite numbers (vocabulary, width), of two tokens at least; got "
            f"{embedding!r:.60} of shape {e.shape}."
        )
    if len(np.unique(e, axis=0)) < len(e):
        raise InputError("two tokens have the same embedding; the metric path needs them apart.")
    square = np.square(e).sum(axis=1)
    gaps = np.maximum(square[:, None] + square[None] - 2 * e @ e.T, 0)
    np.fill_diagonal(gaps, 0)
    distances = gaps ** (power / 2)
    return distances / (distances.sum() / (len(e) * (len(e) - 1)))


def _checked_distances(distances: Any) -> np.ndarray:
    try:
        d = np.asarray(distances, np.float64)
    except (TypeError, ValueError):
        d = np.zeros(0)  # refused below
    if d.ndim != 2 or d.shape[0] != d.shape[1] or len(d) < 2:
        raise InputError(
            f"the distances must be (vocabulary, vocabulary), two tokens at least; got {d.shape}."
        )
    apart = d[~np.eye(len(d), dtype=bool)]
    if not (np.all(np.isfinite(d)) and np.all(apart > 0) and np.all(np.diagonal(d) == 0)):
        raise InputError(
            "the distances must be finite, 0 from a token to itself and above 0 between two; they "
            f"go from {d.min():g} to {d.max():g}, and {np.sum(apart <= 0)} pairs have none."
        )
    return d
