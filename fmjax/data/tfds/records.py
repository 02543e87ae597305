"""Reads prepared TFDS sets: ArrayRecord files, which need no TensorFlow."""

import dataclasses
import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from fmjax.conditions import ClassIds
from fmjax.data import dataset
from fmjax.data.codecs import Codec, Pixels, States
from fmjax.data.tfds import directory
from fmjax.errors import InputError
from fmjax.files import first_line
from fmjax.json_files import TEXTS, check_kind, read_json

# Up to this size the decoded images stay in memory, and later epochs cost no decoding.
CACHE_BYTES = 2**30


@dataclasses.dataclass(eq=False)
class ImageRecords:
    """Random access to one split of a prepared set; it pickles as a path.

    Attributes:
        folder: the version folder of the set.
        split: e.g. ``"train"``.
        codec: of the images: `Pixels`, stored as PNG, or `States`, floats stored as they are.
        labelled: whether the examples carry a label.
    """

    folder: Path
    split: str
    codec: Codec
    labelled: bool

    @functools.cached_property
    def _source(self):
        builder = tfds.builder_from_directory(self.folder, file_format=directory.FORMAT)
        # TFDS would decode a PNG by itself, but warn on the way that OpenCV is missing.
        png = self.codec.data_dtype == np.uint8
        decoders = {"image": tfds.decode.SkipDecoding()} if png else None
        return builder.as_data_source(self.split, decoders=decoders)

    @functools.cached_property
    def _cache(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Images, filled in as they are first read, and labels (-1: not read yet)."""
        n, size = len(self), int(np.prod(self.codec.data_shape)) * self.codec.data_dtype.itemsize
        if n * size > CACHE_BYTES:
            return None
        # zeros, not empty: the system then hands out memory only as it is written.
        images = np.zeros((n, *self.codec.data_shape), self.codec.data_dtype)
        return images, np.full(n, -1, np.int32)

    def __getstate__(self) -> dict:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        images, labels = self.read([index])
        return (
            {"image": images[0]}
            if labels is None
            else {"image": images[0], "label": int(labels[0])}
        )

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Many examples at once, which costs far less than one by one.

        Args:
            indices: k positions from 0 to ``len(self) - 1``.

        Returns:
            Images ``(k, H, W, C)``, the caller's own, and labels int32 ``(k,)`` or None.
        """
        indices = np.asarray(indices)
        if self._cache is None:
            images, labels = self._decode(indices)
        else:
            images, labels = self._cache
            new = np.unique(indices[labels[indices] < 0])
            if len(new):
                # The labels go in last: a thread that sees them finds the images complete.
                images[new], labels_of_new = self._decode(new)
                labels[new] = labels_of_new
            images, labels = images[indices], labels[indices]
        return images, labels if self.labelled else None

    def _decode(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            records = self._source.__getitems__(indices.tolist())
        except RuntimeError as error:  # the reader's word for damaged bytes
            raise InputError(f"the data set is damaged: {error}. Prepare it again.") from error
        images = np.empty((len(records), *self.codec.data_shape), self.codec.data_dtype)
        read = _read_png if images.dtype == np.uint8 else np.copyto
        for row, record in zip(images, records, strict=True):
            read(row, record["image"])
        labels = [record["label"] if self.labelled else 0 for record in records]
        return images, np.array(labels, np.int32)


def _read_png(row: np.ndarray, png: bytes) -> None:
    """Writes the pixels of a PNG into an array (H, W, C)."""
    with Image.open(io.BytesIO(png)) as image:
        row[...] = np.array(image.convert("L" if row.shape[-1] == 1 else "RGB")).reshape(row.shape)


def open_set(name: str, folder: Path) -> dataset.Dataset:
    """The data set in a version folder.

    Args:
        name: what the set is called.
        folder: the folder, as `directory.prepared` finds it.

    Returns:
        The data set; without a test split, a fixed tenth of the training examples is its `test`.

    Raises:
        InputError: for a set in another format, without images of one size, without a train
            split, or damaged.
    """
    _check_format(name, folder)
    try:
        info = tfds.builder_from_directory(folder).info
    except Exception as error:  # TFDS and protobuf each raise their own
        raise _damaged(name, folder, error) from error
    codec, names = _image_codec(name, info), _label_names(info)
    sizes = {split: info.splits[split].num_examples for split in info.splits}
    if not sizes.get("train"):
        raise InputError(f"data set {name!r} has no train split, only {', '.join(sizes)}.")
    test = "test" if sizes.get("test") else None
    if test is None and sizes["train"] < 2:
        raise InputError(f"data set {name!r} has one example only; at least two are needed.")
    parts = [
        ImageRecords(folder, part, codec, names is not None) for part in ("train", test) if part
    ]
    for part in parts:
        try:
            part[0]  # what is damaged shows here, not in the middle of a run
        except Exception as error:
            raise _damaged(name, folder, error) from error
    train, test = parts if test else dataset.hold_out(parts[0])
    classes = None if names is None else ClassIds(len(names), names=names)
    return dataset.Dataset(name, codec, classes, train, test)


def _check_format(name: str, folder: Path) -> None:
    try:
        stored = read_json(folder / "dataset_info.json")
        formats = [stored.get("fileFormat", "tfrecord")]  # sets older than the field are tfrecord
        formats += stored.get("alternativeFileFormats", [])
        check_kind("the file formats", formats, TEXTS)
    except (ValueError, TypeError, OSError) as error:
        raise _damaged(name, folder, error) from error
    if directory.FORMAT not in formats:
        root = folder.parents[1 + name.count("/")]
        command = f"{directory.prepare_command(name, root)} --overwrite"
        raise InputError(
            f"data set {name!r} in {folder} is stored as {formats[0]}, which only TensorFlow "
            f"reads; if it is a public set, write it again as ArrayRecord with `{command}` (needs "
            "the network, and tensorflow-cpu installed for this one step), else import its images "
            f"with `{command} --source=PATH`."
        )


def _image_codec(name: str, info: tfds.core.DatasetInfo) -> Codec:
    """Pixels for images of uint8; floats are states already, whatever their shape."""
    image = dict(info.features).get("image")
    shape = tuple(getattr(image, "shape", None) or ())
    if shape and None not in shape:
        if isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8:
            return Pixels(shape)
        if type(image) is tfds.features.Tensor and np.issubdtype(image.np_dtype, np.floating):
            return States(shape)
    raise InputError(
        f"data set {name!r} has no 'image' of one fixed size, of uint8 or of floats, only "
        f"{', '.join(info.features)}; save its images to a folder and import them with "
        "`python -m fmjax prepare --name=NAME --source=FOLDER --size=PIXELS`."
    )


def _label_names(info: tfds.core.DatasetInfo) -> tuple[str, ...] | None:
    label = dict(info.features).get("label")
    return tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else None


def _damaged(name: str, folder: Path, error: Exception) -> InputError:
    return InputError(
        f"data set {name!r} in {folder} cannot be read ({first_line(error)}); delete "
        "that folder and prepare the set again."
    )
