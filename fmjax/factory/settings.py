"""The numbers of a configuration that are settings of a run rather than objects.

Their ranges are checked by `fmjax.config.check_config`; here, whether they fit each other.
"""

from typing import NamedTuple

from fmjax.checks import check_multiple
from fmjax.config import ConfigDict
from fmjax.errors import InputError
from fmjax.training.settings import check_numbers


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
    val_every: int
    sample_every: int
    keep: int

    def of_fit(self) -> dict[str, int | float]:
        """The numbers that `fmjax.training.fit` takes, by its names."""
        return {name: value for name, value in self._asdict().items() if name != "sample_every"}


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
        InputError: a number does not fit another; the keys are named.
    """
    train = TrainSettings(**config.train)
    check_numbers(train, "train.")
    of = "train.steps_per_call; nothing happens inside a call"
    check_multiple("train.sample_every", train.sample_every, train.steps_per_call, of)
    return train


def eval_settings(config: ConfigDict) -> EvalSettings:
    """The settings of ``config.eval``.

    Raises:
        InputError: one sample is asked, which cannot be evaluated.
    """
    settings = EvalSettings(**config.eval)
    if settings.num == 1:
        raise InputError("eval.num must be 0 (no evaluation) or at least 2; got 1.")
    return settings
