"""Trains the rows of the 2-D table by one library and solves what it has learned."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.two_dim.protocol import (
    EULER_STEPS,
    METHODS,
    Pairs,
    fresh_pairs,
    rectify_sources,
    stored_pairs,
    test_points,
)


class EulerPath(NamedTuple):
    """Points (n, 2) solved from t = 0 to t = 1 by Euler steps.

    Attributes:
        x1: where they end (n, 2).
        one_step: where a single Euler step ends (n, 2).
        energy: E int_0^1 |v|^2 dt along the steps.
    """

    x1: np.ndarray
    one_step: np.ndarray
    energy: float


class Outcome(NamedTuple):
    """The `EulerPath` of the test points under a trained flow, and its seconds of training."""

    x1: np.ndarray
    one_step: np.ndarray
    energy: float
    seconds: float


class Library(NamedTuple):
    """One side of the comparison.

    Attributes:
        name: under which its rows are stored.
        train: ``train(method, pairs by seed, steps) -> (networks by seed, seconds of all)``.
        solve: ``solve(network, x0, Euler steps) -> EulerPath``.
    """

    name: str
    train: Callable[[str, dict[int, Pairs], int], tuple[dict[int, Any], float]]
    solve: Callable[[Any, np.ndarray, int], EulerPath]


class Runner:
    """Trains row by row; keeps the 1-rectified flows, from which the 2-rectified ones learn."""

    def __init__(self, library: Library):
        self.library = library
        self._rectified = {}

    def run(self, method: str, task: str, seeds: list[int], steps: int) -> dict[int, Outcome]:
        """One outcome for each seed; the seconds are those of all, divided by their number."""
        trained, seconds = self.train(method, task, seeds, steps)
        x0 = test_points(task)[0]
        paths = {seed: self.library.solve(net, x0, EULER_STEPS) for seed, net in trained.items()}
        return {seed: Outcome(*path, seconds / len(seeds)) for seed, path in paths.items()}

    def train(
        self, method: str, task: str, seeds: list[int], steps: int
    ) -> tuple[dict[int, Any], float]:
        """The trained networks by seed, and the seconds of all."""
        pairs = {seed: self._pairs(method, task, seed) for seed in seeds}
        trained, seconds = self.library.train(method, pairs, steps)
        if method == "1-RF":
            self._rectified |= {(task, seed): network for seed, network in trained.items()}
        return trained, seconds

    def _pairs(self, method: str, task: str, seed: int) -> Pairs:
        """The pairs that a method learns from."""
        if method != "2-RF":
            return fresh_pairs(task)
        if (task, seed) not in self._rectified:  # its outcome came from the cache
            self.train("1-RF", task, [seed], METHODS["1-RF"].steps)
        x0 = rectify_sources(task, seed)
        return stored_pairs(x0, self.library.solve(self._rectified[task, seed], x0, EULER_STEPS).x1)
