"""JSON from disk, read strictly: limits of size and depth, and a type for each key that is needed.

A file may be damaged, or come from somebody else: what is wrong with it is an `InputError`.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fmjax.errors import InputError, changed_keys
from fmjax.files import first_line

_BYTES = 2**26
_DEPTH = 32


class Kind(NamedTuple):
    """What a value must be: in words, and as a check."""

    words: str
    accepts: Callable[[Any], bool]

    def or_null(self) -> "Kind":
        """The same, or null."""
        return Kind(f"{self.words} or null", lambda x: x is None or self.accepts(x))


def _is_whole(x: Any) -> bool:
    return type(x) is int and 0 <= x < 2**63


def _is_shape(x: Any) -> bool:
    whole = isinstance(x, list) and 0 < len(x) <= 8 and all(_is_whole(n) and n > 0 for n in x)
    return whole and math.prod(x) < 2**31


WHOLE = Kind("a whole number from 0 to 2^63 - 1", _is_whole)
NUMBER = Kind("a number", lambda x: type(x) in (int, float) and not math.isnan(x))
TEXT = Kind("a text", lambda x: isinstance(x, str))
TEXTS = Kind("a list of texts", lambda x: isinstance(x, list) and all(map(TEXT.accepts, x)))
OBJECT = Kind("an object {...}", lambda x: isinstance(x, dict))
OBJECTS = Kind("a list of objects", lambda x: isinstance(x, list) and all(map(OBJECT.accepts, x)))
SHAPE = Kind("a shape, of lengths from 1 and less than 2^31 numbers in all", _is_shape)


def read_json(path: Path, kinds: Mapping[str, Kind] | None = None) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: of the file.
        kinds: what the values of the keys that must be there have to be; others may be anything.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, or is not such an object; the reason is one sentence.
    """
    try:
        size = path.stat().st_size
        if size > _BYTES:
            raise InputError(f"{path} has {size} bytes, and at most {_BYTES} are read.")
        return parse_json(path.read_bytes(), str(path), kinds)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or first_line(error)}."
        ) from error


def parse_json(
    content: bytes | str, what: str, kinds: Mapping[str, Kind] | None = None
) -> dict[str, Any]:
    """The JSON object of a text.

    Args:
        content: the text, in UTF-8 where it is bytes.
        what: where it comes from, as the message names it.
        kinds: as in `read_json`.

    Raises:
        InputError: as in `read_json`.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        found = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{what} is nested deeper than {_DEPTH} levels.") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise InputError(f"{what} is no JSON ({first_line(error)}).") from error
    check_kind(what, found, OBJECT)
    if _depth(found) > _DEPTH:
        raise InputError(f"{what} is nested deeper than {_DEPTH} levels.")
    for key, kind in (kinds or {}).items():
        if key not in found:
            raise InputError(f"{what} has no {key!r}, which must be {kind.words}.")
        check_kind(f"{key!r} in {what}", found[key], kind)
    return found


def check_kind(what: str, value: Any, kind: Kind) -> None:
    """Checks one value.

    Raises:
        InputError: it is of another kind.
    """
    if not kind.accepts(value):
        shown = repr(value)[:60]
        raise InputError(f"{what} must be {kind.words}; got {shown}.")


def _depth(tree: Any) -> int:
    """How many levels of lists and objects there are."""
    depth, level = 0, [tree]
    while level:
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        depth += 1
    return depth


def differences(path: Path, content: dict, free: tuple[str, ...] = ()) -> list[str]:
    """How a stored manifest differs from one that is asked for, key by key.

    A manifest says in JSON what a set of files is to hold and is written before the first of them,
    so that a job that was stopped goes on only where it is asked for the same again.

    Args:
        path: of the JSON file.
        content: what is asked for.
        free: keys that may differ.

    Returns:
        ``"key=stored (asked: ...)"`` for each key that differs; empty where there is no file.

    Raises:
        InputError: the file cannot be read.
    """
    if not path.exists():
        return []
    stored, asked = (
        {key: value for key, value in found.items() if key not in free}
        for found in (read_json(path), json.loads(json.dumps(content)))
    )
    return changed_keys(stored, asked)
