"""The Fréchet distance between two sets of features, and the pixel PCA space to measure it in.

For Gaussians with means mu and covariances A and B,

    d² = |mu_a - mu_b|² + tr(A + B - 2 (A B)^{1/2}).                                          (1)

As everywhere where it is called FID (Heusel et al., 2017, https://arxiv.org/abs/1706.08500), the
*squared* distance is what is reported. Fitted to n examples it is biased upward: two halves of one
data set do not give 0, and the bias shrinks about as 1/n. So compare numbers of equal n only, and
print the distance between two halves of the real data beside them.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Real
from numpy.typing import ArrayLike

from fmjax.checks import check_between
from fmjax.errors import InputError
from fmjax.metrics.moments import Gaussian
from fmjax.metrics.rows import as_rows

_FLOAT64_ROWS = 4096  # rows converted to float64 at a time


def frechet_distance(
    a: Real[np.ndarray, "n ..."] | ArrayLike | Gaussian,
    b: Real[np.ndarray, "m ..."] | ArrayLike | Gaussian,
) -> float:
    """The squared Fréchet distance (1) between Gaussians fitted to two feature sets.

    The means and the (unbiased) covariances are those of the sets, or are given. No matrix is
    squared and no square root taken of a singular one: with A = R_aᵀ R_a and B = R_bᵀ R_b, from the
    QR decomposition of the centred sets or the eigenvectors of a given covariance, tr (A B)^{1/2}
    is the sum of the singular values of R_a R_bᵀ. This holds for fewer examples than features too:
    to rounding in float64 from sets, and to about 1e-7 of the trace from covariances, which are
    squares.

    Args:
        a: features, ``(n, d)``; images are flattened. Or their `fmjax.metrics.Gaussian`.
        b: features, ``(m, d)``, in the same unit, or their Gaussian.

    Returns:
        The squared distance, in the features' unit squared; 0 for identical sets.

    Raises:
        InputError: if a set has fewer than two examples, is not finite, or the features differ; a
            covariance is not symmetric, or of another size than its mean.
    """
    if not isinstance(a, Gaussian):
        a = as_rows(a, "a", at_least=2)
    if not isinstance(b, Gaussian):
        same = {"unit": a.dtype, "features": a.shape[1]} if isinstance(a, np.ndarray) else {}
        b = as_rows(b, "b", at_least=2, **same)
    mean_a, root_a = _fit(a, "a")
    mean_b, root_b = _fit(b, "b")
    if mean_a.shape != mean_b.shape:
        raise InputError(
            f"a and b must have the same features, got {len(mean_a)} and {len(mean_b)} of them."
        )
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return float(np.square(mean_a - mean_b).sum() + max(spread, 0.0))


def _fit(
    rows: Real[np.ndarray, "n features"] | Gaussian, name: str
) -> tuple[Float64[np.ndarray, " features"], Float64[np.ndarray, "rank features"]]:
    """The mean ``(d,)``, and R ``(min(n, d), d)`` or ``(d, d)`` with the covariance Rᵀ R."""
    if isinstance(rows, Gaussian):
        return rows.mean, _root(rows, name)
    mean = rows.mean(axis=0, dtype=np.float64)
    root = np.linalg.qr((rows - mean) / np.sqrt(len(rows) - 1), mode="r")
    return mean, root  # type: ignore[return-value]  # numpy's types miss that "r" gives an array


def _root(gaussian: Gaussian, name: str) -> Float64[np.ndarray, "features features"]:
    """R ``(d, d)`` with the covariance Rᵀ R; what rounding left below zero becomes zero."""
    covariance, d = gaussian.covariance, len(gaussian.mean)
    if covariance.shape != (d, d) or not np.isfinite(covariance).all():
        raise InputError(
            f"the covariance of {name} must be finite and of shape {(d, d)}, as its mean has {d} "
            f"features; got shape {covariance.shape}."
        )
    if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * np.abs(covariance).max()):
        raise InputError(f"the covariance of {name} must be symmetric.")
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T


def fit_pca(
    reference: Real[np.ndarray, "n ..."] | ArrayLike, dims: int
) -> Callable[[Real[np.ndarray, "m ..."] | ArrayLike], Float64[np.ndarray, "m dims"]]:
    """Fits the principal components of a set of images.

    Fit on the training set, and use the same function for every set that is compared.

    Args:
        reference: images ``(n, ...)``.
        dims: the number of components, at most min(n - 1, features).

    Returns:
        ``features(x)``, which takes images ``(m, ...)`` in the unit of the reference to
        ``(m, dims)`` in float64: their coordinates along the components of largest variance,
        largest first, about the reference's mean. An orthogonal projection: distances only shrink.

    Raises:
        InputError: if ``dims`` is out of range, or images are not finite or of another size.

    Example:
        >>> import numpy as np
        >>> line = np.arange(4.0)[:, None] * np.array([[0.6, 0.8]])
        >>> abs(fit_pca(line, dims=1)(line)).ravel().round(3).tolist()
        [1.5, 0.5, 0.5, 1.5]
    """
    rows = as_rows(reference, "reference", at_least=2)
    most = min(len(rows) - 1, rows.shape[1])
    size = f"{len(rows)} examples of {rows.shape[1]} features"
    check_between(f"dims for {size}", dims, 1, most)
    mean = rows.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _FLOAT64_ROWS):
        centred = rows[start : start + _FLOAT64_ROWS] - mean
        scatter += centred.T @ centred
    components = np.linalg.eigh(scatter)[1][:, ::-1][:, :dims]

    def features(x: Real[np.ndarray, "m ..."] | ArrayLike) -> Float64[np.ndarray, "m dims"]:
        x = as_rows(x, "x", features=len(mean), unit=rows.dtype)
        blocks = (
            x[start : start + _FLOAT64_ROWS] - mean for start in range(0, len(x), _FLOAT64_ROWS)
        )
        return np.concatenate([block @ components for block in blocks])

    return features
