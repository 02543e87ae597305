"""A user's own images, from folders or from an ``.npz``, as examples ready to be written.

Everything that can be wrong with them is found here and named in one sentence.
"""

import dataclasses
from pathlib import Path

import numpy as np

from fmjax.checks import check_at_least, check_between
from fmjax.data.dataset import stratified_split
from fmjax.data.images.folder import FilePart, read_folder
from fmjax.data.images.npz import ArrayPart, read_npz
from fmjax.errors import InputError

ImagePart = ArrayPart | FilePart


@dataclasses.dataclass(frozen=True)
class Images:
    """What a source holds.

    Attributes:
        shape: ``(H, W, C)`` of every image.
        class_names: one per class, or None without labels.
        train: the training examples; iterating gives ``(image, label or None)``.
        test: the examples to test on.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None
    train: ImagePart
    test: ImagePart


def read_images(
    source: str,
    size: int | None = None,
    channels: int | None = None,
    test_fraction: float | None = None,
) -> Images:
    """Opens a folder or an ``.npz``.

    Args:
        source: as `read_folder` or `read_npz` describe.
        size: folders only, as in `read_folder`.
        channels: folders only, as in `read_folder`.
        test_fraction: the share to set apart for testing where the source has no test part, a
            tenth by default; each class gives its share.

    Returns:
        The examples.

    Raises:
        InputError: for anything wrong with the options or the source.
    """
    _check_options(size, channels, test_fraction)
    path = Path(source).expanduser()
    if path.is_dir():
        shape, names, train, test = read_folder(path, size, channels)
    elif not path.exists():
        raise InputError(f"--source={source} does not exist.")
    elif path.suffix != ".npz":
        raise InputError(f"--source must be a folder or an .npz file, got {source}.")
    elif size is not None or channels is not None:
        raise InputError("--size and --channels are for folders; an .npz has its own shape.")
    else:
        shape, names, train, test = read_npz(path)
    if test is None:
        train, test = _set_apart(train, 0.1 if test_fraction is None else test_fraction)
    elif test_fraction is not None:
        raise InputError("--test_fraction is for a source without a test part; this one has one.")
    return Images(shape, names, train, test)


def _check_options(size: int | None, channels: int | None, test_fraction: float | None) -> None:
    if size is not None:
        check_at_least("--size", size)
    if channels not in (None, 1, 3):
        raise InputError(f"--channels must be 1 or 3, got {channels}.")
    if test_fraction is not None:
        check_between("--test_fraction", test_fraction, 0, 1, "()")


def _set_apart(part: ImagePart, fraction: float) -> tuple[ImagePart, ImagePart]:
    labels = np.zeros(len(part), int) if part.labels is None else part.labels
    size = max(1, round(fraction * len(part)))
    classes = len(np.unique(labels))
    if len(part) - size < classes:
        raise InputError(
            f"{len(part)} images of {classes} classes are too few to set {size} apart for testing "
            "and keep one of each class to train on."
        )
    train, test = stratified_split(labels, size)
    return part.take(train), part.take(test)
