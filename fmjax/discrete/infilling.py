"""Infilling: some tokens are given, and the others are sampled."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from fmjax.array_checks import check_shaped_as
from fmjax.checks import check_methods
from fmjax.conventions import Array, Labels, take_part
from fmjax.discrete.base import LOGITS, TokenPath, check_token_path
from fmjax.discrete.guess import GuidedLogits
from fmjax.discrete.solvers import Denoiser
from fmjax.discrete.tokens import NEVER, Tokens, as_logits, as_tokens, one_hot
from fmjax.errors import InputError


class Given(NamedTuple):
    """The labels of an infilling network.

    Attributes:
        tokens: data tokens (batch, ...); those that are not known may be any.
        known: True where a token is given, bool, shaped as the tokens.
        labels: what the network takes as labels, `Guided` for a guided one.
    """

    tokens: Tokens
    known: Bool[Array, "*places"]
    labels: Labels = None


def infilling(denoiser: Denoiser, path: TokenPath) -> Denoiser:
    """A network that knows some of the tokens, for any solver of tokens.

    Its guess at a known token is that token, so that every sample has it. Where the source is the
    mask, the network sees all known tokens from the start, and the samples are those of the model
    given the known tokens, as exactly as samples without any. From another source it sees a known
    token as the path has it at t, as inpainting with a diffusion does: early tokens are drawn in
    ignorance of it, and a `Corrector` of many redraws near the end is what mends them.

        solve_sde(infilling(network, path), x0, keys, Given(tokens, known, labels), solver)

    Args:
        denoiser: the network with its parameters bound, guided or not.
        path: the path that it was trained on.

    Returns:
        ``network(x, t, Given(tokens, known, labels))``.

    Raises:
        InputError: the path is none of tokens. When called: with anything but `Given`, or with
            tokens or known of another shape than x.
    """
    check_methods("the network", denoiser, such_as="lambda x, t, labels: ...")
    check_token_path("the path", path)

    def given(x: Array, t: Array, labels: Given) -> Any:
        tokens, known = _checked(labels, x, path.vocabulary)
        masks = path.states > path.vocabulary
        output = denoiser(jnp.where(known, tokens, x) if masks else x, t, labels.labels)

        def certain(logits: Array) -> Array:
            logits = as_logits(logits, x, path.vocabulary)
            here = one_hot(tokens, path.vocabulary, logits) > 0
            return jnp.where(known[..., None], jnp.where(here, 0.0, NEVER), logits)

        if isinstance(output, GuidedLogits):
            return GuidedLogits(certain(output.reference), certain(output.conditional), output.w)
        return certain(take_part(output, LOGITS))

    return given


def _checked(labels: Any, x: Array, vocabulary: int) -> tuple[Array, Array]:
    if not isinstance(labels, Given):
        raise InputError(
            f"an infilling network takes Given(tokens, known, labels); got {type(labels).__name__}."
        )
    tokens = as_tokens("the given tokens", labels.tokens, vocabulary)
    check_shaped_as("the given tokens", tokens, "x", x.shape)
    known = labels.known
    check_shaped_as("known, which tokens are given,", known, "x", x.shape)
    if jnp.result_type(known) != jnp.bool_:
        raise InputError(
            "known, which tokens are given, must be True or False for each; got "
            f"{jnp.result_type(known)}: write known.astype(bool)."
        )
    return tokens, jax.numpy.asarray(known)
