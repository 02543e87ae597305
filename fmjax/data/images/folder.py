"""Images from folders, one folder per class, checked by their headers and decoded one by one."""

import contextlib
import dataclasses
import hashlib
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps

from fmjax.checks import check_class_names
from fmjax.data.images.square import to_square
from fmjax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm")
GREY = ("1", "L", "LA")
COLOUR = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 stand for a quarter turn

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class FilePart:
    """Examples on disk: paths, labels int64 ``(n,)`` or None, and the shape to decode to."""

    paths: Sequence[Path]
    labels: Int[np.ndarray, " n"] | None
    shape: Shape

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = {} if self.labels is None else {"label": self.labels[index]}
        return {"x": decode(self.paths[index], self.shape), **label}

    def take(self, indices: Int[np.ndarray, " k"]) -> "FilePart":
        """The examples at `indices` (k,)."""
        labels = None if self.labels is None else self.labels[indices]
        return FilePart([self.paths[i] for i in indices], labels, self.shape)

    def fingerprint(self, indices: Iterable[int]) -> str:
        """Of the files and the labels of some examples: when the files were changed, not each byte.

        Raises:
            OSError: a file is gone.
        """
        about = hashlib.sha256(f"{PIL.__version__} {self.shape}".encode())
        for i in indices:
            path, found = self.paths[i].absolute(), self.paths[i].stat()
            label = None if self.labels is None else self.labels[i]
            times = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            about.update(repr((str(path), *times, label)).encode())
        return about.hexdigest()


def read_folder(
    path: Path, size: int | None = None, channels: int | None = None
) -> tuple[Shape, tuple[str, ...] | None, FilePart, FilePart | None]:
    """Lists the images of a folder.

    Args:
        path: class folders with images in them, or images without classes, or ``train/`` and
            perhaps ``test/`` of either kind.
        size: side of the square to resize and crop to; None where all images have one size.
        channels: 1 or 3; None for 1 where every image is grey, else 3.

    Returns:
        The shape ``(H, W, C)``, the class names or None, the training examples, and the test
        examples or None.

    Raises:
        InputError: for an empty folder, a file that is not an image, images of several sizes, or
            parts with different classes, or the name of a class that a set cannot keep.
    """
    parts = {folder.name: folder for folder in _folders(path)}
    apart = "train" in parts and set(parts) <= {"train", "test"}
    names, paths, labels = _list_part(parts["train"] if apart else path)
    if not (apart and "test" in parts):
        shape = _common_shape(paths, size, channels)
        return shape, names, FilePart(paths, labels, shape), None
    test_names, test_paths, test_labels = _list_part(parts["test"])
    _check_classes(path, names, test_names)
    shape = _common_shape([*paths, *test_paths], size, channels)
    return shape, names, FilePart(paths, labels, shape), FilePart(test_paths, test_labels, shape)


def _list_part(path: Path) -> tuple[tuple[str, ...] | None, list[Path], np.ndarray | None]:
    """Class names, paths and labels of one part."""
    folders = _folders(path)
    if not folders:
        if not _files(path):
            raise InputError(f"{path} has neither class folders nor images in it.")
        return None, _files(path), None
    check_class_names([folder.name for folder in folders])
    found = [_files(folder) for folder in folders]
    for folder, files in zip(folders, found, strict=True):
        if not files:
            raise InputError(
                f"the class folder {folder} has no images in it ({' '.join(SUFFIXES)}); fill it "
                "or remove it."
            )
    labels = np.repeat(np.arange(len(folders)), [len(files) for files in found])
    return tuple(folder.name for folder in folders), list(itertools.chain(*found)), labels


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(path: Path) -> list[Path]:
    """The images of a folder by name; other files, and hidden ones, are left alone."""
    return sorted(
        p
        for p in path.iterdir()
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )


def _check_classes(path: Path, train: tuple | None, test: tuple | None) -> None:
    if train != test:
        raise InputError(
            f"train/ and test/ in {path} must have the same class folders, got "
            f"{', '.join(train or ['none'])} and {', '.join(test or ['none'])}."
        )


def _common_shape(paths: Sequence[Path], size: int | None, channels: int | None) -> Shape:
    """The shape of all images from their headers, which are quick to read."""
    first_of: dict[tuple[int, int], Path] = {}
    grey = True
    for path in paths:
        width_height, mode = _header(path)
        first_of.setdefault(width_height, path)
        grey = grey and mode in GREY
    if size is None and len(first_of) > 1:
        (one, path_1), (two, path_2) = list(first_of.items())[:2]
        raise InputError(
            f"the images have {len(first_of)} sizes ({one[0]}x{one[1]} in {path_1}, "
            f"{two[0]}x{two[1]} in {path_2}): give the side to resize and crop them to, --size=32."
        )
    width, height = next(iter(first_of)) if size is None else (size, size)
    return height, width, channels or (1 if grey else 3)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image, whose decoder raises one error whatever it meets, and warns of nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                yield image
    except Exception as error:  # Pillow's decoders raise whatever they meet
        raise _broken(path, error) from error


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """Width and height as shown (a camera may store its photo turned), and pixel mode."""
    with _opened(path) as image:
        turned = _has_exif(image) and image.getexif().get(ORIENTATION, 1) >= 5
        (width, height), mode = image.size, image.mode
    if mode not in GREY + COLOUR:
        raise InputError(
            f"the image {path} has pixels of kind {mode!r}; convert it to 8 bits a channel."
        )
    return (height, width) if turned else (width, height), mode


def _has_exif(image: Image.Image) -> bool:
    # Asked of the header only: `getexif` would decode a whole PNG to look behind its pixels.
    return "exif" in image.info


def decode(path: Path, shape: Shape) -> UInt8[np.ndarray, "height width channels"]:
    """Reads one image: upright, and of this size; see `fmjax.data.images.square`.

    Args:
        path: the file.
        shape: ``(H, W, C)`` wanted: that of the image, or a square.

    Returns:
        uint8 ``(H, W, C)``.

    Raises:
        InputError: for a file that is broken.
    """
    height, width, channels = shape
    with _opened(path) as file:
        upright = ImageOps.exif_transpose(file) if _has_exif(file) else file
        image = _flatten(upright, channels)
    if image.size != (width, height):
        image = to_square(image, width)
    return np.array(image).reshape(shape)


def _flatten(image: Image.Image, channels: int) -> Image.Image:
    """Grey or RGB; what is transparent becomes white, whatever colour hides under it."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _broken(path: Path, error: Exception) -> InputError:
    reason = "" if str(path) in str(error) else f" ({error})"
    return InputError(f"the image {path} cannot be read{reason}; repair it or remove it.")
