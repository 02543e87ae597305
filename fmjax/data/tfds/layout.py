"""Which features of a set are its data and its conditions, and what they are to a model."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fmjax.conditions import ClassIds, Condition, ImageCondition, Mask, Sequence, Vector
from fmjax.data.codecs import Codec, Pixels, States
from fmjax.data.dataset import Reading
from fmjax.data.tfds.metadata import SetMetadata, says_tokens
from fmjax.data.tfds.parts import Part, image_part, numbers_part, scalars_part
from fmjax.errors import InputError, unknown_name

_MASK = "_mask"


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is read of each example.

    Attributes:
        x: the data.
        x0: what they are paired with, or None.
        weights: how often an example counts, or None.
        labels: the conditions, by name.
        lone: whether the labels are one array, of class ids, and no dictionary of arrays.
    """

    x: Part
    x0: Part | None
    weights: Part | None
    labels: dict[str, Part]
    lone: bool

    @property
    def parts(self) -> dict[str, Part]:
        """Everything that is kept of an example, by the names of the features."""
        parts = [self.x, *([] if self.x0 is None else [self.x0]), *self.labels.values()]
        return {part.name: part for part in parts}


def choose_layout(
    name: str, info: tfds.core.DatasetInfo, metadata: SetMetadata | None, reading: Reading
) -> tuple[Layout, Any]:
    """What is read of each example of a set, and the conditions of its labels.

    What `reading` leaves open is what fmjax wrote of its own sets, else the supervised keys of the
    set, else ``image`` and ``label``.

    Args:
        name: of the set.
        info: of the set.
        metadata: of a set that fmjax wrote; None for another.
        reading: what is asked for.

    Raises:
        InputError: a feature is unknown, or is nothing that a flow can be trained on.
    """
    features = dict(info.features)
    default_x, default_y = _defaults(info, metadata)
    chosen = reading.x or default_x
    if metadata is not None and chosen == metadata.x and says_tokens(metadata):
        x = _tokens_part(name, chosen, features, reading)
    else:
        x = _data_part(name, chosen, features, reading)
    wanted = default_y if reading.conditions is None else _listed(reading.conditions)
    found = {one: _condition(name, one, features, reading.size) for one in wanted}
    for one, (_, condition) in found.items():
        if isinstance(condition, Mask) and condition.of not in found:
            raise InputError(
                f"data.conditions has the mask {one!r} without its sequence {condition.of!r} in "
                f"data set {name!r}: name both, or neither."
            )
    parts = {one: part for one, (part, _) in found.items()}
    conditions = {one: condition for one, (_, condition) in found.items()}
    lone = len(conditions) == 1 and isinstance(next(iter(conditions.values())), ClassIds)
    x0 = weights = None
    if metadata is not None:
        x0 = _beside(name, metadata.x0, features) if x.name == metadata.x else None
        weights = _beside(name, metadata.weights, features)
    layout = Layout(x, x0, weights, parts, lone)
    return layout, (next(iter(conditions.values())) if lone else conditions or None)


def codec_of(layout: Layout) -> Codec:
    """The codec of data that say nothing of their own: pixels of uint8, or floats as they are."""
    x = layout.x
    return Pixels(x.shape) if x.dtype == "uint8" else States(x.shape)


def _defaults(
    info: tfds.core.DatasetInfo, metadata: SetMetadata | None
) -> tuple[str, tuple[str, ...]]:
    """The features that are data and conditions where nobody says others."""
    if metadata is not None:
        return metadata.x, metadata.conditions
    features, keys = dict(info.features), tuple(info.supervised_keys or ())
    usual = len(keys) != 2 or not all(isinstance(k, str) for k in keys)
    x, y = ("image", "label") if usual else keys
    x = "image" if "image" in features else x
    y = "label" if "label" in features else y
    return x, (y,) if isinstance(features.get(y), tfds.features.ClassLabel) else ()


def _listed(conditions: str) -> tuple[str, ...]:
    return () if conditions == "none" else tuple(dict.fromkeys(conditions.split(",")))


def _feature(name: str, key: str, one: str, features: dict[str, Any]) -> Any:
    if one not in features:
        raise unknown_name(f"feature of data set {name!r} ({key})", one, features)
    return features[one]


def _is_fixed(feature: Any) -> bool:
    shape = getattr(feature, "shape", None)
    return isinstance(shape, tuple) and None not in shape


def _is_numbers(feature: Any, kinds: str) -> bool:
    """Whether a feature is an array of fixed shape, of numbers of these kinds of numpy."""
    tensor = isinstance(feature, tfds.features.Tensor) and not isinstance(
        feature, tfds.features.Text
    )
    return tensor and _is_fixed(feature) and np.dtype(feature.np_dtype).kind in kinds


def _data_part(name: str, one: str, features: dict[str, Any], reading: Reading) -> Part:
    feature = _feature(name, "data.x", one, features)
    if isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8:
        return image_part(name, one, feature, reading.size)
    if _is_numbers(feature, "fu") and len(feature.shape):
        floats = np.dtype(feature.np_dtype).kind == "f"
        images = feature.np_dtype == np.uint8 and len(feature.shape) == 3
        if reading.size is None and (floats or images):
            return numbers_part(one, feature, "float32" if floats else "uint8")
    raise InputError(
        f"the feature {one!r} of data set {name!r}, {_shown(feature)}, is nothing that a flow is "
        "trained on: images of uint8, or arrays of floats of one fixed shape (without data.size, "
        f"which is for images). Choose another by data.x, of {', '.join(features)}."
    )


def _tokens_part(name: str, one: str, features: dict[str, Any], reading: Reading) -> Part:
    feature = _feature(name, "its metadata", one, features)
    if not _is_numbers(feature, "i") or not feature.shape or reading.size is not None:
        raise InputError(
            f"the feature {one!r} of data set {name!r} is {_shown(feature)}, and its tokens must "
            "be integers of one fixed shape, without data.size."
        )
    return numbers_part(one, feature, "int32")


def _beside(name: str, one: str | None, features: dict[str, Any]) -> Part | None:
    """The part of x0 or of the weights, which the metadata name."""
    if one is None:
        return None
    feature = _feature(name, "its metadata", one, features)
    if isinstance(feature, tfds.features.Image):
        return image_part(name, one, feature, None)
    if not _is_numbers(feature, "f"):
        raise InputError(
            f"the feature {one!r} of data set {name!r} is {_shown(feature)}, and must be floats; "
            "prepare the set again."
        )
    return numbers_part(one, feature, "float32")


def _condition(
    name: str, one: str, features: dict[str, Any], size: int | None
) -> tuple[Part, Condition]:
    feature = _feature(name, "data.conditions", one, features)
    if isinstance(feature, tfds.features.ClassLabel):
        number, names = feature.num_classes, feature.names
        return numbers_part(one, feature, "int32"), ClassIds(number, names=tuple(names))
    if isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8:
        part = image_part(name, one, feature, size)
        return part, ImageCondition(part.shape)
    if isinstance(feature, tfds.features.FeaturesDict):
        scalars = dict(feature)
        if scalars and all(_is_numbers(f, "fiub") and f.shape == () for f in scalars.values()):
            part = scalars_part(one, scalars)
            return part, Vector(len(scalars))
    sequence = one.removesuffix(_MASK)
    masks = one != sequence and sequence in features and _is_numbers(feature, "b")
    if masks and len(feature.shape) == 1:
        return numbers_part(one, feature, "bool"), Mask(feature.shape[0], of=sequence)
    if _is_numbers(feature, "b") and feature.shape == ():
        part = dataclasses.replace(numbers_part(one, feature, "int32"), classes=2)
        return part, ClassIds(2, names=("False", "True"))
    if _is_numbers(feature, "fb") and len(feature.shape) <= 3 and 0 not in feature.shape:
        part = numbers_part(one, feature, "float32")
        if part.shape == ():
            part = dataclasses.replace(part, shape=(1,))
        if len(part.shape) == 3:
            return part, ImageCondition(part.shape)
        return part, Sequence(*part.shape) if len(part.shape) == 2 else Vector(part.shape[0])
    raise InputError(
        f"the feature {one!r} of data set {name!r}, {_shown(feature)}, is no condition: classes "
        "(ClassLabel), floats of a fixed shape, dictionaries of scalars, masks of a sequence, and "
        "images are. Choose others by data.conditions, or none by data.conditions=none."
    )


def _shown(feature: Any) -> str:
    """A feature as a message shows it."""
    return f"{type(feature).__name__} of shape {getattr(feature, 'shape', '')}"
