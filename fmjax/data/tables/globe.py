"""Places on the globe: from latitude and longitude in degrees to points of the unit sphere."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Real

from fmjax.data.tables.files import Arrays
from fmjax.errors import InputError

_COLUMNS = ("latitude", "longitude")


def unit_vectors(
    latitude: Float[np.ndarray, "*shape"], longitude: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape 3"]:
    """Points (..., 3) of the unit sphere; x goes through longitude 0, z through the north.

        (cos latitude cos longitude, cos latitude sin longitude, sin latitude)

    Args:
        latitude: (...,), in radians.
        longitude: (...,), in radians.
    """
    across = np.cos(latitude)
    parts = (across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude))
    return np.stack(parts, axis=-1)


def is_globe(arrays: Arrays) -> bool:
    """Whether a table is of places on a sphere, by the names of its two columns."""
    named = sorted(name.lower() for name in arrays.columns.get("x", ()))
    return arrays.manifold in ("sphere", "sphere2") and named == list(_COLUMNS)


def on_globe(
    what: str, degrees: Real[np.ndarray, "n 2"], columns: Sequence[str]
) -> Float[np.ndarray, "n 3"]:
    """The points of `unit_vectors`, (n, 3), of a table of degrees.

    Args:
        what: the table, as the message names it.
        degrees: (n, 2).
        columns: of which column is which.

    Raises:
        InputError: a latitude lies outside [-90, 90].
    """
    order = [[name.lower() for name in columns].index(one) for one in _COLUMNS]
    latitude, longitude = np.deg2rad(degrees[:, order].T)
    if (wrong := np.flatnonzero(np.abs(latitude) > np.pi / 2)).size:
        raise InputError(
            f"{what} must have latitudes in degrees, from -90 to 90; row {wrong[0]} has "
            f"{degrees[wrong[0], order[0]]:g}, the first of {wrong.size}."
        )
    return unit_vectors(latitude, longitude)
