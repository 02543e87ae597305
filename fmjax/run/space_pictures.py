"""Pictures of points on a manifold: maps of the sphere, angles in a square, where axes point."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from fmjax import plots
from fmjax.data.tables.globe import unit_vectors
from fmjax.manifolds import SO3, FlatProduct, Hyperbolic, Manifold, Sphere, Torus

_SIZE = 320  # pixels of height, of a map and of a square
_SHOWN = 3  # of more coordinates, each beside each
_GAP = 16
_ROUND = np.linspace(-np.pi, np.pi, 181)
_NEWTON = 30  # steps; the cubic root near the poles is slow

Limits = tuple[float, float, float, float]


class Panel(NamedTuple):
    """One plot in the plane.

    Attributes:
        project: from points of the manifold (n, *shape) to points of the plane (n, 2).
        limits: (x_min, x_max, y_min, y_max); None for those of the points.
        lines: what is drawn behind the points, each (k, 2).
    """

    project: Callable[[Float[np.ndarray, "n ..."]], Float[np.ndarray, "n 2"]]
    limits: Limits | None = None
    lines: Sequence[Float[np.ndarray, "_k 2"]] = ()


def panels_of(manifold: Manifold) -> list[Panel]:
    """The plots that show points of a manifold.

    The sphere as a map that keeps areas; two angles in a square, as a Ramachandran plot; rotations
    as a map for each axis of what they rotate, where it points; the hyperbolic plane as its disk; a
    product as its parts; all others as their first coordinates, each beside each.
    """
    if isinstance(manifold, FlatProduct):
        return [
            panel._replace(project=_of_part(manifold, i, panel.project))
            for i, part in enumerate(manifold.parts)
            for panel in panels_of(part)
        ]
    if manifold == Sphere(2):
        return [Panel(mollweide, _MAP, _graticule())]
    if isinstance(manifold, SO3):
        return [Panel(_axis(k), _MAP, _graticule()) for k in range(3)]
    if manifold == Torus(1):
        return [Panel(lambda x: np.c_[np.cos(x), np.sin(x)], _DISK, [_circle()])]
    if isinstance(manifold, Torus):
        square = (-math.pi, math.pi, -math.pi, math.pi)
        cross = np.array([[-np.pi, 0.0], [np.pi, 0.0]])
        return [Panel(one, square, [cross, cross[:, ::-1]]) for one in _pairs(manifold)]
    if manifold == Hyperbolic(2):
        return [Panel(lambda x: x, _DISK, [_circle()])]
    return [Panel(one) for one in _pairs(manifold)]


def draw_points(
    manifold: Manifold,
    points: Float[np.ndarray, "n ..."],
    classes: Int[np.ndarray, " n"] | None = None,
    *,
    reference: Float[np.ndarray, "m ..."] | None = None,
    reference_labels: Int[np.ndarray, " m"] | None = None,
    window: Float[np.ndarray, "k ..."] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of points on a manifold, uint8 (height, width, 3): its plots, one below the other.

    Args:
        manifold: where they are.
        points: (n, *shape).
        classes: class ids (n,) that colour them, or None.
        reference: real points (m, *shape), for a second picture left of the first.
        reference_labels: their class ids.
        window: points (k, *shape) that fix the limits of a plot which has none of its own; the
            reference or the points if None.
    """
    drawn = []
    for panel in panels_of(manifold):
        seen = points if reference is None else reference
        limits = panel.limits or _around(panel.project(seen if window is None else window))
        wide = 2 * _SIZE if limits == _MAP else _SIZE
        drawn.append(
            plots.scatter(
                panel.project(np.asarray(points)),
                classes,
                size=wide,
                height=_SIZE,
                limits=limits,
                lines=panel.lines,
                reference=None if reference is None else panel.project(np.asarray(reference)),
                reference_labels=reference_labels,
            )
        )
    return _stacked(drawn)


def _stacked(pictures: list[np.ndarray]) -> UInt8[np.ndarray, "height width 3"]:
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        missing = width - picture.shape[1]
        rows.append(np.pad(picture, ((0, _GAP), (0, missing), (0, 0)), constant_values=255))
    return np.concatenate(rows)[:-_GAP]


def mollweide(x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    """The map of Mollweide, which keeps areas, (n, 3) -> (n, 2): an ellipse of half axes 2 and 1.

    With 2 a + sin 2a = pi sin(latitude) it is (2 longitude / pi cos a, sin a).

    Args:
        x: unit vectors, the third number being the height.
    """
    x = np.asarray(x, np.float64)
    goal = np.pi * np.clip(x[:, 2], -1, 1)
    a = np.arcsin(np.clip(x[:, 2], -1, 1))
    for _ in range(_NEWTON):
        slope = np.maximum(2 + 2 * np.cos(2 * a), 1e-9)
        a = np.clip(a - (2 * a + np.sin(2 * a) - goal) / slope, -np.pi / 2, np.pi / 2)
    longitude = np.arctan2(x[:, 1], x[:, 0])
    return np.stack([2 / np.pi * longitude * np.cos(a), np.sin(a)], axis=1)


_MAP: Limits = (-2.04, 2.04, -1.02, 1.02)
_DISK: Limits = (-1.02, 1.02, -1.02, 1.02)


def _graticule() -> list[Float[np.ndarray, "k 2"]]:
    """Meridians of every 60 degrees, the outline among them, and parallels of every 30."""
    edge = np.pi - 1e-9
    lines = [_on_globe(np.clip(k * np.pi / 3, -edge, edge), _ROUND / 2) for k in range(-3, 4)]
    return lines + [_on_globe(_ROUND * (1 - 1e-9), k * np.pi / 6) for k in range(-2, 3)]


def _on_globe(longitude: np.ndarray | float, latitude: np.ndarray | float) -> np.ndarray:
    longitude, latitude = np.broadcast_arrays(longitude, latitude)
    return mollweide(unit_vectors(latitude, longitude))


def _circle() -> Float[np.ndarray, "k 2"]:
    return np.stack([np.cos(_ROUND), np.sin(_ROUND)], axis=1)


def _axis(k: int) -> Callable[[Float[np.ndarray, "n 3 3"]], Float[np.ndarray, "n 2"]]:
    return lambda x: mollweide(np.asarray(x)[:, :, k])


def _pairs(
    manifold: Manifold,
) -> list[Callable[[Float[np.ndarray, "n ..."]], Float[np.ndarray, "n 2"]]]:
    """Each two of the first coordinates; of a line the coordinate above nothing."""
    count = min(math.prod(manifold.shape), _SHOWN)
    if count == 1:
        return [lambda x: np.c_[np.reshape(x, (-1, 1)), np.zeros(len(x))]]
    return [_columns(list(pair)) for pair in itertools.combinations(range(count), 2)]


def _columns(pair: list[int]) -> Callable[[Float[np.ndarray, "n ..."]], Float[np.ndarray, "n 2"]]:
    return lambda x: np.asarray(x).reshape(len(x), -1)[:, pair]


def _of_part(
    manifold: FlatProduct,
    i: int,
    project: Callable[[Float[np.ndarray, "n ..."]], Float[np.ndarray, "n 2"]],
) -> Callable[[Float[np.ndarray, "n size"]], Float[np.ndarray, "n 2"]]:
    return lambda x: project(np.asarray(manifold.split(jnp.asarray(x))[i]))


def _around(points: Float[np.ndarray, "n 2"]) -> Limits:
    """A square around points of the plane."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = 0.54 * max(float((high - low).max()), 1e-6)
    x, y = (low + high) / 2
    return (x - half, x + half, y - half, y + half)
