"""How far samples are from the nearest training image: a model that copies comes too near."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int, Real
from numpy.typing import ArrayLike

from fmjax.errors import InputError
from fmjax.metrics.rows import as_rows

_SAMPLES, _REFERENCES = 1024, 4096  # a block of distances is 32 MiB


def nearest_reference(
    samples: Real[np.ndarray, "n ..."] | ArrayLike, reference: Real[np.ndarray, "m ..."] | ArrayLike
) -> tuple[Float64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Finds the nearest reference of each sample, by Euclidean distance over all pixels.

    Memory is bounded: distances are made in blocks. An exact copy has distance exactly 0.

    Args:
        samples: ``(n, ...)``.
        reference: ``(m, ...)``, in the same unit.

    Returns:
        ``distances``, ``(n,)`` float64, and ``indices`` into the reference, ``(n,)``.

    Raises:
        InputError: if either is empty or not finite, or the features or units differ.
    """
    reference = as_rows(reference, "reference")
    samples = as_rows(samples, "samples", features=reference.shape[1], unit=reference.dtype)
    blocks = [
        _nearest_of_block(samples[start : start + _SAMPLES].astype(np.float64), reference)
        for start in range(0, len(samples), _SAMPLES)
    ]
    distances, indices = zip(*blocks, strict=True)
    return np.concatenate(distances), np.concatenate(indices)


def _nearest_of_block(
    block: Real[np.ndarray, "n features"], reference: Real[np.ndarray, "m features"]
) -> tuple[Float64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    best = np.full(len(block), np.inf)
    index = np.zeros(len(block), np.int64)
    for start in range(0, len(reference), _REFERENCES):
        part = reference[start : start + _REFERENCES].astype(np.float64)
        # |x - y|² but for |x|², which does not change which y is nearest.
        score = np.square(part).sum(axis=1) - 2 * block @ part.T
        nearest = score.argmin(axis=1)
        lowest = score[np.arange(len(block)), nearest]
        index = np.where(lowest < best, start + nearest, index)
        best = np.minimum(lowest, best)
    # From the difference itself: the score has lost the digits of a small distance.
    return np.linalg.norm(block - reference[index], axis=1), index


def distance_quantiles(
    distances: Sequence[float] | Real[np.ndarray, " n"] | ArrayLike,
    percents: Sequence[float] = (1, 5, 25, 50),
) -> dict[float, float]:
    """Quantiles of distances, to print beside those of held-out real images.

    Args:
        distances: ``(n,)``.
        percents: which quantiles, in percent.

    Returns:
        Percent -> distance, interpolated linearly.

    Raises:
        InputError: if there is no distance, or one is not finite.
    """
    distances = np.asarray(distances, np.float64)
    if distances.ndim != 1 or not len(distances) or not np.isfinite(distances).all():
        raise InputError(f"distances must be finite, of shape (n,), got shape {distances.shape}.")
    return {p: float(q) for p, q in zip(percents, np.percentile(distances, percents), strict=True)}
