"""Arrays from an ``.npz`` or an ``.npy``, by what they are: the data, its pairs, its conditions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from fmjax.errors import InputError
from fmjax.npz import read_array, read_arrays

_MEANS = {"images": "x", "labels": "label", "y": "label"}
_SUFFIXES = ("_train", "_test")


class Arrays(NamedTuple):
    """What a file holds, not yet checked.

    Attributes:
        path: of the file.
        train: arrays by what they are: ``"x"``, and perhaps ``"x0"``, ``"weights"`` and conditions.
        test: the same of the held-out part; None where the file has none.
        called: by what they are: the names that the file has for them, for messages.
        columns: by what they are: the names of their columns, where they have names.
        vocabulary: of x that are tokens, how many symbols there are; None for any other.
        manifold: of x that are points on one, its name; None for any other.
        project: whether such points may lie off it, and are moved to the nearest ones.
    """

    path: Path
    train: dict[str, Shaped[np.ndarray, "..."]]
    test: dict[str, Shaped[np.ndarray, "..."]] | None
    called: dict[str, str]
    columns: Mapping[str, Sequence[str]] = MappingProxyType({})
    vocabulary: int | None = None
    manifold: str | None = None
    project: bool = False

    def name(self, role: str, part: str = "train") -> str:
        """One array as a message names it."""
        called = self.called.get(role, role)
        if self.test is not None and part == "test":
            return f"'{called.removesuffix('_train')}_test' in {self.path}"
        return f"{called!r} in {self.path}"


def read_npy(path: Path) -> Arrays:
    """The one array of an ``.npy``, which is x.

    Raises:
        InputError: it cannot be read.
    """
    return Arrays(path, {"x": read_array(path)}, None, {"x": "the array"})


def read_npz(path: Path) -> Arrays:
    """The arrays of an ``.npz``.

    ``x`` or ``images`` is the data, ``x0`` the points that it is paired with, ``weights`` how often
    an example counts, ``labels`` or ``y`` the condition ``label``, and every other array a
    condition of its own name. With ``_test`` behind the name they are of the held-out part;
    ``_train`` may stand behind the others.

    Raises:
        InputError: it cannot be read, or has no data, or one part has what the other has not.
    """
    train: dict[str, np.ndarray] = {}
    test: dict[str, np.ndarray] = {}
    called: dict[str, str] = {}
    for given, array in read_arrays(path).items():
        stem = given.removesuffix("_test").removesuffix("_train")
        part = test if given.endswith("_test") else train
        role = _MEANS.get(stem, stem)
        if role in part:
            raise InputError(f"{path} holds both {called[role]!r} and {given!r}, which are one.")
        part[role] = array
        if part is train:
            called[role] = given
    if "x" not in train:
        raise InputError(
            f"{path} must hold 'x', or 'images' of uint8: the data; it holds "
            f"{', '.join([*called.values(), *(f'{name}_test' for name in test)]) or 'nothing'}."
        )
    if test:
        _check_same_names(path, train, test, called)
    return Arrays(path, train, test or None, called)


def _check_same_names(path: Path, train: dict, test: dict, called: dict[str, str]) -> None:
    alone = sorted((train.keys() ^ test.keys()) - {"weights"})
    if alone:
        raise InputError(
            f"{path} must hold its arrays for both parts, with _test behind the names of the "
            f"second, or for one; {', '.join(called.get(n, f'{n}_test') for n in alone)} is there "
            "for one of the two alone."
        )
