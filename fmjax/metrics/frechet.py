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
from numpy.typing import ArrayLike

from fmjax.checks import check_between
from fmjax.metrics.rows import as_rows

_FLOAT64_ROWS = 4096  # rows converted to float64 at a time


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """The squared Fréchet distance (1) between Gaussians fitted to two feature sets.

    The means and the (unbiased) covariances are those of the sets. No matrix is squared and no
    square root taken of a singular one: with A = R_aᵀ R_a and B = R_bᵀ R_b from the QR
    decomposition of the centred sets, tr (A B)^{1/2} is the sum of the singular values of R_a R_bᵀ.
    This holds to rounding in float64 for fewer examples than features too.

    Args:
        a: features, ``(n, d)``; images are flattened.
        b: features, ``(m, d)``, in the same unit.

    Returns:
        The squared distance, in the features' unit squared; 0 for identical sets.

    Raises:
        InputError: if a set has fewer than two examples, is not finite, or the features differ.
    """
    a = as_rows(a, "a", at_least=2)
    b = as_rows(b, "b", at_least=2, features=a.shape[1], unit=a.dtype)
    mean_a, root_a = _fit(a)
    mean_b, root_b = _fit(b)
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return float(np.square(mean_a - mean_b).sum() + max(spread, 0.0))


def _fit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean ``(d,)``, and R ``(min(n, d), d)`` with the covariance Rᵀ R."""
    mean = rows.mean(axis=0, dtype=np.float64)
    return mean, np.linalg.qr((rows - mean) / np.sqrt(len(rows) - 1), mode="r")


def fit_pca(reference: ArrayLike, dims: int) -> Callable[[ArrayLike], np.ndarray]:
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

    def features(x: ArrayLike) -> np.ndarray:
        x = as_rows(x, "x", features=len(mean), unit=rows.dtype)
        blocks = (
            x[start : start + _FLOAT64_ROWS] - mean for start in range(0, len(x), _FLOAT64_ROWS)
        )
        return np.concatenate([block @ components for block in blocks])

    return features
