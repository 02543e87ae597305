"""Tasks, methods, network and training of the 2-D table; numpy alone.

Protocol of Tong et al. (TMLR 2024, arXiv:2302.00482, table 2). Both libraries of the comparison
draw their points here, from a numpy generator.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fmjax.data.toys import eight_gaussians, moons, s_curve

WIDTH, HIDDEN_LAYERS = 64, 3
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-5
SIGMA = 0.1  # of the flow matchers; the Schrödinger bridge has 1
BRIDGE_SIGMA = 1.0
EULER_STEPS = 100
TEST_POINTS = 4000
RECTIFIED = 200_000  # pairs of a 2-rectified flow
TEST_SEED = 2**20  # no training seed


class Method(NamedTuple):
    """How long a method trains, and whether its source may be anything but a Gaussian."""

    batch: int
    steps: int
    any_source: bool


# Exact pairing by POT takes 127 ms at 512 points: both libraries pair 256 points for 10,000 steps.
METHODS = {
    "FM": Method(512, 20_000, any_source=False),
    "I-CFM": Method(512, 20_000, any_source=True),
    "OT-CFM": Method(256, 10_000, any_source=True),
    "SB-CFM": Method(256, 10_000, any_source=True),
    "VP": Method(512, 20_000, any_source=True),
    "1-RF": Method(512, 20_000, any_source=True),
    "2-RF": Method(512, 20_000, any_source=True),
}


Sample = Callable[[np.random.Generator, int], np.ndarray]


class Task(NamedTuple):
    """Two distributions in the plane, each drawn by ``sample(rng, n) -> float32 (n, 2)``."""

    source: Sample
    target: Sample


def _normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal((n, 2), np.float32)


def _points(sample: Callable) -> Sample:
    return lambda rng, n: sample(rng, n)[0]


_REFERENCE = moons(np.random.default_rng(0), 100_000)[0]
_MEAN, _STD = _REFERENCE.mean(axis=0), _REFERENCE.std(axis=0)


def _wide_moons(rng: np.random.Generator, n: int) -> np.ndarray:
    return 7.0 * (moons(rng, n)[0] - _MEAN) / _STD


def _wide_gaussians(rng: np.random.Generator, n: int) -> np.ndarray:
    angle = 2 * np.pi / 8 * rng.integers(8, size=n)
    centre = 12.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return (centre + 1.5 * rng.normal(size=(n, 2))).astype(np.float32)


TASKS = {
    "N -> 8gaussians": Task(_normal, _points(eight_gaussians)),
    "N -> moons": Task(_normal, _points(moons)),
    "N -> scurve": Task(_normal, _points(s_curve)),
    "moons -> 8gaussians": Task(_wide_moons, _wide_gaussians),
}


Pairs = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
"""``pairs(rng, n) -> (x0, x1)``, each float32 (n, 2)."""


def fresh_pairs(task: str) -> Pairs:
    """Independent pairs, drawn afresh at every step."""
    source, target = TASKS[task]
    return lambda rng, n: (source(rng, n), target(rng, n))


def stored_pairs(x0: np.ndarray, x1: np.ndarray) -> Pairs:
    """Pairs from a pool, with replacement."""

    def pairs(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.integers(len(x0), size=n)
        return x0[chosen], x1[chosen]

    return pairs


def rectify_sources(task: str, seed: int) -> np.ndarray:
    """The source points (RECTIFIED, 2) that a 1-rectified flow carries along to teach a 2-."""
    return TASKS[task].source(np.random.default_rng((seed, 1)), RECTIFIED)


def rows(methods: list[str], tasks: list[str]) -> list[tuple[str, str]]:
    """The (method, task) pairs that are defined; 1-RF comes before the 2-RF that needs it."""
    return [
        (method, task)
        for task in tasks
        for method in METHODS
        if method in methods and (METHODS[method].any_source or task.startswith("N "))
    ]


def test_points(task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Held-out source points, target points, and other target points for the noise floor."""
    rng = np.random.default_rng(TEST_SEED)
    source, target = TASKS[task]
    return source(rng, TEST_POINTS), target(rng, TEST_POINTS), target(rng, TEST_POINTS)
