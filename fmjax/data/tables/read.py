"""From a file of arrays to examples ready to be written, or to one sentence about what is wrong."""

import dataclasses
from typing import Any

import numpy as np

from fmjax.checks import check_class_names
from fmjax.conditions import ClassIds, conditions_of
from fmjax.data.codecs import Codec, Pixels, States, Vectors
from fmjax.data.own import ArrayExamples, OwnData
from fmjax.data.tables.checks import (
    check_condition,
    check_varies,
    check_x,
    check_x0,
    check_x_test,
    codec_of_points,
    weights_of,
)
from fmjax.data.tables.files import Arrays
from fmjax.data.tables.split import set_apart
from fmjax.data.token_codecs import Tokens
from fmjax.errors import InputError

_LEAST = 2  # examples to train on: one has no spread


def own_arrays(arrays: Arrays, test_fraction: float | None = None) -> OwnData:
    """Checks the arrays of a file and splits them.

    Args:
        arrays: as `fmjax.data.tables.files` and `fmjax.data.tables.csv_file` read them.
        test_fraction: the share to set apart for testing where the file has no test part.

    Raises:
        InputError: something is wrong with them.
    """
    known = _checked_part(arrays, "train", check_x(arrays))
    held_out: dict[str, np.ndarray] = {}
    if arrays.test is not None:
        if test_fraction is not None:
            raise InputError(
                "--test_fraction is for a source without a test part; this one has one."
            )
        held_out = _checked_part(arrays, "test", check_x_test(arrays, known["x"]))
    conditions = _conditions(arrays, known)
    parts = [{n: _ids(arrays, n, x, conditions) for n, x in p.items()} for p in (known, held_out)]
    train, test = map(ArrayExamples, parts)
    if arrays.test is None:
        classes = [train.arrays[n] for n, c in conditions.items() if isinstance(c, ClassIds)]
        what = "images" if train.arrays["x"].dtype == np.uint8 else "examples"
        least = 1 if what == "images" else _LEAST
        kept, apart = set_apart(what, len(train), classes, test_fraction, least)
        train, test = train.take(kept), train.take(apart)
    if "weights" in train.arrays and not train.arrays["weights"].any():
        raise InputError(f"{arrays.name('weights')} are all 0 for what is left to train on.")
    return OwnData(_codec(arrays, train.arrays["x"]), conditions, train, test)


def _checked_part(arrays: Arrays, part: str, x: np.ndarray) -> dict[str, np.ndarray]:
    checked = {"x": x}
    for name in getattr(arrays, part):
        if name not in ("x", "x0", "weights"):
            checked[name] = check_condition(arrays, name, part, len(x))
    if "x0" in arrays.train:
        checked["x0"] = check_x0(arrays, part, x)
    if "weights" in arrays.train:
        checked["weights"] = weights_of(arrays, part, len(x))
    return checked


def _conditions(arrays: Arrays, train: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the conditions of the training part are; classes have names."""
    given = {n: x for n, x in train.items() if n not in ("x", "x0", "weights")}
    names = {n: _class_names(arrays, n, x) for n, x in given.items() if x.dtype.kind in "iU"}
    guessed = {n: np.zeros(1, np.int64) if n in names else x[:1] for n, x in given.items()}
    found = conditions_of(guessed) if guessed else {}
    for name, known in names.items():
        found[name] = dataclasses.replace(found[name], num_classes=len(known), names=known)
    return {name: found[name] for name in given}


def _class_names(arrays: Arrays, name: str, ids: np.ndarray) -> tuple[str, ...]:
    """The names of classes: texts in their order, numbers in theirs, or "0" to "K - 1"."""
    used = np.unique(ids)
    if ids.dtype.kind == "U":
        whole = all(text.removeprefix("-").isdigit() for text in used)
        names = tuple(sorted(map(str, used), key=int if whole else None))
        check_class_names(names)
        return names
    if used[0] != 0 or used[-1] != len(used) - 1:
        raise InputError(
            f"{arrays.name(name)} must be 0 to K - 1 over what is trained on, each used at least "
            f"once; they go from {used[0]} to {used[-1]} and take {len(used)} values."
        )
    return tuple(map(str, range(len(used))))


def _ids(arrays: Arrays, name: str, x: np.ndarray, conditions: dict[str, Any]) -> np.ndarray:
    """Classes as their ids, whatever they came as; all else as it is."""
    condition = conditions.get(name)
    if not isinstance(condition, ClassIds):
        if condition is not None:
            condition.check(arrays.name(name), _as_floats(x), len(x))
        return x
    texts = x if x.dtype.kind == "U" else x.astype(str)
    known = {text: i for i, text in enumerate(condition.names or ())}
    if new := sorted(set(texts.tolist()) - known.keys()):
        raise InputError(
            f"{arrays.name(name, 'test')} has classes that the training part does not have: "
            f"{', '.join(new[:5])}."
        )
    return np.array([known[text] for text in texts.tolist()], np.int64)


def _as_floats(x: np.ndarray) -> np.ndarray:
    """An array of the shape and dtype that x will be read in; images become floats."""
    return np.empty(x.shape, np.float32) if x.dtype == np.uint8 else x


def _codec(arrays: Arrays, x: np.ndarray) -> Codec:
    """Tokens; pixels; points on a manifold; or floats standardised, each column by itself."""
    if arrays.vocabulary is not None:
        return Tokens(x.shape[1:], arrays.vocabulary)
    if x.dtype == np.uint8:
        return Pixels(x.shape[1:])
    if len(x) < _LEAST:
        raise InputError(f"{arrays.name('x')} has one example only; at least two are needed.")
    if arrays.manifold is not None:
        return codec_of_points(arrays, x)
    check_varies(arrays, x)
    if x.ndim == 2:
        return Vectors.fitted(x)
    mean, spread = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    return States(x.shape[1:], float(mean), float(1 / spread))
