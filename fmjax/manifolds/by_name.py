"""Manifolds by name, as the record of a data set has them: `sphere`, or `so3,euclidean3`."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from fmjax.errors import InputError, unknown_name
from fmjax.manifolds.base import Manifold
from fmjax.manifolds.flat import Euclidean, Torus
from fmjax.manifolds.hyperbolic import Hyperbolic
from fmjax.manifolds.positive import SPD
from fmjax.manifolds.product import FlatProduct
from fmjax.manifolds.rotations import SO3
from fmjax.manifolds.simplex import Simplex
from fmjax.manifolds.sphere import Sphere


class _Kind(NamedTuple):
    """A manifold by name.

    Attributes:
        make: from its number, as in ``Sphere(2)``.
        number: from how many numbers a point has; 0 where there is no such manifold.
        points: what its points are, as a message says it.
    """

    make: Callable[[int], Manifold]
    number: Callable[[int], int]
    points: str


NAMES = {
    "euclidean": _Kind(Euclidean, lambda size: size, "n numbers"),
    "sphere": _Kind(Sphere, lambda size: size - 1, "unit vectors of n + 1 numbers"),
    "torus": _Kind(Torus, lambda size: size, "n angles in radians"),
    "so3": _Kind(lambda n: SO3(), lambda size: 3 if size == 9 else 0, "matrices of 9 numbers"),
    "hyperbolic": _Kind(Hyperbolic, lambda size: size, "n numbers in the unit ball"),
    "spd": _Kind(SPD, lambda size: _side(size), "matrices of n^2 numbers"),
    "simplex": _Kind(Simplex, lambda size: size - 1, "n + 1 probabilities"),
}
"""Each name, which may have the number n behind it; that of so3 is in its name."""

_WRITTEN = re.compile(r"(so3|[a-z]+)([1-9][0-9]{0,4})?")


def _side(size: int) -> int:
    side = math.isqrt(size)
    return side if side * side == size else 0


def manifold_by_name(name: str, size: int) -> Manifold:
    """The manifold of a name, its dimension from how many numbers a point has.

    Args:
        name: one of `NAMES`, such as ``"sphere"`` or ``"sphere2"``; or several with commas between,
            ``"so3,euclidean3"``, for a `FlatProduct`. Of these all but one need their number, which
            is the argument of the class; so3 has none.
        size: how many numbers a point has.

    Returns:
        The manifold; each of a product takes its numbers from a slice, in order.

    Raises:
        InputError: the name is unknown, or none of that name has so many numbers.

    Example:
        >>> manifold_by_name("sphere", 3)
        Sphere(n=2)
    """
    parts = [_read(part, name) for part in name.split(",")]
    known = [None if n is None else NAMES[kind].make(n) for kind, n in parts]
    sizes = [0 if one is None else math.prod(one.shape) for one in known]
    open_ones = [i for i, one in enumerate(known) if one is None]
    if len(open_ones) > 1:
        raise InputError(
            f"the manifold {name!r} must have the number of each part but one, as in "
            "so3,euclidean3."
        )
    if open_ones:
        kind = parts[open_ones[0]][0]
        left = size - sum(sizes)
        number = NAMES[kind].number(left) if left > 0 else 0
        if number < 1:
            raise _of_another_size(name, size)
        known[open_ones[0]] = NAMES[kind].make(number)
    elif sum(sizes) != size:
        raise _of_another_size(name, size)
    whole = tuple(one for one in known if one is not None)
    return whole[0] if len(whole) == 1 else FlatProduct(whole)


def _read(part: str, name: str) -> tuple[str, int | None]:
    """The kind of a part, and its number or None."""
    written = _WRITTEN.fullmatch(part)
    if written is None or written[1] not in NAMES:
        raise unknown_name("manifold", part if "," in name else name, NAMES)
    if written[1] == "so3":
        if written[2]:
            raise unknown_name("manifold", part, NAMES)
        return "so3", 3
    return written[1], int(written[2]) if written[2] else None


def _of_another_size(name: str, size: int) -> InputError:
    kinds = dict.fromkeys(_read(part, name)[0] for part in name.split(","))
    said = "; ".join(f"{kind} has {NAMES[kind].points}" for kind in kinds)
    return InputError(f"no point of the manifold {name!r} has {size} numbers: {said}.")
