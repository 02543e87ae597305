"""Statistics of real data in a file, made once and compared with many times.

An ``.npz`` with ``mu`` ``(d,)`` and ``sigma`` ``(d, d)``, as pytorch-fid and ADM write them; ADM
adds ``mu_s`` and ``sigma_s``, of spatial features. Files of fmjax say besides what the numbers are
of: ``features`` and ``features_digest``, ``count``, ``data_digest``, and ``real_halves``, the
Fréchet distance between two random halves of the data.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from fmjax.errors import InputError
from fmjax.files import whole_file
from fmjax.metrics.features import Features
from fmjax.metrics.frechet import frechet_distance
from fmjax.metrics.moments import Gaussian
from fmjax.metrics.streaming import Collected
from fmjax.npz import read_arrays

_NAMES = {
    "features": "features",
    "digest": "features_digest",
    "count": "count",
    "data": "data_digest",
    "real_halves": "real_halves",
}


class ReferenceStatistics(NamedTuple):
    """Statistics of real data; None where a file does not say.

    Attributes:
        gaussian: mean and covariance of their features.
        features: the name of the features.
        digest: of the features, from `Features.digest`.
        count: how many examples.
        data: a sha256 of the examples.
        real_halves: the squared Fréchet distance between two random halves of them.
        spatial: ADM's mean and covariance of spatial features, for sFID.
    """

    gaussian: Gaussian
    features: str | None = None
    digest: str | None = None
    count: int | None = None  # type: ignore[assignment]  # it hides tuple.count
    data: str | None = None
    real_halves: float | None = None
    spatial: Gaussian | None = None


def make_reference(features: Features, real: Collected) -> ReferenceStatistics:
    """The statistics of real examples in some features."""
    a, b = (half.gaussian() for half in real.halves)
    whole = real.whole
    return ReferenceStatistics(
        whole.gaussian(),
        features.name,
        features.digest,
        whole.count,
        real.digest,
        frechet_distance(a, b),
    )


def write_reference(path: Path, reference: ReferenceStatistics) -> None:
    """Writes an ``.npz`` whole or not at all; pytorch-fid reads it, and ADM one with `spatial`.

    Raises:
        OSError: it cannot be written.
    """
    arrays: dict[str, Any] = {"mu": reference.gaussian.mean, "sigma": reference.gaussian.covariance}
    if reference.spatial is not None:
        arrays |= {"mu_s": reference.spatial.mean, "sigma_s": reference.spatial.covariance}
    said = {name: getattr(reference, field) for field, name in _NAMES.items()}
    arrays |= {name: np.asarray(value) for name, value in said.items() if value is not None}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def has_statistics(path: Path) -> bool:
    """Whether an ``.npz`` holds statistics, and not, or not only, examples.

    Raises:
        InputError: it cannot be read.
    """
    return bool(read_arrays(path, only=("mu",)))


def read_reference(path: Path) -> ReferenceStatistics:
    """Reads the statistics of a file; images beside them are left alone.

    Raises:
        InputError: it holds none, or they do not fit together.
    """
    wanted = ("mu", "sigma", "mu_s", "sigma_s", *_NAMES.values())
    arrays = read_arrays(path, only=wanted)
    if "mu" not in arrays or "sigma" not in arrays:
        raise InputError(
            f"{path} must hold the statistics 'mu' and 'sigma'; it holds "
            f"{', '.join(arrays) or 'neither'}."
        )
    said = {f: _one(path, name, arrays[name]) for f, name in _NAMES.items() if name in arrays}
    spatial = _gaussian(path, arrays, "mu_s", "sigma_s") if "mu_s" in arrays else None
    return ReferenceStatistics(_gaussian(path, arrays, "mu", "sigma"), **said, spatial=spatial)


def check_reference(path: Path, reference: ReferenceStatistics, features: Features) -> None:
    """Checks that statistics are in the features that samples are taken in, where they say so.

    Args:
        path: of the statistics.
        reference: the statistics.
        features: of the samples.

    Raises:
        InputError: they are in others, by name or digest.
    """
    other = reference.features not in (None, features.name)
    if other or reference.digest not in (None, features.digest):
        raise InputError(
            f"{path} was made with the features {reference.features} "
            f"({(reference.digest or 'no hash')[:12]}), and the samples are taken in "
            f"{features.name} ({(features.digest or 'no hash')[:12]}); make it again, or give "
            "the features that it was made with."
        )


def _one(path: Path, name: str, array: Shaped[np.ndarray, "..."]) -> Any:
    if array.size != 1:
        raise InputError(f"{path} must hold one {name!r}; got an array of shape {array.shape}.")
    return array.item()


def _gaussian(
    path: Path, arrays: dict[str, Shaped[np.ndarray, "..."]], mean: str, covariance: str
) -> Gaussian:
    found = [arrays[name] for name in (mean, covariance) if name in arrays]
    shapes = [arrays[name].shape if name in arrays else None for name in (mean, covariance)]
    d = found[0].size
    if shapes != [(d,), (d, d)] or any(x.dtype.kind != "f" for x in found):
        raise InputError(
            f"{path} must hold {mean!r} of shape (d,) and {covariance!r} of shape (d, d), of "
            f"floats; got {shapes[0]} and {shapes[1]}."
        )
    if not all(np.isfinite(x).all() for x in found):
        raise InputError(f"{path} must hold finite {mean!r} and {covariance!r}.")
    return Gaussian(*(x.astype(np.float64) for x in found))
