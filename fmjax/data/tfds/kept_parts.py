"""Encoded examples kept beside a set in the making, so that a stopped preparation goes on.

To decode and to scale photos takes hours where there are millions. Some examples at a time are kept
in a file named after the fingerprint of what they were made of; each file has checksums, so that
one that was cut short is made anew.
"""

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.errors import InputError
from fmjax.npz import read_arrays

Encoded = tuple[list[dict[str, Any]], bytes]
"""Examples as TFDS stores them, and a hash of what they hold."""

_DIGEST, _LENGTHS = "digest", ":lengths"


class KeptParts:
    """The files of one set in the making.

    Args:
        root: the data directory.
        name: of the set.
    """

    def __init__(self, root: Path, name: str):
        self._folder = root / f".parts-{name}"

    def take(self, fingerprint: str, make: Callable[[], Encoded]) -> Encoded:
        """Some examples as they were kept, or as they are made now, and kept.

        Args:
            fingerprint: of what they are made of.
            make: makes them.
        """
        path = self._folder / f"{fingerprint}.npz"
        if path.exists():
            with contextlib.suppress(InputError):  # it was cut short
                return _unpacked(read_arrays(path))
        made = make()
        # Where another process has finished the same set, the folder may be gone by now.
        with contextlib.suppress(FileNotFoundError):
            self._folder.mkdir(parents=True, exist_ok=True)
            np.savez(path, allow_pickle=False, **_packed(made))
        return made

    def remove(self) -> None:
        """Removes all of them: the set is there."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _packed(made: Encoded) -> dict[str, np.ndarray]:
    examples, digest = made
    arrays = {_DIGEST: np.frombuffer(digest, np.uint8)}
    for name, first in examples[0].items():
        values = [example[name] for example in examples]
        if isinstance(first, io.BytesIO):
            contents = [value.getvalue() for value in values]
            arrays[name] = np.frombuffer(b"".join(contents), np.uint8)
            arrays[name + _LENGTHS] = np.array([len(content) for content in contents])
        else:
            arrays[name] = np.array(values)
    return arrays


def _unpacked(arrays: dict[str, np.ndarray]) -> Encoded:
    digest = arrays.pop(_DIGEST).tobytes()
    columns: dict[str, list] = {}
    for name in [name for name in arrays if not name.endswith(_LENGTHS)]:
        if (lengths := arrays.get(name + _LENGTHS)) is not None:
            parts = np.split(arrays[name], np.cumsum(lengths)[:-1])
            columns[name] = [io.BytesIO(part.tobytes()) for part in parts]
        else:
            columns[name] = list(arrays[name]) if arrays[name].ndim > 1 else arrays[name].tolist()
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows], digest
