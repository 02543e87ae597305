"""The numbers of a training: how long it is, how often it reports, and what else decides it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from fmjax.checks import check_at_least, check_between, check_multiple, check_seed

BETWEEN_CALLS = ("steps", "log_every", "checkpoint_every", "val_every")
"""The settings that are multiples of ``steps_per_call``."""


class Settings(NamedTuple):
    """The numbers of a training.

    Attributes:
        steps: of training, from the first one on.
        batch_size: examples in a step, over all devices and processes.
        accumulate: into how many parts a batch is split to save memory.
        steps_per_call: of the compiled program; what happens between steps happens between calls.
        ema: decay of the average of the parameters; None keeps no average.
        seed: of the parameters, the order of the data and every draw.
        log_every: steps from one line of the log to the next.
        checkpoint_every: steps from one checkpoint to the next.
        val_every: steps from one held-out loss to the next, beside those at checkpoints; 0: none.
        keep: how many of the newest checkpoints stay.
    """

    steps: int
    batch_size: int
    accumulate: int
    steps_per_call: int
    ema: float | None
    seed: int
    log_every: int
    checkpoint_every: int
    val_every: int
    keep: int


def check_numbers(numbers: Settings) -> Settings:
    """Checks the numbers of a training.

    Returns:
        The same, those of numpy as Python's: they go into JSON, and into shapes.

    Raises:
        InputError: one lies outside its range, or does not fit the others.
    """
    least = dict.fromkeys(Settings._fields, 1) | {"val_every": 0}
    del least["ema"], least["seed"]
    whole = {key: check_at_least(key, getattr(numbers, key), least[key]) for key in least}
    numbers = numbers._replace(**whole, seed=check_seed(numbers.seed, "seed"))
    check_calls(numbers)
    if numbers.ema is not None:
        check_between("ema", numbers.ema, 0, 1, "[)")
        numbers = numbers._replace(ema=float(numbers.ema))
    return numbers


def check_calls(numbers: Any, keys: Iterable[str] = BETWEEN_CALLS, prefix: str = "") -> None:
    """Checks that what happens every so many steps happens between calls of the program.

    Args:
        numbers: with ``steps_per_call`` and these attributes.
        keys: whole numbers of steps.
        prefix: before each name in a message, e.g. ``"train."`` in a configuration.

    Raises:
        InputError: one is no multiple of ``steps_per_call``.
    """
    of = f"{prefix}steps_per_call; nothing happens inside a call"
    for key in keys:
        check_multiple(f"{prefix}{key}", getattr(numbers, key), numbers.steps_per_call, of)
