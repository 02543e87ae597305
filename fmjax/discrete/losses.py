"""Losses of tokens: the cross-entropy, and bounds of the negative log-likelihood.

A loss is a part of its path, ``MixturePath(27, loss=Masked())``, which `fmjax.make_loss_fn` then
trains as any other path:

    path = MixturePath(27, "mask", loss=Masked())
    loss_fn = make_loss_fn(apply_fn, path)
    draw = Draw(source=path.source, noise=loss_fn.noise)

It is a mean over the tokens of an example. That of a bound, times the number of tokens, is over t
uniform on [0, 1] at least -log p(x1) in the mean, in nats.

==================  ============================================================================
`CrossEntropy`      -log p(x1 | x_t), on any path; no bound
`GeneralisedKL`     a bound on any path: the divergence of the rates, given x1
`ScoreEntropy`      a bound for mixtures, the divergence of time-reversed rates; tighter
`Masked`            the bound for masks, with one masked token at least: finite at t = 1
==================  ============================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp

from fmjax.array_checks import is_concrete
from fmjax.conventions import Array
from fmjax.discrete.base import UNIT, TokenLoss, TokenPath
from fmjax.discrete.tokens import OfPlaces, OfTokens, Tokens, TokenTimes, pick
from fmjax.errors import InputError
from fmjax.sources import Law

_MASKED: Mapping[str, Law] = MappingProxyType({"masked": UNIT})


@dataclass(frozen=True)
class CrossEntropy(TokenLoss):
    """-log p(x1 | x_t) at every token.

    Where the source is the mask, tokens that are not masked are known, and cost nothing. Source:
    Gat et al., arXiv:2407.15595.
    """

    def __call__(
        self, path: TokenPath, logits: OfTokens, x1: Tokens, x_t: Tokens, t: TokenTimes
    ) -> OfPlaces:
        """Nats at every token, shaped as x1; see `TokenLoss`."""
        return -pick(path.log_posterior(logits, x_t, t), x1)


@dataclass(frozen=True)
class GeneralisedKL(TokenLoss):
    """The divergence of the model's rates u from the rates u(. | x1) of the path.

        sum over y != x of u(y, x) - u(y, x | x1) + u(y, x | x1) log(u(y, x | x1) / u(y, x))

    On a mixture path that is, with p = p(. | x_t),

        kappa' / (1 - kappa) (1{x1 = x_t} - p(x_t) - 1{x1 != x_t} log p(x1)).

    For a uniform source it is a loose bound, by nats even with the exact posterior: take
    `ScoreEntropy`. Sources: Shaul et al., arXiv:2412.03487; Gat et al., arXiv:2407.15595.
    """

    def __call__(
        self, path: TokenPath, logits: OfTokens, x1: Tokens, x_t: Tokens, t: TokenTimes
    ) -> OfPlaces:
        """Nats per unit of time at every token, shaped as x1; see `TokenLoss`."""
        _check_before_the_end(self, t)
        return path.rate_divergence(path.log_posterior(logits, x_t, t), x1, x_t, t)


@dataclass(frozen=True)
class ScoreEntropy(TokenLoss):
    """The divergence of the time-reversed rates: a tight bound for a mixture path of any source.

    With the rate kappa' / kappa at which data turn into source backwards in time, the ratios
    r_y = p_t(y | x1) / p_t(x_t | x1), and their mean r^_y under the posterior,

        kappa' / kappa p_0(x_t) sum over y != x_t of r^_y - r_y + r_y log(r_y / r^_y).

    With masks it is `GeneralisedKL`. Source: Lou et al., arXiv:2310.16834 (SEDD), here with the
    ratios of a posterior of x1 in the place of a network for the ratios.
    """

    def check(self, path: TokenPath) -> None:
        """Checks that the path is a mixture."""
        if not hasattr(path, "score_entropy"):
            raise InputError(
                f"ScoreEntropy() is a loss of a MixturePath; {type(path).__name__} takes "
                "CrossEntropy() or GeneralisedKL()."
            )

    def __call__(
        self, path: TokenPath, logits: OfTokens, x1: Tokens, x_t: Tokens, t: TokenTimes
    ) -> OfPlaces:
        """Nats per unit of time at every token, shaped as x1; see `TokenLoss`."""
        _check_before_the_end(self, t)
        log_p = path.log_posterior(logits, x_t, t)
        return path.score_entropy(log_p, x1, x_t, t)  # type: ignore[attr-defined]  # see `check`


@dataclass(frozen=True)
class Masked(TokenLoss):
    """The bound of MD4 and MDLM for masks, in a form that is finite at every t.

    Their loss is the expectation over t and x_t of

        kappa' / (1 - kappa) sum over masked tokens of -log p(x1 | x_t),

    whose weight is infinite at t = 1, where nothing is masked. Here one token, any of the L with
    the same probability, is masked whatever its jump says, and the others as the path says. With n
    of the tokens masked,

        kappa' L / n sum over masked tokens of -log p(x1 | x_t)

    has the same expectation: the forced mask is drawn in proportion to what 1 - kappa divides by.
    At t = 1 it is the guess at one token from all the others. A network may leave t out. Sources:
    Shi et al., arXiv:2406.04329; Sahoo et al., arXiv:2406.07524; for L / n Nie et al.,
    arXiv:2502.09992.
    """

    noise = _MASKED

    def check(self, path: TokenPath) -> None:
        """Checks that the path starts from masks."""
        if path.states == path.vocabulary:
            raise InputError(
                "Masked() is a loss of paths that start from masks; this one starts from "
                f"{path.source}: write MixturePath(vocabulary, 'mask', loss=Masked())."
            )

    def points(self, path: TokenPath, x_t: Tokens, noise: Mapping[str, Any]) -> Tokens:
        """x_t with one token of each example masked: that of the largest number."""
        u = noise["masked"].reshape(len(x_t), -1)
        places = jnp.arange(u.shape[1])[None]
        forced = (places == jnp.argmax(u, axis=1)[:, None]).reshape(x_t.shape)
        return jnp.where(forced, path.vocabulary, x_t)

    def __call__(
        self, path: TokenPath, logits: OfTokens, x1: Tokens, x_t: Tokens, t: TokenTimes
    ) -> OfPlaces:
        """Nats per unit of time at every token, shaped as x1; see `TokenLoss`."""
        if jnp.ndim(t) != 1:
            raise InputError(
                f"Masked() takes one time for each example, (batch,); got {jnp.shape(t)}."
            )
        masked = x_t == path.vocabulary
        places = tuple(range(1, x_t.ndim))
        n = jnp.sum(masked, axis=places, keepdims=True)
        kappa = path.kappa  # type: ignore[attr-defined]  # a path with masks is a mixture
        weight = x1[0].size * kappa.d_alpha(t).reshape(n.shape) / jnp.maximum(n, 1)
        cost = -pick(path.log_posterior(logits, x_t, t), x1)
        return jnp.where(masked, weight * cost, 0.0)


def _check_before_the_end(loss: Any, t: Array) -> None:
    """Refuses t = 1, where the rates of a path are infinite, outside of a traced program."""
    if is_concrete(t) and bool(jnp.any(jnp.asarray(t) >= 1)):
        raise InputError(
            f"{type(loss).__name__}() takes times below 1, where the rate of the path is infinite; "
            "got t = 1. Draw t by fmjax.times.Uniform(), or take Masked(), which is finite there."
        )
