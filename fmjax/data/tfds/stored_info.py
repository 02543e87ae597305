"""The JSON of a prepared set, checked before TFDS parses it: the set may be a stranger's.

TFDS imports the module that ``features.json`` names for each feature, reads files by a template in
``dataset_info.json``, and believes every length. Here a feature is one of TFDS's own, a template
stays in the folder, and lengths have a range.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fmjax.json_files import OBJECTS, SHAPE, TEXT, TEXTS, Kind, check_kind, read_json

INFO, FEATURES = "dataset_info.json", "features.json"
_OWN = "tensorflow_datasets.core.features."


def _whole(x: Any) -> int | None:
    """A number of JSON, where protobuf writes one of 64 bits as a text."""
    if isinstance(x, str) and re.fullmatch(r"-?\d{1,19}", x):
        return int(x)
    return x if type(x) is int else None


def _is_name(x: Any) -> bool:
    return isinstance(x, str) and x not in ("", ".", "..") and not re.search(r"[/\\\0]", x)


def _is_shape(x: Any) -> bool:
    """Whether it is a shape; in it -1 is a length that differs from one example to the next."""
    known = [n for n in map(_whole, x) if n != -1] if isinstance(x, list) else x
    return known == [] or SHAPE.accepts(known)


def _is_length(x: Any) -> bool:
    n = _whole(x)
    return n is not None and 0 <= n < 2**31


_LENGTH = Kind("a whole number from 0 to 2^31 - 1", _is_length)
_LENGTHS = Kind(f"a list, each {_LENGTH.words}", lambda x: _all(x, _LENGTH))
_NAME = Kind("a name without / in it", _is_name)
_FEATURE = Kind("a feature of TFDS", lambda x: isinstance(x, str) and x.startswith(_OWN))
_OF_INFO = {
    "name": _NAME,
    "version": TEXT,
    "splits": OBJECTS,
    "fileformat": TEXT,
    "alternativefileformats": TEXTS,
}
_OF_SPLIT = {"name": _NAME, "filepathtemplate": _NAME, "shardlengths": _LENGTHS}
_OF_FEATURE = {
    "pythonclassname": _FEATURE,
    "type": _FEATURE,  # how older sets name the class
    "numclasses": _LENGTH,
    "dimensions": Kind(f"{SHAPE.words}, or -1 for one that differs", _is_shape),
}


def _all(x: Any, kind: Kind) -> bool:
    return isinstance(x, list) and all(map(kind.accepts, x))


def check_stored(folder: Path) -> list[str]:
    """Checks what a prepared set says of itself.

    Args:
        folder: the version folder of the set.

    Returns:
        The file formats that it is stored in.

    Raises:
        FileNotFoundError: one of the files is not there.
        InputError: a file is no such JSON, or says what cannot be; the reason is one sentence.
    """
    info, features = (read_json(folder / name) for name in (INFO, FEATURES))
    _check(INFO, info, _OF_INFO)
    for split in info.get("splits", ()):
        _check(f"a split in {INFO}", split, _OF_SPLIT)
    for found in _objects(features):
        # Under the name of a feature there is an object, whatever the name.
        _check(FEATURES, {k: x for k, x in found.items() if not isinstance(x, dict)}, _OF_FEATURE)
    usual = "tfrecord"  # of sets older than the field
    return [info.get("fileFormat", usual), *info.get("alternativeFileFormats", ())]


def _check(what: str, found: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Checks values by their keys, which protobuf reads as ``fileFormat`` or ``file_format``."""
    for key, value in found.items():
        if kind := kinds.get(key.replace("_", "").lower()):
            check_kind(f"{key!r} in {what}", value, kind)


def _objects(tree: Any) -> Iterator[dict[str, Any]]:
    """All the objects in JSON."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    for child in tree if isinstance(tree, list) else ():
        yield from _objects(child)
