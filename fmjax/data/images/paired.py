"""Two folders of images in pairs, by their names: sketches and photos, before and after."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from fmjax.data.images.folder import FilePart, Shape, read_folder
from fmjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class PairedPart:
    """Examples on disk, each with the image that its flow starts from.

    Attributes:
        ends: where the flow leads, with the classes.
        starts: where it starts, one image for each of these.
    """

    ends: FilePart
    starts: FilePart

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x0": self.starts[index]["x"], **self.ends[index]}

    @property
    def labels(self) -> Int64[np.ndarray, " n"] | None:
        """The class ids int64 ``(n,)``, or None."""
        return self.ends.labels

    def take(self, indices: Int[np.ndarray, " k"]) -> "PairedPart":
        """The examples at `indices` (k,)."""
        return PairedPart(self.ends.take(indices), self.starts.take(indices))

    def fingerprint(self, indices: Iterable[int]) -> str:
        """Of the files of some examples, as `FilePart.fingerprint`.

        Raises:
            OSError: a file is gone.
        """
        indices = list(indices)
        return self.ends.fingerprint(indices) + self.starts.fingerprint(indices)


def read_paired_folders(
    path: Path, x0: Path, size: int | None = None, channels: int | None = None
) -> tuple[Shape, tuple[str, ...] | None, PairedPart, PairedPart | None]:
    """Lists the images of two folders; those of one name, but for the suffix, are a pair.

    Args:
        path: the images to which the flow leads, as in `read_folder`.
        x0: those from which it starts, in folders of the same names.
        size: as in `read_folder`.
        channels: as in `read_folder`; None for 3 where an image of either folder has colours.

    Returns:
        As `read_folder`, with pairs in the place of images.

    Raises:
        InputError: as `read_folder`, an image has no partner, or the sizes are not the same.
    """
    shape, names, train, test = read_folder(path, size, channels)
    shape_0, _, *parts_0 = read_folder(x0, size, channels)
    if shape[:2] != shape_0[:2]:
        raise InputError(
            f"the images of {path} are {shape[1]}x{shape[0]} and those of {x0} "
            f"{shape_0[1]}x{shape_0[0]}: give the side to resize and crop both to, --size=32."
        )
    both = (*shape[:2], max(shape[2], shape_0[2]))
    found = {_name(file, x0): file for part in parts_0 if part for file in part.paths}
    if len(found) < sum(len(part) for part in parts_0 if part):
        raise InputError(
            f"two images of {x0} have one name but for the suffix; remove one of them."
        )
    pairs = _paired(train, path, found, x0, both)
    test_pairs = None if test is None else _paired(test, path, found, x0, both)
    if found:
        file = next(iter(found.values()))
        raise InputError(
            f"{file} has no partner of its name in {path} ({len(found)} images have none); add "
            "them, or take them out of the folder."
        )
    return both, names, pairs, test_pairs


def _name(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder).with_suffix(""))


def _paired(
    part: FilePart, path: Path, found: dict[str, Path], x0: Path, shape: tuple[int, int, int]
) -> PairedPart:
    """The part with the partners of its images, which are taken out of those that were found."""
    partners = [found.pop(_name(file, path), None) for file in part.paths]
    alone = [file for file, other in zip(part.paths, partners, strict=True) if other is None]
    if alone:
        raise InputError(
            f"{alone[0]} has no partner of its name in {x0}, or shares it with another image "
            f"({len(alone)} images have none); add them, or take them out of the folder."
        )
    starts = FilePart([file for file in partners if file is not None], None, shape)
    return PairedPart(dataclasses.replace(part, shape=shape), starts)
