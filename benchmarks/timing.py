"""Runs that are compared take turns, so that a busy machine is busy for all of them.

The standard library alone: interpreters without jax import this file too.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def interleave(runs: dict[str, Callable[[], T]], rounds: Iterable) -> dict[str, list[T]]:
    """Calls each run once in every round and gives what each returned, round by round.

    Every second round goes backwards, so that none always follows the same neighbour.
    """
    found = {name: [] for name in runs}
    for backwards, _ in zip(itertools.cycle((False, True)), rounds, strict=False):
        for name in reversed(runs) if backwards else runs:
            found[name].append(runs[name]())
    return found


def rounds_of(seconds: float) -> Iterator[int]:
    """Rounds for `interleave`: two at least, and as many as begin within the seconds."""
    began = time.perf_counter()
    for k in itertools.count():
        if k >= 2 and time.perf_counter() - began >= seconds:
            return
        yield k


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def least_seconds(repeat: int, **runs: Callable[[], object]) -> dict[str, float]:
    """The least seconds of each run in so many rounds, after one call that compiles."""
    for run in runs.values():
        run()
    timed = {name: lambda run=run: seconds_of(run) for name, run in runs.items()}
    return {name: min(found) for name, found in interleave(timed, range(repeat)).items()}


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds to a hundredth of a millisecond."""
    return {name: round(value, 5) for name, value in seconds.items()}
