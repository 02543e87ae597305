"""The likelihood of tokens, by a bound: an expectation over times, estimated at some of them."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fmjax.checks import check_at_least, check_multiple
from fmjax.conventions import Array, Labels
from fmjax.discrete import GeneralisedKL, Masked, ScoreEntropy, TokenLoss, TokenPath
from fmjax.draws import Draw
from fmjax.factory import Experiment
from fmjax.losses import make_per_example_loss_fn


class Draws(NamedTuple):
    """How the bound of tokens is estimated.

    Attributes:
        num: times drawn for each example, one in each of so many equal parts of [0, 1]; even.
    """

    num: int = 64

    def check(self) -> None:
        """Checks the number.

        Raises:
            InputError: it is not positive, or odd.
        """
        check_at_least("--draws", self.num, 2)
        check_multiple("--draws", self.num, 2, "times in pairs, whose difference tells an error")

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {"draws": self.num}


def tightest_bound(path: TokenPath) -> TokenLoss:
    """The loss that is a bound of the negative log-likelihood, the tightest for a path."""
    if not hasattr(path, "score_entropy"):
        return GeneralisedKL()
    return Masked() if path.states > path.vocabulary else ScoreEntropy()


def log_bound(
    experiment: Experiment, params: Any, x1: Array, labels: Labels, draws: Draws, key: Array,
    index: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """A lower bound of log p(x1) in nats, estimated without bias, and its standard error.

    The times of an example are stratified, and the error comes from the differences of neighbours:
    that of strata twice as wide, a little larger.

    Args:
        experiment: of a flow of tokens.
        params: of its network.
        x1: data tokens (batch, ...).
        labels: built as the conditions of the model.
        draws: how many times.
        key: one for all.
        index: the number of each example (batch,), which decides its draws.

    Returns:
        Two arrays (batch,).
    """
    path = dataclasses.replace(experiment.path, loss=tightest_bound(experiment.path))
    loss_fn = make_per_example_loss_fn(experiment.apply_fn, path)
    draw = Draw(source=path.source, noise=loss_fn.noise)

    def one(k: Array) -> Array:
        args = draw(jax.random.fold_in(key, k), index, x1)
        t = (k + args.t) / draws.num
        return loss_fn(params, args.x0, args.x1, t, labels, noise=args.noise)

    losses = x1[0].size * jax.lax.map(one, jnp.arange(draws.num))
    error = jnp.linalg.norm(losses[::2] - losses[1::2], axis=0) / draws.num
    return -jnp.mean(losses, axis=0), error
