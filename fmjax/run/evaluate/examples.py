"""Examples to measure, from a folder, a file or a set: read a few at a time, by their numbers."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from fmjax.data.dataset import SPLITS, Dataset
from fmjax.data.images.folder import FilePart, decode, read_folder
from fmjax.data.load import load
from fmjax.errors import InputError
from fmjax.npz import read_array, read_arrays

_AT_ONCE = 256
_ARRAYS = ("samples", "images", "arr_0", "x")


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A set of examples, of which some are chosen.

    Attributes:
        name: of the set.
        read: gives examples ``(k, ...)`` at ``(k,)`` places.
        places: of those that are chosen, increasing.
    """

    name: str
    read: Callable[[Int[np.ndarray, " k"]], Shaped[np.ndarray, "k ..."]]
    places: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Shaped[np.ndarray, "k ..."]]:
        for start in range(0, len(self.places), _AT_ONCE):
            yield self.read(self.places[start : start + _AT_ONCE])

    @property
    def dtype(self) -> np.dtype:
        """Of the examples."""
        return self.read(self.places[:1]).dtype

    def choose(self, most: int) -> "Examples":
        """At most so many of them: a fixed random choice."""
        order = np.random.default_rng(0).permutation(len(self.places))[:most]
        return dataclasses.replace(self, places=self.places[np.sort(order)])

    def array(self) -> Shaped[np.ndarray, "n ..."]:
        """All of them at once."""
        return np.concatenate(list(self))


def open_examples(
    source: str, split: str, size: int | None = None, data_dir: str | None = None
) -> Examples:
    """Opens what a flag names.

    Args:
        source: a folder of images (class folders, images, or ``train/`` and ``test/``) or of the
            shards that `sample` writes; an ``.npz`` with ``samples``, ``images``, ``arr_0``, ``x``
            or ``x_train`` and ``x_test``; an ``.npy``; or the name of a data set.
        split: ``"train"`` or ``"test"``, where there are both.
        size: of the square that images of a folder are resized and cropped to; None where all have
            one size.
        data_dir: of prepared sets.

    Raises:
        InputError: there is nothing of that name, or nothing in it.
    """
    if split not in SPLITS:
        raise InputError(f"--split must be train or test, got {split!r}.")
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        return _folder(path, split, size)
    if path.suffix in (".npz", ".npy"):
        if not os.path.isfile(path):
            raise InputError(f"{path} does not exist.")
        array = _npz_array(path, split) if path.suffix == ".npz" else read_array(path, True)
        return _examples(str(path), array)
    return examples_of(load(source, data_dir), split)


def examples_of(dataset: Dataset, split: str) -> Examples:
    """The examples of a split of a data set."""
    part, name = getattr(dataset, split), f"{dataset.name} ({split})"
    if part is None:  # a toy, which is drawn
        return _examples(name, dataset.arrays(split)[0])
    return Examples(name, lambda places: part.read(places)[0], np.arange(len(part)))


def _examples(name: str, array: Shaped[np.ndarray, "n ..."]) -> Examples:
    if not array.ndim or not len(array):
        raise InputError(f"{name} holds no examples.")
    if array.ndim == 3 and array.dtype == np.uint8:
        array = array[..., None]
    return Examples(name, lambda places: np.asarray(array[places]), np.arange(len(array)))


def _npz_array(path: Path, split: str) -> Shaped[np.ndarray, "n ..."]:
    arrays = read_arrays(path, only=(*_ARRAYS, "x_train", "x_test"))
    for name in (f"x_{split}", *_ARRAYS):
        if name in arrays:
            return arrays[name]
    raise InputError(
        f"{path} must hold examples under one of the names {', '.join(_ARRAYS)} and x_{split}; it "
        "holds none of them."
    )


def _folder(path: Path, split: str, size: int | None) -> Examples:
    shards = sorted(itertools.chain(path.glob("samples.npz"), path.glob("samples-*-of-*.npz")))
    if shards:
        parts = [_npz_array(shard, split) for shard in shards]
        return _examples(str(path), np.concatenate(parts))
    train, test = read_folder(path, size)[2:]
    part = train if split == "train" else test
    if part is None:
        raise InputError(f"{path} has no folder test/; leave --split out.")
    return Examples(str(path), lambda places: _decoded(part, places), np.arange(len(part)))


def _decoded(
    part: FilePart, places: Int[np.ndarray, " k"]
) -> UInt8[np.ndarray, "k height width channels"]:
    return np.stack([decode(part.paths[place], part.shape) for place in places])
