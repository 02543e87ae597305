"""Images and labels from an ``.npz``, checked."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fmjax.errors import InputError
from fmjax.npz import read_arrays


@dataclasses.dataclass(frozen=True)
class ArrayPart:
    """Examples in memory: images uint8 ``(n, H, W, C)``, labels int64 ``(n,)`` or None."""

    images: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        labels = [None] * len(self) if self.labels is None else self.labels.tolist()
        yield from zip(self.images, labels, strict=True)

    def take(self, indices: np.ndarray) -> "ArrayPart":
        """The examples at `indices` (k,)."""
        labels = None if self.labels is None else self.labels[indices]
        return ArrayPart(self.images[indices], labels)


def read_npz(
    path: Path,
) -> tuple[tuple[int, ...], tuple[str, ...] | None, ArrayPart, ArrayPart | None]:
    """Reads the arrays of an ``.npz``.

    Args:
        path: the file: `images` and perhaps `labels`, or `x_train` and perhaps `y_train`,
            `x_test`, `y_test`.

    Returns:
        The shape ``(H, W, C)``, the class names ("0", "1", ..., or None without labels), the
        training examples, and the test examples or None.

    Raises:
        InputError: for other arrays, or arrays that do not fit together.
    """
    arrays = read_arrays(path)
    test = None
    if "images" in arrays:
        train = _array_part(path, arrays, "images", "labels")
    elif "x_train" in arrays:
        train = _array_part(path, arrays, "x_train", "y_train")
        if "x_test" in arrays:
            test = _array_part(path, arrays, "x_test", "y_test")
            _check_match(path, train, test)
    else:
        raise InputError(
            f"{path} must hold 'images' and 'labels', or 'x_train', 'y_train', 'x_test' and "
            f"'y_test'; it holds {', '.join(arrays) or 'nothing'}."
        )
    return train.images.shape[1:], _names_from_labels(path, train.labels), train, test


def _array_part(path: Path, arrays: dict[str, np.ndarray], x: str, y: str) -> ArrayPart:
    images = arrays[x]
    if images.dtype != np.uint8:
        raise InputError(f"{x!r} in {path} must be uint8 (0 to 255), got {images.dtype}.")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise InputError(
            f"{x!r} in {path} must have shape (n, H, W), (n, H, W, 1) or (n, H, W, 3), "
            f"got {arrays[x].shape}."
        )
    return ArrayPart(
        images, _integer_labels(path, y, arrays[y], len(images)) if y in arrays else None
    )


def _integer_labels(path: Path, name: str, labels: np.ndarray, count: int) -> np.ndarray:
    if labels.shape == (count, 1):  # as CIFAR is often stored
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise InputError(
            f"{name!r} in {path} must have one label for each of the {count} images, "
            f"got shape {labels.shape}."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{name!r} in {path} must be whole numbers, got {labels.dtype}.")
    return labels.astype(np.int64)


def _names_from_labels(path: Path, labels: np.ndarray | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    used = np.unique(labels)
    if used[0] != 0 or used[-1] != len(used) - 1:
        raise InputError(
            f"the training labels in {path} must be 0 to K - 1, each used at least once; they go "
            f"from {used[0]} to {used[-1]} and take {len(used)} values."
        )
    return tuple(map(str, range(len(used))))


def _check_match(path: Path, train: ArrayPart, test: ArrayPart) -> None:
    if train.images.shape[1:] != test.images.shape[1:]:
        raise InputError(
            f"training and test images in {path} must have one shape, got "
            f"{train.images.shape[1:]} and {test.images.shape[1:]}."
        )
    if (train.labels is None) != (test.labels is None):
        raise InputError(f"{path} must have both 'y_train' and 'y_test', or neither.")
    if test.labels is not None and not np.isin(test.labels, train.labels).all():
        raise InputError(f"'y_test' in {path} has classes that 'y_train' does not have.")
