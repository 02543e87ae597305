"""A user's own conditions to sample under, and points or images to start from.

An ``.npy`` holds one array, an ``.npz`` several by name. Either has one row for each sample, or one
row for all of them. All is checked on the host, before anything is compiled.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from fmjax.array_checks import check_finite
from fmjax.conditions import as_labels, check_labels, check_values, null_labels
from fmjax.data.codecs import Codec, Pixels
from fmjax.data.images.folder import read_folder
from fmjax.data.points import Points, check_points
from fmjax.errors import InputError, unknown_name
from fmjax.names import named_leaves
from fmjax.npz import read_array, read_arrays

_X0 = "x0"


def read_conditions(path: Path, conditions: Any) -> Any:
    """The conditions in a file, as labels of a model.

    Args:
        path: an ``.npz`` of the conditions by name, or the ``.npy`` of a model with one.
        conditions: of the model; None for an unconditional one.

    Returns:
        Numpy arrays (n, ...) built as the conditions, of their dtypes.

    Raises:
        InputError: the model has no conditions, the file cannot be read, a name is unknown or
            missing, or an array has another shape, dtype or number of rows, NaN, or no such class.
    """
    if conditions is None:
        raise InputError(
            "this model is unconditional: it takes no conditions; leave --condition out."
        )
    described = named_leaves(conditions)
    arrays = _by_name(path, described)
    for name in arrays:
        if name not in described:
            raise unknown_name(f"condition in {path}", name, described)
    if missing := [name for name in described if name not in arrays]:
        raise InputError(
            f"{path} must have an array for each condition of the model, {', '.join(described)}; "
            f"it has none for {', '.join(missing)}."
        )
    rows = _rows(path, arrays)
    labels = as_labels(_like(conditions, arrays), conditions)
    check_labels(labels, conditions, rows)
    nulls = named_leaves(null_labels(conditions))
    for name, x in named_leaves(labels).items():
        expected = (nulls[name].shape, nulls[name].dtype)
        if x.dtype.kind != expected[1].kind or x.shape[1:] != expected[0]:
            raise InputError(
                f"{name} must be {expected[1]} of shape (n, ...) with examples of {expected[0]}; "
                f"got {x.dtype} of shape {x.shape} in {path}."
            )
    check_values(labels, conditions)
    return labels


def read_points(path: Path, codec: Codec) -> Shaped[np.ndarray, "n ..."]:
    """The points from which samples start, in a file, or the images of a folder.

    Args:
        path: an ``.npy``, an ``.npz`` with the array ``x0`` or a single one, or a folder of images,
            which are scaled and cropped as those of the data were.
        codec: what the points are.

    Returns:
        Data of the codec, a numpy array (n, ...); of a folder in the order of its names.

    Raises:
        InputError: the file cannot be read, or its array is not that, or holds NaN.
    """
    if path.is_dir():
        return _images(path, codec)
    arrays = _by_name(path, {_X0: None})
    if _X0 not in arrays and len(arrays) > 1:
        raise InputError(f"{path} must have the points as x0; got the arrays {', '.join(arrays)}.")
    x = arrays.get(_X0, next(iter(arrays.values()), np.zeros(())))
    kinds = {"f": "f", "i": "iu"}.get(codec.data_dtype.kind, "")
    if x.dtype.kind in kinds:
        x = x.astype(codec.data_dtype)
    if x.ndim == 0 or not len(x) or x.shape[1:] != codec.data_shape or x.dtype != codec.data_dtype:
        raise InputError(
            f"the points of {path} must be {codec.data_dtype} (n, "
            f"{', '.join(map(str, codec.data_shape))}), as the flow starts from; got {x.dtype} of "
            f"shape {x.shape}."
        )
    if x.dtype.kind == "f":
        check_finite(f"the points of {path}", x)
    if isinstance(codec, Points):
        check_points(f"the points of {path}", x, codec)
    return x


def _images(path: Path, codec: Codec) -> Shaped[np.ndarray, "n ..."]:
    if not isinstance(codec, Pixels):
        raise InputError(
            f"{path} is a folder, which serves where a flow starts from images; this one starts "
            f"from {codec.kind}: give an .npy, or an .npz with the array x0."
        )
    height, width, channels = codec.shape
    if channels not in (1, 3):
        raise InputError(
            f"{path} is a folder of images, which have 1 channel or 3; the flow starts from "
            f"{channels}: give an .npy, or an .npz with the array x0."
        )
    shape, _, *parts = read_folder(path, width if width == height else None, channels)
    if shape != codec.shape:
        raise InputError(f"the images of {path} must be {codec.shape}; got {shape}.")
    return np.stack([part[i]["x"] for part in parts if part for i in range(len(part))])


def check_rows(what: str, rows: int, num: int) -> None:
    """Checks that there is one row for each sample, or one for all.

    Args:
        what: the rows, as the message names them.
        rows: how many there are.
        num: how many samples.

    Raises:
        InputError: it is another number.
    """
    if rows not in (1, num):
        raise InputError(
            f"{what} must have one row for each of {num} samples, or one for all; got {rows}. "
            f"Write --num={rows}, or leave --num out."
        )


def _by_name(path: Path, described: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a file by name; that of an ``.npy`` has the only name that is described."""
    if path.suffix == ".npz":
        return read_arrays(path)
    if path.suffix != ".npy":
        raise InputError(f"{path} must be an .npy of one array, or an .npz of several by name.")
    if len(described) > 1:
        raise InputError(
            f"{path} holds one array, and the model has the conditions {', '.join(described)}: "
            "give an .npz with an array of each name."
        )
    return {next(iter(described)): read_array(path)}


def _rows(path: Path, arrays: dict[str, np.ndarray]) -> int:
    """How many rows all arrays have."""
    sizes = {name: np.shape(x)[:1] for name, x in arrays.items()}
    if len(set(sizes.values())) != 1 or next(iter(sizes.values())) in ((), (0,)):
        found = ", ".join(f"{name} {arrays[name].shape}" for name in arrays)
        raise InputError(
            f"the arrays of {path} must have one number of rows, at least 1; got {found}."
        )
    return next(iter(sizes.values()))[0]


def _like(conditions: Any, arrays: dict[str, np.ndarray]) -> Any:
    leaves = [arrays[name] for name in named_leaves(conditions)]
    return jax.tree.unflatten(jax.tree.structure(conditions), leaves)
