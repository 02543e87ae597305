"""The 2-D toys: nine distributions one can see, each drawn afresh from a numpy generator."""

import dataclasses
import sys
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Real, Shaped

from fmjax.checks import check_at_least

_CELLS = 128  # along a side of the board of tokens
Sample = Callable[
    [np.random.Generator, int], tuple[Shaped[np.ndarray, "n 2"], Int32[np.ndarray, " n"]]
]


def eight_gaussians(
    rng: np.random.Generator, n: int
) -> tuple[Float32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """Eight unit Gaussians on a circle of radius 5; the label is the mode, counter-clockwise.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Points float32 ``(n, 2)`` and labels int32 ``(n,)``.
    """
    labels = rng.integers(8, size=n)
    centre = 5.0 * _unit(labels * (2 * np.pi / 8))
    return _typed(centre + rng.normal(size=(n, 2)), labels)


def moons(
    rng: np.random.Generator, n: int
) -> tuple[Float32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """Two interleaved half circles with noise 0.05, times 2 and x minus 1; the label is the moon.

    The shape is scikit-learn's ``make_moons``, with angles drawn uniformly rather than on a grid.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Points float32 ``(n, 2)`` and labels int32 ``(n,)``.
    """
    labels = rng.integers(2, size=n)
    outer = _unit(rng.uniform(0, np.pi, size=n))
    inner = np.array([1.0, 0.5]) - outer
    points = np.where(labels[:, None] == 0, outer, inner) + 0.05 * rng.normal(size=(n, 2))
    return _typed(2.0 * points - np.array([1.0, 0.0]), labels)


def checkerboard(
    rng: np.random.Generator, n: int
) -> tuple[Float32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """Uniform on the eight dark squares of a 4 x 4 board over [-4, 4]^2; the label is the square.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Points float32 ``(n, 2)`` and labels int32 ``(n,)``.
    """
    labels, corner = _dark_squares(rng, n)
    return _typed(2.0 * (corner + rng.uniform(size=(n, 2))) - 4.0, labels)


def checkerboard_tokens(
    rng: np.random.Generator, n: int
) -> tuple[Int32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """The same board of 128 x 128 cells, a point being the column and the row of its cell.

    Uniform on 8,192 cells, so that its entropy is ln 8192 = 9.0109 nats.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Tokens from 0 to 127, int32 ``(n, 2)``, and labels int32 ``(n,)``, the square.
    """
    labels, corner = _dark_squares(rng, n)
    side = _CELLS // 4
    return (side * corner + rng.integers(side, size=(n, 2))).astype(np.int32), labels


def torus_checkerboard(
    rng: np.random.Generator, n: int
) -> tuple[Float32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """The same board over all angles, [-pi, pi]^2: it goes on across the edges.

    Its density is 1 / (2 pi^2) on the dark squares, so that its entropy is ln(2 pi^2) = 2.9826
    nats.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Angles in radians, float32 ``(n, 2)``, and labels int32 ``(n,)``, the square.
    """
    labels, corner = _dark_squares(rng, n)
    return _typed(np.pi * ((corner + rng.uniform(size=(n, 2))) / 2 - 1), labels)


def _dark_squares(
    rng: np.random.Generator, n: int
) -> tuple[Int[np.ndarray, " {n}"], Int[np.ndarray, "{n} 2"]]:
    """Which of the eight dark squares (n,), and its column and row of four (n, 2)."""
    labels = rng.integers(8, size=n)
    row = labels // 2
    column = 2 * (labels % 2) + row % 2
    return labels.astype(np.int32), np.stack([column, row], axis=-1)


def s_curve(
    rng: np.random.Generator, n: int
) -> tuple[Float32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """The S of scikit-learn's ``make_s_curve`` seen from the side, noise 0.05, times 1.5.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Points float32 ``(n, 2)`` and labels int32 ``(n,)``, all zero: the curve has no classes.
    """
    angle = 3 * np.pi * rng.uniform(-0.5, 0.5, size=n)
    curve = np.stack([np.sin(angle), np.sign(angle) * (np.cos(angle) - 1)], axis=-1)
    return _typed(1.5 * (curve + 0.05 * rng.normal(size=(n, 2))), np.zeros(n))


def spirals(
    rng: np.random.Generator, n: int
) -> tuple[Float32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """Two arms of one and a half turns, out to radius 4, noise 0.1; the label is the arm.

    The radius is ``4 sqrt(u)`` with u uniform, which spreads the points evenly along an arm.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Points float32 ``(n, 2)`` and labels int32 ``(n,)``.
    """
    labels = rng.integers(2, size=n)
    turn = np.sqrt(rng.uniform(size=n))
    arm = 4.0 * turn[:, None] * _unit(3 * np.pi * turn + np.pi * labels)
    return _typed(arm + 0.1 * rng.normal(size=(n, 2)), labels)


def pinwheel(
    rng: np.random.Generator, n: int
) -> tuple[Float32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """Five blades, each a long Gaussian bent by a rotation that grows with the radius.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Points float32 ``(n, 2)`` and labels int32 ``(n,)``, the blade.
    """
    labels = rng.integers(5, size=n)
    blade = rng.normal(size=(n, 2)) * np.array([0.3, 0.1]) + np.array([1.0, 0.0])
    forward = _unit(2 * np.pi / 5 * labels + 0.25 * np.exp(blade[:, 0]))
    sideways = np.stack([-forward[:, 1], forward[:, 0]], axis=-1)
    return _typed(2.0 * (blade[:, :1] * forward + blade[:, 1:] * sideways), labels)


def rings(
    rng: np.random.Generator, n: int
) -> tuple[Float32[np.ndarray, "{n} 2"], Int32[np.ndarray, " {n}"]]:
    """Four circles of radius 1, 2, 3 and 4, equally likely, noise 0.1; the label is the ring.

    Args:
        rng: the generator to draw from.
        n: how many points.

    Returns:
        Points float32 ``(n, 2)`` and labels int32 ``(n,)``.
    """
    labels = rng.integers(4, size=n)
    circle = (labels[:, None] + 1.0) * _unit(rng.uniform(0, 2 * np.pi, size=n))
    return _typed(circle + 0.1 * rng.normal(size=(n, 2)), labels)


def _unit(angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    """The points (n, 2) of the unit circle at `angle` (n,), in radians."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _typed(
    points: Real[np.ndarray, "n 2"], labels: Real[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, "n 2"], Int32[np.ndarray, " n"]]:
    return points.astype(np.float32), labels.astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Toy:
    """A 2-D distribution.

    Attributes:
        sample: ``(rng, n) -> (points float32 (n, 2), labels int32 (n,))``.
        num_classes: how many modes, arms or rings the labels name; None where there are none.
        vocabulary: of points that are tokens, int32, how many symbols there are; None for floats.
        manifold: of points on one, its name; None for the plane.
    """

    sample: Sample
    num_classes: int | None
    vocabulary: int | None = None
    manifold: str | None = None


TOYS: dict[str, Toy] = {
    "8gaussians": Toy(eight_gaussians, 8),
    "moons": Toy(moons, 2),
    "checkerboard": Toy(checkerboard, 8),
    "checkerboard_tokens": Toy(checkerboard_tokens, 8, _CELLS),
    "torus_checkerboard": Toy(torus_checkerboard, 8, manifold="torus"),
    "scurve": Toy(s_curve, None),
    "spirals": Toy(spirals, 2),
    "pinwheel": Toy(pinwheel, 5),
    "rings": Toy(rings, 4),
}


@dataclasses.dataclass(frozen=True)
class ToyBatches:
    """An endless source of whole global batches: item k depends on the seed and k alone.

    Attributes:
        toy: the distribution.
        batch: points in a batch.
        seed: a non-negative integer.

    Raises:
        InputError: for a batch that is not positive, or a negative seed.
    """

    toy: Toy
    batch: int
    seed: int

    def __post_init__(self):
        check_at_least("the batch size", self.batch)
        check_at_least("the seed", self.seed, 0)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, k: int) -> dict[str, Shaped[np.ndarray, "batch ..."]]:
        """Global batch k: ``x1`` (batch, 2) and, where there are classes, ``labels``."""
        points, labels = self.toy.sample(np.random.default_rng((self.seed, int(k))), self.batch)
        if self.toy.num_classes is None:
            return {"x1": points}
        return {"x1": points, "labels": labels}
