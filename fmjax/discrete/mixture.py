"""The mixture path: each token is a source token until it turns into the data token."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fmjax.checks import check_flag, check_methods, check_name
from fmjax.conventions import Array
from fmjax.discrete.base import TokenLoss, TokenPath, check_loss, times_for
from fmjax.discrete.guess import Guess
from fmjax.discrete.kappas import check_kappa, hazard, share_left
from fmjax.discrete.losses import CrossEntropy
from fmjax.discrete.token_sources import (
    MaskTokens,
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
    one_hot,
    pick,
)
from fmjax.errors import InputError
from fmjax.schedules import END, Linear, Schedule, clamp

SOURCES: dict[str, Callable[[int], TokenSource]] = {"mask": MaskTokens, "uniform": UniformTokens}
"""The sources that have a name, made of the vocabulary."""

_TINY = 1e-30


@dataclass(frozen=True)
class MixturePath(TokenPath):
    """Each token is its source token before a random time, and its data token after it.

        p_t(. | x0, x1) = (1 - kappa_t) delta_{x0} + kappa_t delta_{x1}
        u_t(y, x | x1) = kappa'_t / (1 - kappa_t) delta_{x1}(y)       for y != x

    Source: Gat et al., arXiv:2407.15595.

    Args:
        vocabulary: the number of data tokens.
        start: where tokens start: ``"mask"``, a token that the data have not, number `vocabulary`;
            ``"uniform"``; or a source, such as `CategoricalTokens`.
        kappa: kappa_t as a schedule whose weights sum to one (`fmjax.discrete.kappas`).
        loss: what is trained; see `fmjax.discrete.losses`.
        add_likelihood: whether log p_t(x_t | x1) is added to the logits, so that the posterior is
            Bayes' rule and the network learns only what the other tokens say. Masks need none.

    Raises:
        InputError: the vocabulary is below 2, the source is none or has another vocabulary, or
            kappa is none.
    """

    vocabulary: int
    start: str | TokenSource = "mask"
    kappa: Schedule = field(default_factory=Linear)
    loss: TokenLoss = field(default_factory=CrossEntropy)
    add_likelihood: bool = True

    def __post_init__(self):
        check_vocabulary(self.vocabulary)
        check_kappa(self.kappa)
        check_flag("add_likelihood", self.add_likelihood)
        self._check_start()
        check_loss(self)

    def _check_start(self) -> None:
        if isinstance(self.start, str):
            check_name("source of tokens", self.start, SOURCES)
            return
        methods = ("sample", "log_prob", "probabilities", "vocabulary")
        check_methods("the source", self.start, *methods, such_as="'mask' or UniformTokens(27)")
        if self.start.vocabulary != self.vocabulary:
            raise InputError(
                f"the source has {self.start.vocabulary} tokens and the path {self.vocabulary}; "
                "write the same vocabulary in both."
            )

    @property
    def source(self) -> TokenSource:
        """The law of x0."""
        return SOURCES[self.start](self.vocabulary) if isinstance(self.start, str) else self.start

    @property
    def masks(self) -> bool:
        """Whether tokens start as masks."""
        return isinstance(self.source, MaskTokens)

    @property
    def states(self) -> int:
        """The vocabulary, and one more where there is a mask."""
        return self.vocabulary + self.masks

    def probabilities(self, x1: Tokens, t: TokenTimes) -> OfStates:
        """(1 - kappa_t) p_0 + kappa_t delta_{x1}; see `TokenPath.probabilities`."""
        t = jnp.broadcast_to(t, jnp.broadcast_shapes(x1.shape, jnp.shape(t)))
        rest, share = self.kappa.sigma(t)[..., None], self.kappa.alpha(t)[..., None]
        p0 = self._p0(rest.dtype).reshape((1,) * x1.ndim + (-1,))
        return rest * p0 + share * one_hot(x1, self.states, rest)

    def rates(self, x: Tokens, x1: Tokens, t: TokenTimes) -> OfStates:
        """kappa' / (1 - kappa) at y = x1, 0 elsewhere; see `TokenPath.rates`."""
        rate = jnp.where(x != x1, hazard(self.kappa, t), 0.0)[..., None]
        return rate * one_hot(x1, self.states, rate)

    def marginal_rates(self, log_p: OfTokens, x: Tokens, t: TokenTimes) -> OfStates:
        """kappa' / (1 - kappa) p(y | x_t); see `TokenPath.marginal_rates`."""
        p = self._as_states(jnp.exp(log_p))
        return hazard(self.kappa, t)[..., None] * p * (1 - one_hot(x, self.states, p))

    def log_posterior(self, logits: OfTokens, x: Tokens, t: TokenTimes) -> OfTokens:
        """log p(x1 | x_t): a token that is not masked is known; see `TokenPath.log_posterior`."""
        logits = as_logits(logits, x, self.vocabulary)
        here = one_hot(x, self.vocabulary, logits)
        if self.masks:
            log_p = jnp.maximum(jax.nn.log_softmax(logits), NEVER)
            known = (x != self.vocabulary)[..., None]
            return jnp.where(known, jnp.where(here > 0, 0.0, NEVER), log_p)
        if self.add_likelihood:
            logits = logits + here * self._log_likelihood_ratio(x, times_for(t, x))[..., None]
        return jnp.maximum(jax.nn.log_softmax(logits), NEVER)

    def _log_likelihood_ratio(self, x: Array, t: Array) -> Array:
        """log p_t(x | x) - log p_t(x | another token)."""
        rest = self.kappa.sigma(t)
        p0 = pick(self._p0_at(x, rest.dtype), x)
        return jnp.log1p(self.kappa.alpha(t) / jnp.maximum(rest * p0, _TINY))

    def _at(self, x0: Array, x1: Array, t: Array, u: Array) -> Array:
        return jnp.where(u < self.kappa.alpha(t), x1, x0)

    def rate_divergence(self, log_p: OfTokens, x1: Tokens, x: Tokens, t: TokenTimes) -> OfPlaces:
        """The generalised KL at every token; see `fmjax.discrete.losses.GeneralisedKL`."""
        log_here = pick(log_p, x)
        # The mask is no token of the posterior, of which `pick` makes 0.
        p_here = jnp.where(x == self.vocabulary, 0.0, jnp.exp(log_here))
        moved = -p_here - pick(log_p, x1)
        divergence = jnp.where(x == x1, -jnp.expm1(log_here), moved)
        return hazard(self.kappa, times_for(t, x)) * divergence

    def score_entropy(self, log_p: OfTokens, x1: Tokens, x: Tokens, t: TokenTimes) -> OfPlaces:
        """The score entropy at every token; see `fmjax.discrete.losses.ScoreEntropy`."""
        if self.masks:
            return self.rate_divergence(log_p, x1, x, t)
        t = clamp(times_for(t, x), END, 1 - END)
        share, rest = self.kappa.alpha(t), self.kappa.sigma(t)
        p, here = jnp.exp(log_p), one_hot(x, self.vocabulary, log_p)
        q = self._p0_at(x, log_p.dtype)
        stayed = (x == x1).astype(log_p.dtype)
        whole = share + rest * pick(q, x)  # p_t(x | x); of other x1 it is rest * q(x)
        # Ratios times rest * q(x): of x1, and how far their mean under the model lies from them.
        jumped = one_hot(x1, self.vocabulary, log_p) * (1 - stayed)[..., None]
        shrunk = jnp.where(stayed > 0, rest * pick(q, x) / whole, 1.0)
        ratio = (rest * shrunk)[..., None] * q + share[..., None] * jumped
        away = (rest / whole * (stayed - pick(p, x)))[..., None] * q + p - jumped
        terms = _relative_entropy(ratio, share[..., None] * away) * (1 - here)
        return self.kappa.d_alpha(t) / (share * rest) * jnp.sum(terms, axis=-1)

    def leap(
        self, guess: Guess, x: Tokens, x1: Tokens, t: TokenTimes, s: TokenTimes, u: OfPlaces
    ) -> Tokens:
        """A step at the rate of t; see `TokenPath.leap`."""
        passed = (s - t) * hazard(self.kappa, t) * jnp.exp(guess.log_total)
        return jnp.where(u < -jnp.expm1(-passed), x1, x)

    def jump_probability(self, guess: Guess, t: TokenTimes, s: TokenTimes) -> Float[Array, "..."]:
        """The probability that a token is drawn from the guess between t and s, exactly.

        Args:
            guess: whose guidance multiplies the rates.
            t: times that broadcast against the tokens.
            s: times after t, likewise.
        """
        left = share_left(self.kappa, t, s)
        return 1 - left ** jnp.exp(guess.log_total)

    def _p0(self, dtype: Any) -> Array:
        """p_0 over the states (states,)."""
        p0 = self.source.probabilities()
        return jnp.asarray(np.append(p0, 1.0) if self.masks else p0, dtype)

    def _p0_at(self, x: Array, dtype: Any) -> Array:
        """p_0 over the data tokens, with as many axes as x has and one more."""
        p0 = jnp.asarray(self.source.probabilities(), dtype)
        return p0.reshape((1,) * x.ndim + (-1,))

    def _as_states(self, p: Array) -> Array:
        """Weights of data tokens as weights of states: the mask has 0."""
        return jnp.pad(p, [(0, 0)] * (p.ndim - 1) + [(0, self.states - self.vocabulary)])


def _relative_entropy(r: Array, difference: Array) -> Array:
    """r^ - r + r log(r / r^) with r^ = r + difference, without cancellation where they are near."""
    positive = r > 0
    safe = jnp.where(positive, r, 1.0)
    change = jnp.where(positive, difference / safe, 0.0)
    near = jnp.abs(change) < 0.5
    small = jnp.where(near, change, 0.0)
    by_change = safe * (small - jnp.log1p(small))
    other = jnp.where(near, 1.0, jnp.maximum(safe + jnp.where(near, 0.0, difference), _TINY))
    by_logs = difference + safe * (jnp.log(safe) - jnp.log(other))
    return jnp.where(positive, jnp.where(near, by_change, by_logs), difference)
