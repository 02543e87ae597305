"""A solver of your own: Ralston's method, two evaluations a step, the second at two thirds of it.

For ``--config.sample.solver=ralston_solver:Ralston`` and ``--solver=ralston_solver:Ralston`` of
sample.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmjax.conditions import share
from fmjax.conventions import expand
from fmjax.samplers import Solution, take_steps


@dataclass(frozen=True)
class Ralston:
    """x(t + h) = x + h (u_1 + 3 u_2) / 4, with u_2 at t + 2 h / 3.

    Attributes:
        steps: how many, of equal size.
    """

    steps: int = 25

    def solve(
        self, velocity: Any, x0: Any, labels: Any = None, *, keys: Any = None, t0: float = 0.0,
        t1: float = 1.0, save_at: Sequence[float] | None = None,
    ) -> Solution:  # fmt: skip
        """Carries x0 (batch, ...) from t0 to t1."""
        labels = share(labels, len(x0))

        def step(x, t, t_next, k):
            h = expand(t_next - t, x)
            first = velocity(x, t, labels)
            second = velocity(x + 2 / 3 * h * first, t + 2 / 3 * (t_next - t), labels)
            return x + h * (first + 3 * second) / 4

        return take_steps(step, x0, self.nodes(t0, t1), nfe=2 * self.steps, save_at=save_at)

    def describe(self) -> dict[str, Any]:
        """What decides the samples."""
        return {"solver": "ralston of my own", "steps": self.steps}

    def nodes(self, t0: float = 0.0, t1: float = 1.0) -> np.ndarray:
        """The times between which it steps."""
        return np.linspace(t0, t1, self.steps + 1)

    def evaluation_times(self, t0: float = 0.0, t1: float = 1.0) -> np.ndarray:
        """Each of its starts, and two thirds of each step."""
        nodes = self.nodes(t0, t1)
        return np.stack([nodes[:-1], nodes[:-1] + 2 / 3 * np.diff(nodes)], axis=1).ravel()

    def on_path(self, path: Any) -> "Ralston":
        """It suits every path."""
        return self
