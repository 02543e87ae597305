"""Writes images as a set of tensorflow_datasets, without TensorFlow.

TFDS needs TensorFlow to encode an image and to write tfrecord files, but not to store ready PNG
bytes in ArrayRecord files.
"""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from fmjax.checks import check_class_names
from fmjax.data.tfds import directory
from fmjax.errors import InputError

Examples = Iterable[tuple[np.ndarray, int | None]]


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
        class_names: one name per class, which `fmjax.checks.check_class_names` takes, or None.
        shape: ``(H, W, C)`` of every image, C being 1 or 3.
        overwrite: replaces a set of that name, all its versions.

    Returns:
        The folder of the set.

    Raises:
        InputError: for a bad name, of the set or of a class, an existing set, an image of another
            shape or dtype, a label outside the classes, or a directory that cannot be written.
    """
    root = directory.data_root(data_dir)
    directory.check_new(name, root, overwrite)
    check_class_names(class_names or ())
    splits = {"train": train} if test is None else {"train": train, "test": test}

    def build(scratch: str) -> tfds.core.DatasetBuilder:
        return ImageSet(
            name=name, splits=splits, shape=shape, class_names=class_names, data_dir=scratch
        )

    with quiet():
        return directory.publish(build, root, replaces=root / name if overwrite else None)


class ImageSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder for examples that the caller holds; the set reads back without this class."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded; looking it up needs a package TFDS does not declare

    def __init__(self, *, name: str, splits: dict[str, Examples], shape, class_names, data_dir):
        self.name = name  # of the instance: TFDS would name it after the class
        self._splits, self._shape, self._class_names = splits, shape, class_names
        super().__init__(data_dir=data_dir, file_format=directory.FORMAT)

    def _info(self) -> tfds.core.DatasetInfo:
        return describe_images(self, self._shape, self._class_names)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(part) for split, part in self._splits.items()}

    def _generate_examples(self, examples: Examples):
        count = None if self._class_names is None else len(self._class_names)
        for key, (image, label) in enumerate(examples):
            yield key, encode_example(f"image {key}", image, label, self._shape, count)


def describe_images(
    builder: tfds.core.DatasetBuilder,
    shape: tuple[int, int, int],
    class_names: Sequence[str] | None,
) -> tfds.core.DatasetInfo:
    """The TFDS features of a set of images of one shape, with labels where there are classes."""
    features = {"image": tfds.features.Image(shape=tuple(shape), encoding_format="png")}
    if class_names is not None:
        features["label"] = tfds.features.ClassLabel(names=list(class_names))
    return tfds.core.DatasetInfo(
        builder=builder,
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("image", "label") if class_names is not None else None,
    )


def encode_example(
    what: str,
    image: np.ndarray,
    label: int | None,
    shape: tuple[int, int, int],
    num_classes: int | None,
) -> dict:
    """One TFDS example, its image as PNG bytes, which TFDS stores without TensorFlow.

    Args:
        what: its name in error messages.
        image: uint8 of that shape.
        label: from 0 to ``num_classes - 1``; ignored in a set without classes.
        shape: ``(H, W, C)``, C being 1 or 3.
        num_classes: how many classes the set has, or None.

    Raises:
        InputError: another dtype or shape, or a label outside the classes.
    """
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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what TFDS announces and its bars, which count shards rather than images."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
