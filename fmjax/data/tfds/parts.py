"""How the arrays of an example are read from a record of a TFDS set, without TensorFlow.

TFDS would decode a record by itself, twenty times as slowly: it walks through the features of each
example anew, and warns that OpenCV is missing for images.
"""

import dataclasses
import io
import math
import zlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped, UInt8
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from fmjax.data.images.square import to_square
from fmjax.errors import InputError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclasses.dataclass(frozen=True)
class Part:
    """One array of an example.

    Attributes:
        name: of the feature.
        keys: of the numbers in a record; several scalars stand side by side.
        shape: of the array.
        stored: the dtype of what is stored as bytes, and else of the numbers.
        dtype: of the array.
        encoding: ``"image"``, ``"bytes"``, ``"zlib"``, or ``"list"`` of numbers.
        classes: how many classes class ids are of, or how many symbols tokens are of, or None.
    """

    name: str
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    stored: str
    dtype: str
    encoding: str
    classes: int | None = None

    @property
    def nbytes(self) -> int:
        """The size of one array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def read(self, features: Any, row: Shaped[np.ndarray, "..."]) -> None:
        """Writes the array of one record into `row`, shaped as it.

        Raises:
            Exception: the record does not hold it, of whatever kind its reader raises.
        """
        if self.encoding == "image":
            _read_image(row, features[self.keys[0]].bytes_list.value[0])
        elif self.encoding == "list":
            row[...] = self._numbers(features)
        else:
            content = features[self.keys[0]].bytes_list.value[0]
            content = zlib.decompress(content) if self.encoding == "zlib" else content
            row[...] = np.frombuffer(content, self.stored).reshape(self.shape)
        if self.classes is not None and not np.all((row >= 0) & (row < self.classes)):
            raise ValueError(f"{self.name} {row} of {self.classes} classes")

    def _numbers(self, features: Any) -> Shaped[np.ndarray, "..."]:
        found: list[Any] = []
        for key in self.keys:
            feature = features[key]
            found.extend(feature.int64_list.value or feature.float_list.value)
        return np.array(found, self.stored).reshape(self.shape)


def _read_image(row: UInt8[np.ndarray, "height width channels"], content: bytes) -> None:
    """Writes the pixels of a PNG or a JPEG into an array (H, W, C), as a square if it must be."""
    height, width, channels = row.shape
    with Image.open(io.BytesIO(content)) as image:
        pixels = image.convert(_MODES[channels])
        if pixels.size != (width, height):
            if height != width:
                raise ValueError(f"an image of {pixels.size[::-1]} pixels, not {(height, width)}")
            pixels = to_square(pixels, height)
        row[...] = np.array(pixels).reshape(row.shape)


def parse_record(record: bytes) -> Any:
    """What a record holds, by key."""
    return tf_example_pb2.Example.FromString(record).features.feature


def numbers_part(name: str, feature: Any, dtype: str) -> Part:
    """The part of a tensor of fixed shape, of a class, or of another scalar.

    Args:
        name: of the feature.
        feature: `tfds.features.Tensor` or one of its kind.
        dtype: wanted.
    """
    shape = tuple(feature.shape)
    encoding = getattr(feature.to_json_content(), "encoding", "") or "none"
    classes = feature.num_classes if isinstance(feature, tfds.features.ClassLabel) else None
    stored = np.dtype(feature.np_dtype).name
    kind = encoding if encoding in ("bytes", "zlib") else "list"
    return Part(name, (name,), shape, stored, dtype, kind, classes)


def scalars_part(name: str, features: dict[str, Any]) -> Part:
    """The part of a dictionary of scalars, which become one vector in the order of their names."""
    keys = tuple(f"{name}/{key}" for key in sorted(features))
    return Part(name, keys, (len(keys),), "float32", "float32", "list")


def image_part(set_name: str, name: str, feature: Any, size: int | None) -> Part:
    """The part of an image of uint8.

    Args:
        set_name: for messages.
        name: of the feature.
        feature: `tfds.features.Image`.
        size: the side of the square that it is scaled and cropped to; None for images of one size.

    Raises:
        InputError: the images have several sizes, and no size is given; or other channels.
    """
    *sides, channels = feature.shape
    if channels not in _MODES:
        raise InputError(
            f"the feature {name!r} of data set {set_name!r} has images of {channels} channels; 1, "
            "3 or 4 are read."
        )
    if None in sides and size is None:
        raise InputError(
            f"data set {set_name!r} has images of several sizes: write data.size=64, say, the side "
            "of the square that they are scaled and cropped to."
        )
    shape = (*sides, channels) if size is None else (size, size, channels)
    return Part(name, (name,), shape, "uint8", "uint8", "image")
