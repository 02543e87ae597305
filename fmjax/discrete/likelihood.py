"""How probable a model of tokens holds given ones: a lower bound, with its standard error."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Integer, Key, PRNGKeyArray

from fmjax.array_checks import check_leading_size
from fmjax.checks import check_at_least, check_methods
from fmjax.conditions import share
from fmjax.conventions import Array, Labels, example_keys, take_part
from fmjax.discrete.base import LOGITS, TokenLoss, TokenPath, check_token_path
from fmjax.discrete.guess import GuidedLogits
from fmjax.discrete.losses import CrossEntropy, GeneralisedKL, Masked, ScoreEntropy
from fmjax.discrete.solvers import Denoiser
from fmjax.discrete.tokens import as_tokens
from fmjax.errors import InputError


class TokenLikelihood(NamedTuple):
    """A lower bound of the log-likelihood of tokens.

    Attributes:
        log_p: the bound in nats (batch,), for the whole example; a mean over times.
        std_error: its standard error (batch,), NaN for one time. It is that of independent times;
            as each is drawn from a stratum of its own, the error is smaller.
        nfe: evaluations of the network, int32 (batch,).
    """

    log_p: Float[Array, " batch"]
    std_error: Float[Array, " batch"]
    nfe: Int[Array, " batch"]


def token_log_likelihood(
    denoiser: Denoiser,
    path: TokenPath,
    x1: Integer[Array, "batch ..."],
    labels: Labels = None,
    *,
    key: PRNGKeyArray | Key[Array, " batch"],
    times: int = 32,
    bound: TokenLoss | None = None,
) -> TokenLikelihood:
    """A lower bound of log p(x1), the evidence lower bound of the path, in nats.

        log p(x1) >= -E over t in (0, 1) and x_t of the sum of the loss over the tokens of x1

    In bits per token, or character, or dimension: ``bits_per_dim(log_p, x1[0].size, bin_width=1)``.
    Differentiable in what the network closes over.

    Args:
        denoiser: the network with its parameters bound, ``denoiser(x, t, labels) -> logits``.
        path: the path that it was trained on.
        x1: data tokens (batch, ...), integers.
        labels: as the network takes them, or None.
        key: of the times and tokens: one key, folded with each example's place in the batch, or one
            key per example (batch,).
        times: at how many times each example is looked at, one in each of as many equal parts of
            [0, 1].
        bound: a loss that is a bound. None is the tightest: `Masked` for masks, `ScoreEntropy` for
            other mixtures, `GeneralisedKL` for other paths.

    Returns:
        The bound of each example.

    Raises:
        InputError: the path is none of tokens, a token is none, the key is none, the loss is no
            bound or none of this path, or the network is a guided one, of which no bound is known.
    """
    check_methods("the network", denoiser, such_as="lambda x, t, labels: ...")
    check_token_path("the path", path)
    times = check_at_least("times", times)
    x1 = as_tokens("x1", x1, path.vocabulary)
    loss = _bound(path, bound)
    path = dataclasses.replace(path, loss=loss)  # type: ignore[type-var]  # all are dataclasses
    batch = len(x1)
    labels = share(labels, batch)
    check_leading_size(labels, batch)
    keys = _example_keys(key, batch)

    def at(_, number):
        t, x0, noise = _drawn(path, keys, number, times, x1.shape[1:])
        x_t = path.sample(x0, x1, t, noise).x_t
        output = denoiser(x_t, t, labels)
        if isinstance(output, GuidedLogits):
            raise InputError(
                "a guided network of tokens has no bound of its likelihood; give the network "
                "itself, under the condition."
            )
        return None, path.distance(take_part(output, LOGITS), x1, x_t, t)

    _, losses = jax.lax.scan(at, None, jnp.arange(times, dtype=jnp.int32))
    costs = losses * x1[0].size
    log_p = -jnp.mean(costs, axis=0)
    if times == 1:
        error = jnp.full_like(log_p, jnp.nan)
    else:
        error = jnp.sqrt(jnp.sum((costs + log_p[None]) ** 2, axis=0) / (times * (times - 1)))
    return TokenLikelihood(log_p, error, jnp.full(batch, times, jnp.int32))


def _example_keys(key: Array, batch: int) -> Array:
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    several = typed and key.shape == (batch,)
    return key if several else example_keys(key, jnp.arange(batch))


def _bound(path: TokenPath, bound: TokenLoss | None) -> TokenLoss:
    if isinstance(bound, CrossEntropy):
        raise InputError(
            "CrossEntropy() is no bound of the likelihood; leave bound out, or write "
            "bound=GeneralisedKL()."
        )
    if bound is not None:
        check_methods("the bound", bound, "points", "check", "noise", such_as="GeneralisedKL()")
        return bound
    if not hasattr(path, "score_entropy"):
        return GeneralisedKL()
    return Masked() if path.states > path.vocabulary else ScoreEntropy()


def _drawn(path, keys, number, times, shape):
    """Times in the stratum of this number, source tokens and noise, by the keys of the examples."""

    def one(key):
        key = jax.random.fold_in(key, number)
        t = (number + jax.random.uniform(jax.random.fold_in(key, 0))) / times
        laws = {"x0": path.source, **path.noise}
        place = jnp.zeros(1, jnp.int32)
        parts = {
            name: law.sample(jax.random.fold_in(key, 1 + i), place, shape)[0]
            for i, (name, law) in enumerate(laws.items())
        }
        return jnp.minimum(t, 1 - jnp.finfo(t.dtype).epsneg), parts

    t, parts = jax.vmap(one)(keys)
    return t, parts.pop("x0"), parts
