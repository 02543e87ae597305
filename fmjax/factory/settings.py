"""The numbers of a configuration, checked; and those that are settings of a run, not objects."""

from typing import Any, NamedTuple

from fmjax.config import ConfigDict, check_config, default_config
from fmjax.data.dataset import Dataset, Reading
from fmjax.data.load import in_levels, load
from fmjax.data.snapshots import in_snapshots
from fmjax.errors import InputError
from fmjax.training.settings import BETWEEN_CALLS, check_calls


class DataSettings(NamedTuple):
    """Which data set, and how it is read; see ``config.data``."""

    name: str
    dir: str | None
    x: str | None
    conditions: str | None
    split: str | None
    test_split: str | None
    size: int | None
    time: str | None
    held_out_time: float | None
    levels: int | None
    flip: bool
    dequantize: bool
    threads: int

    def load(self) -> Dataset:
        """The data set.

        Raises:
            InputError: as `fmjax.data.load.load`.
        """
        if self.time is None and self.held_out_time is not None:
            raise InputError("data.held_out_time needs data.time, the feature that is the time.")
        if self.time is not None and self.conditions is not None:
            raise InputError(
                f"a flow through snapshots has their time alone for a condition; got data.time="
                f"{self.time} with data.conditions={self.conditions}: leave the latter out."
            )
        named = self.conditions if self.time is None else self.time
        reading = Reading(self.x, named, self.split, self.test_split, self.size)
        dataset = load(self.name, self.dir, reading)
        if self.levels is not None:
            dataset = in_levels(dataset, self.levels)
        if self.time is None:
            return dataset
        return in_snapshots(dataset, self.held_out_time)


class TrainSettings(NamedTuple):
    """How long to train, and how often to report and to save; see ``config.train``."""

    steps: int
    batch_size: int
    accumulate: int
    steps_per_call: int
    ema: float
    frozen: str | None
    seed: int
    log_every: int
    checkpoint_every: int
    val_every: int
    sample_every: int
    keep: int

    def of_fit(self) -> dict[str, Any]:
        """The numbers that `fmjax.training.fit` takes, by its names."""
        own = ("sample_every", "frozen")
        return {name: value for name, value in self._asdict().items() if name not in own}


class EvalSettings(NamedTuple):
    """How many samples and real examples the final evaluation takes; see ``config.eval``."""

    num: int
    reference: int


def changed_keys(config: ConfigDict, keys: tuple[str, ...]) -> dict[str, Any]:
    """Those of some keys, ``"group.key"``, that are not at their defaults, with their values."""
    usual, changed = default_config(), {}
    for key in keys:
        group, name = key.split(".")
        if config[group][name] != usual[group][name]:
            changed[key] = config[group][name]
    return changed


def check_settings(config: ConfigDict) -> None:
    """Checks every number of a configuration, and that the numbers fit one another.

    Raises:
        InputError: some do not; the keys are named.
    """
    check_config(config)
    train, path, source = config.train, config.path, config.source
    check_calls(train, (*BETWEEN_CALLS, "sample_every"), "train.")
    if config.optimizer.warmup_steps >= train.steps:
        raise InputError(
            "optimizer.warmup_steps must be below train.steps; got optimizer.warmup_steps="
            f"{config.optimizer.warmup_steps} and train.steps={train.steps}."
        )
    if train.batch_size % config.coupling.groups:
        raise InputError(
            f"coupling.groups must divide train.batch_size={train.batch_size}; "
            f"got {config.coupling.groups}."
        )
    if path.beta_max < path.beta_min:
        raise InputError(
            "path.beta_max must be path.beta_min or more; got "
            f"path.beta_min={path.beta_min} and path.beta_max={path.beta_max}."
        )
    if source.high <= source.low:
        raise InputError(
            "source.high must be above source.low; got "
            f"source.low={source.low} and source.high={source.high}."
        )
