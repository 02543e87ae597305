"""The codec of points on a manifold: states are the points themselves, and nothing is standardised.

Where such data live stands in the record of their set, by the name of the manifold.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from fmjax.array_checks import check_finite
from fmjax.conventions import Array
from fmjax.data.codecs import Codec, WithoutLevels, floats
from fmjax.errors import InputError
from fmjax.manifolds import Manifold, manifold_by_name


@dataclass(frozen=True)
class Points(WithoutLevels):
    """Points on a manifold, float32.

    Args:
        name: of the manifold, as `fmjax.manifolds.manifold_by_name` reads it.
        size: how many numbers a point has: 3 of the sphere, 9 of a rotation.

    Raises:
        InputError: the name is unknown, or none of that name has so many numbers.
    """

    name: str
    size: int
    kind: ClassVar[str] = "points"

    def __post_init__(self):
        _by_name(self.name, self.size)

    @property
    def manifold(self) -> Manifold:
        """Where the points are."""
        return _by_name(self.name, self.size)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # it follows from the two fields
        """That of a point: (3, 3) of a rotation, (n + 1,) of a sphere, (size,) of a product."""
        return self.manifold.shape

    def encode(self, data: Float[Any, "*shape"]) -> Float[Any, "*shape"]:
        """The points as they are, float32."""
        return floats(data, "Points")

    def decode(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The points as they are."""
        return x


@functools.lru_cache(maxsize=64)
def _by_name(name: str, size: int) -> Manifold:
    return manifold_by_name(name, size)


def space_of(codec: Codec) -> Manifold | None:
    """The manifold of data that are points on one; None for all others."""
    return getattr(codec, "manifold", None)


def as_points(
    what: str, x: Float[np.ndarray, "n ..."], codec: Points, project: bool = False
) -> Float[np.ndarray, "n ..."]:
    """Rows of numbers as points on a manifold, (n, *shape), each moved to the nearest point.

    Args:
        what: the rows, as the message names them.
        x: floats (n, size) or (n, *shape).
        codec: says which manifold.
        project: whether rows may be further off than rounding leaves them.

    Raises:
        InputError: they have another shape, are not finite, or are off the manifold, by how much.
    """
    if math.prod(x.shape[1:]) != codec.size:
        raise InputError(
            f"{what} must have {codec.size} numbers for a point of {codec.manifold}; got shape "
            f"{x.shape}."
        )
    points = np.asarray(x, np.float32).reshape(len(x), *codec.shape)
    check_finite(what, points)
    if not project:
        check_points(what, points, codec, " The flag --project of `fmjax prepare` projects them.")
    return np.asarray(codec.manifold.project(points))


def check_points(
    what: str, points: Float[np.ndarray, "n ..."], codec: Points, advice: str = ""
) -> None:
    """Checks points on the host.

    Args:
        what: the points, as the message names them.
        points: (n, *shape).
        codec: says which manifold.
        advice: what else to do, with a space before it.

    Raises:
        InputError: they are off the manifold; the message says by how much, and what to do.
    """
    try:
        codec.manifold.check("x", points)
    except InputError as error:
        raise InputError(f"{what}: {error}{advice}") from error
