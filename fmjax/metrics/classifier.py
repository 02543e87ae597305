"""A classifier fitted on real images, which says what class a sample shows; its accuracy."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int, Int32, Real
from numpy.typing import ArrayLike

from fmjax.array_checks import check_class_ids
from fmjax.errors import InputError
from fmjax.metrics.rows import as_rows


def fit_classifier(
    images: Real[np.ndarray, "n ..."] | ArrayLike,
    labels: Int[np.ndarray, " n"] | ArrayLike,
    *,
    penalty: float = 10.0,
) -> Callable[[Real[np.ndarray, "m ..."] | ArrayLike], Int32[np.ndarray, " m"]]:
    """Fits a support vector machine (RBF kernel) that predicts the class of an image.

    The kernel's width is 1 / (features x variance), so the unit of the pixels does not matter, as
    long as it is the same in fitting and predicting. Made for small images and some thousand
    examples: the time grows with the square of their number.

    Args:
        images: ``(n, ...)``.
        labels: class ids, ``(n,)``.
        penalty: C, what an example on the wrong side costs.

    Returns:
        ``predict(images) -> labels``, ``(m,)`` int32.

    Raises:
        InputError: if images and labels do not match, are not finite, or hold a single class.
    """
    from sklearn.svm import SVC

    rows = as_rows(images, "images", at_least=2)
    labels = np.asarray(labels)
    check_class_ids("labels", labels, count=len(rows))
    if len(np.unique(labels)) < 2:
        raise InputError(f"labels must hold at least two classes, got only {labels[0]}.")
    machine = SVC(kernel="rbf", C=penalty, gamma="scale").fit(rows.astype(np.float64), labels)

    def predict(images: Real[np.ndarray, "m ..."] | ArrayLike) -> Int32[np.ndarray, " m"]:
        x = as_rows(images, "images", features=rows.shape[1], unit=rows.dtype)
        return machine.predict(x.astype(np.float64)).astype(np.int32)

    return predict


def accuracy(
    predicted: Sequence[int] | Int[np.ndarray, " n"] | ArrayLike,
    labels: Sequence[int] | Int[np.ndarray, " n"] | ArrayLike,
) -> float:
    """The share of predictions, ``(n,)``, that equal the labels, ``(n,)``."""
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    check_class_ids("labels", labels)
    check_class_ids("predicted", predicted, count=len(labels))
    return float((predicted == labels).mean())
