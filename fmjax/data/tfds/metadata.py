"""What a set that fmjax wrote says of itself beside its features: in its ``metadata.json``.

    {"fmjax": {"version": 1, "x": "x", "x0": null, "weights": null, "conditions": ["age"],
               "codec": {"kind": "vectors", "mean": [...], "scale": [...]},
               "content": {"train": "...", "test": "..."}}}

The file may come from somebody else: every value is checked before it is believed.
"""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmjax.data.codecs import Codec, Pixels, States, Vectors
from fmjax.data.own import OwnData
from fmjax.data.points import Points
from fmjax.data.token_codecs import Text, Tokens
from fmjax.errors import InputError
from fmjax.json_files import OBJECT, TEXT, TEXTS, WHOLE, Kind, check_kind, read_json

KEY = "fmjax"
FILE = "metadata.json"
_VERSION = 1
_MOST, _LEAST = 1e30, 1e-30  # of a mean and of a scale: what float32 computes with


class SetMetadata(NamedTuple):
    """What a set says of itself.

    Attributes:
        x: the feature that is the data.
        x0: the feature that it is paired with, or None.
        weights: the feature that says how often an example counts, or None.
        conditions: the features that are conditions.
        codec: the numbers of the codec, by their names, and its ``"kind"``.
        content: a hash of what each split holds.
    """

    x: str
    x0: str | None
    weights: str | None
    conditions: tuple[str, ...]
    codec: dict[str, Any]
    content: dict[str, str]


def feature_name(role: str, example: dict[str, Any]) -> str:
    """The feature of a part of an example: images are ``image``, as in public sets, if it is free.

    Args:
        role: ``"x"``, ``"x0"``, ``"weights"``, or the name of a condition.
        example: arrays by what they are.
    """
    images = np.asarray(example["x"]).dtype == np.uint8 and "image" not in example
    return "image" if role == "x" and images else role


def describe_set(own: OwnData, first: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a set that is to be written, without the hashes of its content.

    Args:
        own: the set.
        first: one of its examples.
    """
    codec: dict[str, Any] = {"kind": own.codec.kind}
    if isinstance(own.codec, Vectors):
        size = own.codec.size
        codec["mean"] = list(own.codec.mean or [0.0] * size)
        codec["scale"] = list(own.codec.scale or [1.0] * size)
    elif isinstance(own.codec, States):
        codec |= {"shift": own.codec.shift, "scale": own.codec.scale}
    elif isinstance(own.codec, Tokens):
        codec |= {"vocabulary": own.codec.vocabulary}
    elif isinstance(own.codec, Points):
        codec |= {"manifold": own.codec.name}
    elif isinstance(own.codec, Text):
        codec |= {"symbols": own.codec.symbols and "".join(own.codec.symbols)}
    return {
        "version": _VERSION,
        "x": feature_name("x", first),
        "x0": "x0" if "x0" in first else None,
        "weights": "weights" if "weights" in first else None,
        "conditions": list(own.conditions),
        "codec": codec,
        "content": {},
    }


def _is_number(x: Any) -> bool:
    return type(x) in (int, float) and abs(x) <= _MOST


_NUMBER = Kind("a number of at most 1e30", _is_number)
_SCALE = Kind("a number from 1e-30 to 1e30", lambda x: _is_number(x) and x >= _LEAST)
_HASHES = Kind(
    "texts by split", lambda x: isinstance(x, dict) and all(isinstance(v, str) for v in x.values())
)
_KINDS = {
    "version": WHOLE,
    "x": TEXT,
    "x0": TEXT.or_null(),
    "weights": TEXT.or_null(),
    "conditions": TEXTS,
    "codec": OBJECT,
    "content": _HASHES,
}


_KINDS_OF_TOKENS = (Tokens.kind, Text.kind)
_KINDS_OF_CODECS = (Pixels.kind, Vectors.kind, States.kind, Points.kind, *_KINDS_OF_TOKENS)


def says_tokens(metadata: SetMetadata) -> bool:
    """Whether the data of a set are tokens."""
    return metadata.codec.get("kind") in _KINDS_OF_TOKENS


def read_metadata(folder: Path) -> SetMetadata | None:
    """What a set says of itself; None for one that fmjax did not write.

    Args:
        folder: the version folder of the set.

    Raises:
        InputError: it says something that cannot be.
    """
    path = folder / FILE
    try:
        stored = read_json(path)
    except FileNotFoundError:
        return None
    if KEY not in stored:
        return None
    check_kind(f"{KEY!r} in {path}", stored[KEY], OBJECT)
    found = stored[KEY]
    for name, kind in _KINDS.items():
        if name not in found:
            raise InputError(f"{KEY!r} in {path} has no {name!r}, which must be {kind.words}.")
        check_kind(f"{name!r} in {path}", found[name], kind)
    if found["version"] != _VERSION:
        raise InputError(
            f"{path} is of version {found['version']}, and this fmjax reads {_VERSION}: take the "
            "fmjax that wrote the set, or prepare it again."
        )
    said = {name: found[name] for name in SetMetadata._fields}
    return SetMetadata(**said | {"conditions": tuple(said["conditions"])})


def stored_codec(metadata: SetMetadata, shape: tuple[int, ...], path: Path) -> Codec:
    """The codec of a set that fmjax wrote.

    Args:
        metadata: of the set.
        shape: of one example of its data, as its features say.
        path: of the metadata, for messages.

    Raises:
        InputError: its numbers are missing, too many or too few, or out of range.
    """
    said = metadata.codec
    if said.get("kind") == "pixels":
        return Pixels(shape)
    if said.get("kind") == "states":
        _check(path, "shift", said, _NUMBER)
        _check(path, "scale", said, _SCALE)
        return States(shape, float(said["shift"]), float(said["scale"]))
    if said.get("kind") == "vectors" and len(shape) == 1:
        for name, kind in (("mean", _NUMBER), ("scale", _SCALE)):
            words = f"{shape[0]} of: {kind.words}"
            accepts = functools.partial(_all, count=shape[0], kind=kind)
            _check(path, name, said, Kind(words, accepts))
        mean, scale = (tuple(map(float, said[name])) for name in ("mean", "scale"))
        return Vectors(shape[0], mean, scale)
    if said.get("kind") == "points":
        _check(path, "manifold", said, TEXT)
        return _shaped(Points(said["manifold"], math.prod(shape)), shape, path)
    if said.get("kind") == "tokens":
        _check(path, "vocabulary", said, WHOLE)
        return Tokens(shape, said["vocabulary"])
    if said.get("kind") == "text" and len(shape) == 1:
        _check(path, "symbols", said, TEXT.or_null())
        return Text(shape[0], said["symbols"] and tuple(said["symbols"]))
    raise InputError(
        f"the kind of the codec in {path} must be {', '.join(_KINDS_OF_CODECS)}, as its data are; "
        f"got {said.get('kind')!r:.60} for examples of shape {shape}."
    )


def _shaped(codec: Points, shape: tuple[int, ...], path: Path) -> Points:
    """The codec, if examples have its shape."""
    if codec.shape != shape:
        raise InputError(
            f"the manifold of the codec in {path} has points of shape {codec.shape}, and the "
            f"examples have {shape}: prepare the set again."
        )
    return codec


def _all(x: Any, count: int, kind: Kind) -> bool:
    return isinstance(x, list) and len(x) == count and all(map(kind.accepts, x))


def _check(path: Path, name: str, said: dict[str, Any], kind: Kind) -> None:
    check_kind(f"{name!r} of the codec in {path}", said.get(name), kind)
