"""What a configuration names where states are tokens: the path, its loss, the network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fmjax.config import ConfigDict
from fmjax.conventions import ApplyFn
from fmjax.data.codecs import vocabulary_of
from fmjax.data.points import space_of
from fmjax.discrete import (
    CosineKappa,
    CrossEntropy,
    CubicKappa,
    GeneralisedKL,
    Masked,
    MixturePath,
    ScoreEntropy,
    TokenLoss,
    TokenPath,
)
from fmjax.discrete.base import check_token_path
from fmjax.errors import InputError
from fmjax.factory.data_spec import DataSpec
from fmjax.factory.registry import TOKEN_PATHS, choose
from fmjax.factory.settings import changed_keys
from fmjax.models import adapters
from fmjax.models.tokens import on_one_hot, one_hot_shape, without_time
from fmjax.names import load_maker
from fmjax.schedules import Linear, Polynomial, Schedule

KAPPAS: dict[str, Callable[[ConfigDict], Schedule]] = {
    "linear": lambda c: Linear(),
    "polynomial": lambda c: Polynomial(c.power),
    "cosine": lambda c: CosineKappa(),
    "cubic": lambda c: CubicKappa(),
}
LOSSES: dict[str, Callable[[], TokenLoss]] = {
    "cross_entropy": CrossEntropy,
    "masked": Masked,
    "score_entropy": ScoreEntropy,
    "generalised_kl": GeneralisedKL,
}
_USUAL_LOSSES = {"mask": "masked", "uniform": "cross_entropy"}
_OF_NUMBERS = (
    "source.name",
    "coupling.name",
    "flow_map.name",
    "loss.prediction",
    "loss.target",
    "loss.distance",
    "loss.weight",
    "data.dequantize",
)
_OF_TOKENS = ("loss.tokens", "model.time", "model.tied")


def check_tokens(config: ConfigDict, spec: DataSpec) -> None:
    """Checks that the path fits the data, tokens or numbers, and that nothing else is asked for.

    Raises:
        InputError: one of the two is of tokens and the other is not, or a key is set that says
            nothing there.
    """
    name, tokens = config.path.name, vocabulary_of(spec.codec) is not None
    if tokens and name not in TOKEN_PATHS and ":" not in name:
        raise InputError(
            f"data.name={config.data.name!r} is of tokens, which take the path "
            f"{' or '.join(TOKEN_PATHS)}, or your own; got path.name={name!r}."
        )
    if not tokens and name in TOKEN_PATHS:
        raise InputError(
            f"path.name={name!r} is of tokens, and data.name={config.data.name!r} has "
            f"{spec.codec.kind}, which are numbers: write path.name=linear, or for images "
            "data.levels=256, which makes tokens of their grey levels."
        )
    kind, foreign = ("tokens", _OF_NUMBERS) if tokens else ("numbers", _OF_TOKENS)
    if not tokens and space_of(spec.codec) is None:
        foreign = (*foreign, "path.kappa")
    for key, value in changed_keys(config, foreign).items():
        raise InputError(
            f"a flow of {kind} (data.name={config.data.name!r}) has no {key}; got {value!r}: "
            "leave it out."
        )


def check_of_numbers(spec: DataSpec, what: str) -> None:
    """Checks that the states of a flow are numbers.

    Args:
        spec: of its data.
        what: needs that, as the message names it.

    Raises:
        InputError: they are tokens.
    """
    if vocabulary_of(spec.codec) is not None:
        raise InputError(
            f"{what} is of flows that move numbers along a velocity, and this one is of tokens, "
            "which jump."
        )


def make_token_path(config: ConfigDict, vocabulary: int) -> TokenPath:
    """The path of ``config.path`` for tokens, with the loss of ``config.loss.tokens``.

    One of your own is called with the keys of ``config.path`` and the size of the vocabulary, and
    brings its loss.

    Raises:
        InputError: a name is unknown, or a value does not fit.
    """
    c = config.path
    if ":" in c.name:
        path = load_maker("path", c.name)(c, vocabulary)
        check_token_path(f"path.name={c.name!r}", path)
        return path
    loss = config.loss.tokens or _USUAL_LOSSES[c.name]
    return MixturePath(
        vocabulary,
        c.name,
        choose("kappa", c.kappa, KAPPAS)(c),
        choose("loss of tokens", loss, LOSSES)(),
    )


def token_network(
    config: ConfigDict, model: Any, spec: DataSpec
) -> tuple[ApplyFn, jax.ShapeDtypeStruct]:
    """A network as one of tokens: those that take floats see one-hot vectors.

    Args:
        config: ``model.time`` says whether it is told the time.
        model: a Linen module; one of tokens has a field ``vocabulary``.
        spec: of the data.

    Returns:
        ``apply_fn(params, x, t, labels) -> logits``, and one example as the module takes it.
    """
    network, vocabulary = adapters.from_linen(model), vocabulary_of(spec.codec)
    assert vocabulary is not None, "the states are tokens"
    example = jax.ShapeDtypeStruct(spec.shape, jnp.int32)
    if not hasattr(model, "vocabulary"):
        network = on_one_hot(network, vocabulary)
        example = jax.ShapeDtypeStruct(one_hot_shape(spec.shape, vocabulary), jnp.float32)
    return (network if config.model.time else without_time(network)), example
