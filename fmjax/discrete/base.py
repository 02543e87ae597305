"""What every path of tokens is, and what its losses and samplers ask of it.

Tokens are integers from 0 to vocabulary - 1. The states that a path goes through are these, and for
a mask source one more, the mask, number `vocabulary`. Places move independently of each other given
x1, so that everything here is said of one place, elementwise over arrays of tokens (batch, ...).

A network gives logits (batch, ..., vocabulary): its guess at x1 at every place, given all of x_t.
"""

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Float, Shaped

from fmjax.array_checks import check_per_example, check_shaped_as, times_of
from fmjax.checks import check_methods
from fmjax.conventions import Array, expand, per_example_sum
from fmjax.discrete.token_sources import TokenSource
from fmjax.discrete.tokens import (
    OfPlaces,
    OfStates,
    OfTokens,
    Tokens,
    TokenTimes,
    as_logits,
    as_tokens,
)
from fmjax.errors import InputError
from fmjax.paths import PathSample
from fmjax.paths.base import check_noise
from fmjax.sources import NO_NOISE, Law, UniformBox

LOGITS = "logits"
"""What a network on a path of tokens predicts, and the part of an `Output` that is taken."""

UNIT = UniformBox(0.0, 1.0)


class TokenLoss(abc.ABC):
    """How far logits are from the data, at every token.

    Attributes:
        noise: the laws, by name, of what is drawn for it beside the jumps; none for most.
    """

    noise = NO_NOISE

    @abc.abstractmethod
    def __call__(
        self, path: "TokenPath", logits: OfTokens, x1: Tokens, x_t: Tokens, t: TokenTimes
    ) -> OfPlaces:
        """The loss at every token, shaped as x1, in nats.

        Args:
            path: whose loss it is.
            logits: what the network gave (batch, ..., vocabulary).
            x1: data tokens (batch, ...).
            x_t: states (batch, ...).
            t: times (batch,), or (batch, n, ...) for one at each place of leading axes.
        """

    def check(self, path: "TokenPath") -> None:
        """Checks that it is a loss of this path.

        Raises:
            InputError: it is one of other paths.
        """
        del path

    def points(self, path: "TokenPath", x_t: Tokens, noise: Mapping[str, Any]) -> Tokens:
        """The states at which it is evaluated, made of those on the path; the same for most."""
        return x_t


class TokenPath(abc.ABC):
    """A `fmjax.paths.Path` of tokens, p_t(x | x1), from a source at t = 0 to x1 at t = 1.

    Attributes:
        takes: what a network gives, logits.
        jumps: True, by which solvers of differential equations know that it is none of theirs.
        vocabulary: the number of data tokens.
        loss: what `distance` is.
        source: the law of x0, for `fmjax.Draw`.
    """

    takes: ClassVar[str] = LOGITS
    jumps: ClassVar[bool] = True
    vocabulary: int
    loss: TokenLoss

    @property
    @abc.abstractmethod
    def source(self) -> TokenSource:
        """The law of x0."""

    @property
    @abc.abstractmethod
    def states(self) -> int:
        """The number of states: the vocabulary, and one more where there is a mask."""

    @abc.abstractmethod
    def probabilities(self, x1: Tokens, t: TokenTimes) -> OfStates:
        """p_t(. | x1).

        Args:
            x1: data tokens (...).
            t: times that broadcast against x1.

        Returns:
            (..., states).
        """

    @abc.abstractmethod
    def rates(self, x: Tokens, x1: Tokens, t: TokenTimes) -> OfStates:
        """The rates u_t(y, x | x1) at which a token at x jumps to each y, given x1.

        Args:
            x: states (...).
            x1: data tokens (...).
            t: times that broadcast against x.

        Returns:
            (..., states), at least 0; 0 at y = x. At t = 1 they are read just before.
        """

    @abc.abstractmethod
    def marginal_rates(self, log_p: OfTokens, x: Tokens, t: TokenTimes) -> OfStates:
        """The rates under a posterior: the mean of `rates` over x1.

        Args:
            log_p: log p(x1 | x_t) (..., vocabulary), normalised.
            x: states (...).
            t: times that broadcast against x.

        Returns:
            (..., states), 0 at y = x.
        """

    @abc.abstractmethod
    def log_posterior(self, logits: OfTokens, x: Tokens, t: TokenTimes) -> OfTokens:
        """log p(x1 | x_t) from what the network gave.

        Args:
            logits: (batch, ..., vocabulary).
            x: states (batch, ...).
            t: times (batch,).

        Returns:
            Normalised log-probabilities (batch, ..., vocabulary), at least float32, all finite.
        """

    @abc.abstractmethod
    def leap(
        self, guess: Any, x: Tokens, x1: Tokens, t: TokenTimes, s: TokenTimes, u: OfPlaces
    ) -> Tokens:
        """A step from t to s at the rates of t.

        Args:
            guess: a `fmjax.discrete.guess.Guess` at x1.
            x: states at t (batch, ...).
            x1: data tokens drawn from the guess (batch, ...).
            t: times that broadcast against x.
            s: times after t, likewise.
            u: uniform numbers shaped as x.

        Returns:
            States at s.
        """

    @abc.abstractmethod
    def rate_divergence(self, log_p: OfTokens, x1: Tokens, x: Tokens, t: TokenTimes) -> OfPlaces:
        """The divergence of the model's rates from those given x1.

        Args:
            log_p: log p(x1 | x_t) (batch, ..., vocabulary).
            x1: data tokens (batch, ...).
            x: states (batch, ...).
            t: times (batch,).

        Returns:
            Nats per unit of time, shaped as x; see `fmjax.discrete.losses.GeneralisedKL`.
        """

    @property
    def noise(self) -> Mapping[str, Law]:
        """A uniform number for each token, and what the loss needs."""
        return MappingProxyType({"jump": UNIT, **self.loss.noise})

    def sample(
        self, x0: Tokens, x1: Tokens, t: TokenTimes, noise: Mapping[str, Any] | None = None
    ) -> PathSample:
        """The tokens at t, and x1, which is what the network is to guess.

        Args:
            x0: source tokens (batch, ...), integers.
            x1: data tokens, shaped as x0.
            t: times (batch,) in [0, 1]; or (batch, n, ...), one for each place of leading axes.
            noise: what `noise` names, shaped as x1, as `fmjax.Draw` draws it.

        Returns:
            x_t and x1, int32.

        Raises:
            InputError: a token is none, or the noise is missing or of another shape.
        """
        noise = check_noise(self, noise)
        x0 = as_tokens("x0", x0, self.states)
        x1 = as_tokens("x1", x1, self.vocabulary)
        check_shaped_as("x0", x0, "x1", x1.shape)
        for name, value in noise.items():
            check_shaped_as(f"the noise {name}", value, "x1", x1.shape)
        t = expand(times_of(t, x1), x1)
        x_t = self._at(x0, x1, t, noise["jump"])
        return PathSample(self.loss.points(self, x_t, noise), x1)

    @abc.abstractmethod
    def _at(self, x0: Array, x1: Array, t: Array, u: Array) -> Array:
        """The tokens at t for uniform numbers u, all four of one shape, or t broadcasting."""

    def distance(
        self, predicted: OfTokens, target: Tokens, x_t: Tokens, t: TokenTimes
    ) -> Float[Array, " batch"]:
        """The loss of each example (batch,), the mean over its tokens; see `fmjax.discrete.losses`.

        Args:
            predicted: logits (batch, ..., vocabulary).
            target: x1 (batch, ...).
            x_t: states (batch, ...).
            t: times (batch,).
        """
        logits = as_logits(predicted, x_t, self.vocabulary)
        losses = self.loss(self, logits, target, x_t, t)
        check_shaped_as(f"what {type(self.loss).__name__} gives", losses, "x1", target.shape)
        losses = per_example_sum(losses) / max(target[0].size, 1)
        check_per_example("the loss", losses, len(target))
        return losses


def check_token_path(what: str, path: Any) -> TokenPath:
    """Checks that something is a path of tokens.

    Returns:
        The path.

    Raises:
        InputError: it is another path, or none.
    """
    if isinstance(path, TokenPath):
        return path
    check_methods(what, path, "sample", such_as="MixturePath(27)")
    raise InputError(
        f"{what} must be a path of tokens, such as MixturePath(27); {type(path).__name__} moves "
        "numbers, and its solvers are those of fmjax.samplers."
    )


def check_loss(path: TokenPath) -> None:
    """Checks the loss of a path.

    Raises:
        InputError: it is none, or none of this path.
    """
    check_methods("the loss", path.loss, "points", "check", "noise", such_as="CrossEntropy()")
    path.loss.check(path)


def times_for(t: Shaped[Array, "..."], x: Tokens) -> Shaped[Array, "..."]:
    """Times (batch, ...) ready to broadcast against tokens."""
    return expand(jnp.asarray(t), x)
