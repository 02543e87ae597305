"""Data sets by name, and the TFDS builders that write them without TensorFlow.

TFDS needs TensorFlow to encode an image and to write tfrecord files, but not to store ready PNG
bytes in ArrayRecord files.
"""

import contextlib
import dataclasses
import importlib.util
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from fmjax.data import dataset, random_images
from fmjax.data.dataset import Dataset
from fmjax.data.tfds import directory, records
from fmjax.data.toys import TOYS
from fmjax.errors import InputError, unknown_name

DIGITS_TEST = 297

Examples = Iterable[tuple[np.ndarray, int | None]]


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Opens a data set by name.

    Args:
        name: ``"toy/moons"`` and the like; ``"random/32x32x4/1000"``, images of that shape in so
            many classes with nothing in them to learn; ``"digits"``, the embedded set, prepared on
            first use; or the name of a set prepared in the data directory, ``"name"`` or
            ``"name/config"``.
        data_dir: where the sets lie; None for TFDS's own directory (``TFDS_DATA_DIR``).

    Returns:
        The data set. One without a test split gives a fixed tenth of its examples to `test`.

    Raises:
        InputError: for a name that does not exist, a set that is not prepared, or one that cannot
            be read here; the message says how to prepare it and lists the sets that are.
    """
    if name.startswith("toy/"):
        return _load_toy(name)
    if name.startswith(random_images.PREFIX):
        return _load_noise(name)
    root = directory.resolve(data_dir)
    found = directory.prepared(root)
    if name == "digits" and name not in found:
        found[name] = prepare_digits(root)
    if name not in found:
        raise _not_prepared(name, root, found)
    return records.open_set(name, found[name])


def _load_toy(name: str) -> Dataset:
    if name.removeprefix("toy/") not in TOYS:
        raise unknown_name("toy", name, [f"toy/{known}" for known in TOYS])
    toy = TOYS[name.removeprefix("toy/")]
    names = None if toy.num_classes is None else _numbered(toy.num_classes)
    return Dataset(name, (2,), toy.num_classes, names, toy=toy)


def _load_noise(name: str) -> Dataset:
    shape, classes = random_images.parse(name)
    train = random_images.Noise(shape, classes)
    test = dataclasses.replace(train, size=2**13, first=train.size)
    names = None if classes is None else _numbered(classes)
    return Dataset(name, shape, classes, names, train, test)


def _numbered(num_classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(num_classes)))


def _not_prepared(name: str, root: Path, found: dict[str, Path]) -> InputError:
    toys = [f"toy/{toy}" for toy in TOYS]
    own = (
        f"`{directory.prepare_command('NAME', root)} --source=PATH` (PATH is a folder of class "
        f"folders, or an .npz). Prepared in {root}: {', '.join(found) or 'none'}. "
        f"Always there: digits, {', '.join(toys)}."
    )
    if name.split("/")[0] in _public():
        return InputError(
            f"data set {name!r} is not prepared: run `{directory.prepare_command(name, root)}` "
            "once (needs the network, and tensorflow-cpu installed for this one step), or import "
            f"your own copy with {own}"
        )
    known = {*found, *toys, "digits", "mnist", "cifar10"}
    return InputError(f"{unknown_name('data set', name, known)} Import your own images with {own}")


def _public() -> list[str]:
    return tfds.list_builders(with_community_datasets=False)


class ImageSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder for examples that the caller holds; the set reads back without this class."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded; looking it up needs a package TFDS does not declare

    def __init__(self, *, name: str, splits: dict[str, Examples], shape, class_names, data_dir):
        self.name = name  # of the instance: TFDS would name it after the class
        self._splits, self._shape, self._class_names = splits, shape, class_names
        super().__init__(data_dir=data_dir, file_format=directory.FORMAT)

    def _info(self) -> tfds.core.DatasetInfo:
        return _describe(self, self._shape, self._class_names)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(part) for split, part in self._splits.items()}

    def _generate_examples(self, examples: Examples):
        count = None if self._class_names is None else len(self._class_names)
        for key, (image, label) in enumerate(examples):
            yield key, _encode(f"image {key}", image, label, self._shape, count)


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits, 8x8, that scikit-learn carries (UCI; Alpaydin and Kaynak).

    Levels 0 to 16 become 0 to 255; 297 examples, each digit's share, are set apart for testing.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # as above

    def __init__(self, *, file_format=directory.FORMAT, **kwargs):
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return _describe(self, (8, 8, 1), _numbered(10))

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits  # slow to import, and needed only here

        digits = load_digits()
        images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
        train, test = dataset.stratified_split(digits.target, DIGITS_TEST)
        return {
            "train": self._generate_examples(images[train], digits.target[train]),
            "test": self._generate_examples(images[test], digits.target[test]),
        }

    def _generate_examples(self, images, labels):
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield key, _encode(f"digit {key}", image, label, (8, 8, 1), 10)


def _describe(builder, shape, class_names) -> tfds.core.DatasetInfo:
    features = {"image": tfds.features.Image(shape=tuple(shape), encoding_format="png")}
    if class_names is not None:
        features["label"] = tfds.features.ClassLabel(names=list(class_names))
    return tfds.core.DatasetInfo(
        builder=builder,
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("image", "label") if class_names is not None else None,
    )


def _encode(what: str, image: np.ndarray, label: int | None, shape, num_classes) -> dict:
    """One TFDS example, its image as PNG bytes, which TFDS stores without TensorFlow."""
    if image.dtype != np.uint8 or image.shape != tuple(shape):
        raise InputError(
            f"{what} must be uint8 of shape {tuple(shape)}, got {image.dtype} {image.shape}."
        )
    png = io.BytesIO()
    Image.fromarray(image[..., 0] if shape[-1] == 1 else image).save(png, "PNG")
    png.seek(0)
    if num_classes is None:
        return {"image": png}
    if label is None or not 0 <= label < num_classes:
        raise InputError(f"{what} must have a label from 0 to {num_classes - 1}, got {label}.")
    return {"image": png, "label": int(label)}


def write_image_set(
    name: str,
    data_dir: str | os.PathLike | None,
    train: Examples,
    test: Examples | None,
    class_names: Sequence[str] | None,
    shape: tuple[int, int, int],
    *,
    overwrite: bool = False,
) -> Path:
    """Writes images as a TFDS set that `load`, or ``tfds.builder(name)``, reads back.

    Nothing appears under the final name before every image has been written.

    Args:
        name: lower-case letters, digits and underscores, beginning with a letter.
        data_dir: as in `load`.
        train: pairs ``(image uint8 (H, W, C), label)``; the label is None in a set without classes.
        test: the same, or None for a set without a test split.
        class_names: one name per class, or None.
        shape: ``(H, W, C)`` of every image, C being 1 or 3.
        overwrite: replaces a set of that name, all its versions.

    Returns:
        The folder of the set.

    Raises:
        InputError: for a bad name, an existing set, an image of another shape or dtype, a label
            outside the classes, or a directory that cannot be written.
    """
    root = directory.resolve(data_dir)
    directory.check_new(name, root, overwrite)
    splits = {"train": train} if test is None else {"train": train, "test": test}

    def build(scratch: str) -> tfds.core.DatasetBuilder:
        return ImageSet(
            name=name, splits=splits, shape=shape, class_names=class_names, data_dir=scratch
        )

    with _quiet():
        return directory.publish(build, root, replaces=root / name if overwrite else None)


def prepare_digits(root: Path) -> Path:
    """Prepares the embedded digits in `root`, in a second or two; returns their folder."""
    with _quiet():
        return directory.publish(lambda scratch: Digits(data_dir=scratch), root)


def prepare_public(
    name: str, data_dir: str | os.PathLike | None = None, *, overwrite: bool = False
) -> Path:
    """Downloads a public TFDS set and stores it as ArrayRecord; this one step needs TensorFlow.

    Args:
        name: ``"mnist"``, ``"cifar10"``, ... or ``"name/config"``.
        data_dir: as in `load`.
        overwrite: replaces the version that is there.

    Returns:
        The folder of the set.

    Raises:
        InputError: for an unknown name, a set that exists, TensorFlow missing, or a download or
            preparation that fails.
    """
    root = directory.resolve(data_dir)
    if name == "digits":
        raise InputError("the set 'digits' prepares itself when it is first used.")
    if name.split("/")[0] not in _public():
        raise unknown_name("public data set", name, _public())
    folder = directory.prepared(root).get(name)
    if folder and not overwrite:
        raise InputError(f"data set {name!r} exists in {folder}; add --overwrite to replace it.")
    _check_tensorflow(name)
    return directory.publish(
        lambda scratch: tfds.builder(name, data_dir=scratch),
        root,
        replaces=folder,
        download_dir=root / "downloads",
    )


def _check_tensorflow(name: str) -> None:
    # TFDS itself needs importlib_resources for its public sets, but does not declare it.
    needed = {"tensorflow": "tensorflow-cpu", "importlib_resources": "importlib_resources"}
    missing = [package for module, package in needed.items() if not _installed(module)]
    if missing:
        raise InputError(
            f"preparing the public set {name!r} needs TensorFlow this once (training does not): "
            f"run `pip install {' '.join(missing)}` and try again."
        )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what TFDS announces and its bars, which count shards rather than images."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
