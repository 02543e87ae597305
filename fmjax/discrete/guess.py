"""What a network's output says of x1 at the tokens x_t, guided or not, ready for a step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.conventions import Array, expand, take_part
from fmjax.discrete.base import LOGITS, TokenPath
from fmjax.discrete.tokens import NEVER, OfPlaces, OfStates, OfTokens, Tokens, TokenTimes


class GuidedLogits(NamedTuple):
    """What a guided network gives: the logits of both branches, and how much the condition counts.

    The rates are R_c^w R_u^(1-w), with R_c and R_u those of the two branches.

    Attributes:
        reference: logits without the condition, or under the negative one (batch, ..., vocabulary).
        conditional: logits under the condition.
        w: guidance scales (batch,): 0 is the reference, 1 the conditional.
    """

    reference: OfTokens
    conditional: OfTokens
    w: Float[Array, " batch"]


Branches = tuple[OfTokens, OfTokens, Float[Array, "..."]]


class Guess(NamedTuple):
    """A guess at x1.

    Attributes:
        log_p: log-probabilities of data tokens (batch, ..., vocabulary), normalised.
        log_total: by how much the rates of a mixture path are to be multiplied, as a logarithm
            (batch, ...): 0 without guidance.
        branches: log-probabilities of the reference and the conditional branch, and w ready to
            broadcast against them; None without guidance.
    """

    log_p: OfTokens
    log_total: OfPlaces
    branches: Branches | None = None


def guess_of(path: TokenPath, output: Any, x: Tokens, t: TokenTimes) -> Guess:
    """The guess in a network's output.

    With guidance the weights of x1 are p_c^w p_u^(1-w), and their sum multiplies the rates of a
    mixture path, R(y) = kappa' / (1 - kappa) p(y).

    Args:
        path: the path of the tokens.
        output: logits (batch, ..., vocabulary), an `Output` that has them, or `GuidedLogits`.
        x: states (batch, ...).
        t: times (batch,).

    Raises:
        InputError: the logits have another shape.
    """
    if not isinstance(output, GuidedLogits):
        log_p = path.log_posterior(take_part(output, LOGITS), x, t)
        return Guess(log_p, jnp.zeros(x.shape, log_p.dtype))
    reference, conditional = (path.log_posterior(branch, x, t) for branch in output[:2])
    w = expand(output.w.astype(reference.dtype), reference)
    weights = jnp.maximum(w * conditional + (1 - w) * reference, NEVER)
    total = jax.nn.logsumexp(weights, axis=-1)
    log_p = jnp.maximum(weights - total[..., None], NEVER)
    return Guess(log_p, total, (reference, conditional, w))


def guided_rates(path: TokenPath, branches: Branches, x: Tokens, t: TokenTimes) -> OfStates:
    """R_c^w R_u^(1-w) (batch, ..., states) of a guided guess, 0 where one of the two is.

    Args:
        path: the path of the tokens.
        branches: of the guess.
        x: states (batch, ...).
        t: times that broadcast against x.
    """
    reference, conditional, w = branches
    without, given = (path.marginal_rates(branch, x, t) for branch in (reference, conditional))
    both = (without > 0) & (given > 0)
    logs = w * jnp.log(jnp.where(both, given, 1.0)) + (1 - w) * jnp.log(
        jnp.where(both, without, 1.0)
    )
    alone = jnp.where(w == 0, without, jnp.where(w == 1, given, 0.0))
    return jnp.where(both, jnp.exp(logs), alone)
