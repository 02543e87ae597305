"""The numbers of a configuration that are settings of a run rather than objects, checked."""

from typing import NamedTuple

from fmjax.config import ConfigDict
from fmjax.errors import InputError


class DataSettings(NamedTuple):
    """Which data set, and how it is read; see ``config.data``."""

    name: str
    dir: str | None
    flip: bool
    dequantize: bool
    threads: int


class TrainSettings(NamedTuple):
    """How long to train, and how often to report and to save; see ``config.train``."""

    steps: int
    batch_size: int
    accumulate: int
    steps_per_call: int
    ema: float
    seed: int
    log_every: int
    checkpoint_every: int
    sample_every: int
    keep: int


class EvalSettings(NamedTuple):
    """How many samples and real examples the final evaluation takes; see ``config.eval``."""

    num: int
    reference: int


def data_settings(config: ConfigDict) -> DataSettings:
    """The settings of ``config.data``."""
    return DataSettings(**config.data)


def train_settings(config: ConfigDict) -> TrainSettings:
    """The settings of ``config.train``.

    Raises:
        InputError: a number lies outside its range; the key is named.
    """
    train = TrainSettings(**config.train)
    for key in (
        *("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "keep"),
        "steps_per_call",
    ):
        if getattr(train, key) < 1:
            raise InputError(f"train.{key} must be at least 1; got {getattr(train, key)}.")
    for key in ("steps", "log_every", "checkpoint_every", "sample_every"):
        if getattr(train, key) % train.steps_per_call:
            raise InputError(
                f"train.{key}={getattr(train, key)} must be a multiple of train.steps_per_call="
                f"{train.steps_per_call}: nothing happens inside a call."
            )
    if train.sample_every < 0:
        raise InputError(f"train.sample_every must be 0 or more; got {train.sample_every}.")
    if not 0 <= train.seed < 2**32:  # jax would take another seed modulo 2^32
        raise InputError(f"train.seed must lie between 0 and 2^32 - 1; got {train.seed}.")
    if not 0 <= train.ema < 1:
        raise InputError(f"train.ema must lie in [0, 1); got {train.ema}.")
    return train


def eval_settings(config: ConfigDict) -> EvalSettings:
    """The settings of ``config.eval``.

    Raises:
        InputError: a number lies outside its range; the key is named.
    """
    settings = EvalSettings(**config.eval)
    if settings.num < 0 or settings.num == 1:
        raise InputError(f"eval.num must be 0 (no evaluation) or at least 2; got {settings.num}.")
    if settings.reference < 4:
        raise InputError(f"eval.reference must be at least 4; got {settings.reference}.")
    return settings
