"""A user's own folder of images, or two of them in pairs, ready to be written as a set."""

from pathlib import Path

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Pixels
from fmjax.data.images.folder import FilePart, read_folder
from fmjax.data.images.paired import PairedPart, read_paired_folders
from fmjax.data.own import OwnData
from fmjax.data.tables.split import set_apart
from fmjax.errors import InputError


def own_folder(
    path: Path,
    size: int | None = None,
    channels: int | None = None,
    test_fraction: float | None = None,
    x0: Path | None = None,
) -> OwnData:
    """The images of a folder, ready to be written.

    Args:
        path: as in `read_folder`, as are `size` and `channels`.
        size: as in `read_folder`.
        channels: as in `read_folder`.
        test_fraction: the share to set apart where there is no ``test/``; a tenth if None.
        x0: the folder of the images that these are paired with, as in `read_paired_folders`.

    Raises:
        InputError: as `read_folder` and `read_paired_folders`, or there are too few to set some
            apart.
    """
    train: FilePart | PairedPart
    test: FilePart | PairedPart | None
    if x0 is None:
        shape, names, train, test = read_folder(path, size, channels)
    else:
        shape, names, train, test = read_paired_folders(path, x0, size, channels)
    if test is None:
        classes = [] if train.labels is None else [train.labels]
        kept, apart = set_apart("images", len(train), classes, test_fraction)
        train, test = train.take(kept), train.take(apart)
    elif test_fraction is not None:
        raise InputError("--test_fraction is for a source without a test part; this one has one.")
    conditions = {} if names is None else {"label": ClassIds(len(names), names=names)}
    return OwnData(Pixels(shape), conditions, train, test)
