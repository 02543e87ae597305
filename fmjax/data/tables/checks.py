"""What is wrong with arrays, found before anything is written, each in one sentence."""

import math
import re

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from fmjax.checks import check_at_least
from fmjax.data.points import Points, as_points
from fmjax.data.resampling import check_weights
from fmjax.data.tables.files import Arrays
from fmjax.data.tables.globe import is_globe, on_globe
from fmjax.data.token_codecs import as_tokens
from fmjax.errors import InputError

_RESERVED = ("x", "x0", "weights")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_CHANNELS = (1, 3)


def check_x(arrays: Arrays) -> Shaped[np.ndarray, "n ..."]:
    """The data as they are kept: uint8 (n, h, w, c), or float32 (n, ...), a column as (n, 1).

    Those of a vocabulary are tokens, int32 (n, ...); those of a manifold its points, (n, *shape).

    Raises:
        InputError: they are neither, have no examples, are not finite, or are no such tokens or
            points.
    """
    return _data(arrays, "x", "train")


def check_x_test(
    arrays: Arrays, train: Shaped[np.ndarray, " n *shape"]
) -> Shaped[np.ndarray, " m *shape"]:
    """The same of the held-out part, shaped as the training part.

    Raises:
        InputError: as `check_x`, or they have another shape or dtype.
    """
    x = _data(arrays, "x", "test")
    if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
        raise InputError(
            f"both parts of {arrays.path} must have examples of one shape and dtype; got "
            f"{train.dtype} {train.shape[1:]} and {x.dtype} {x.shape[1:]}."
        )
    return x


def check_x0(
    arrays: Arrays, part: str, x: Shaped[np.ndarray, " n *shape"]
) -> Float[np.ndarray, " n *shape"]:
    """The points that the data are paired with, shaped as they are.

    Raises:
        InputError: they have another shape or dtype, are not finite, or stand beside tokens.
    """
    if arrays.vocabulary is not None:
        raise InputError(
            f"{arrays.name('x0', part)} beside tokens: a flow of tokens has a source, masks or "
            "uniform tokens, and no stored pairs; leave it out."
        )
    x0 = _data(arrays, "x0", part)
    if x0.shape != x.shape or x0.dtype != x.dtype:
        raise InputError(
            f"{arrays.name('x0', part)} must be as {arrays.name('x', part)}, one point for each, "
            f"{x.dtype} {x.shape}; got {x0.dtype} {x0.shape}."
        )
    return x0


def _data(arrays: Arrays, role: str, part: str) -> np.ndarray:
    x, name = getattr(arrays, part)[role], arrays.name(role, part)
    if arrays.vocabulary is not None:
        return _tokens(name, x, arrays.vocabulary)
    if arrays.called.get(role, "").startswith("images") and x.dtype != np.uint8:
        raise InputError(
            f"{name} must be uint8 (0 to 255), got {x.dtype}; floats such as latents are 'x'."
        )
    if x.dtype == np.uint8 and arrays.manifold is None:
        return _pixels(name, x)
    if x.dtype.kind in "US":
        raise InputError(f"{name} must be numbers, got text; texts can only be classes.")
    if x.dtype.kind != "f":
        raise InputError(
            f"{name} must be floats, or images of uint8; got {x.dtype}. Write x.astype(np.float32) "
            "if they are amounts, and --tokens=K if they are symbols from 0 to K - 1."
        )
    if x.ndim == 0 or 0 in x.shape:
        raise InputError(
            f"{name} must have shape (n, ...) with at least one example; got {x.shape}."
        )
    x = x[:, None] if x.ndim == 1 else x
    _check_finite(arrays, role, name, x)
    if arrays.manifold is not None:
        return _points(arrays, name, x)
    if x.ndim == 4 and x.shape[-1] in _CHANNELS and _are_levels(x):
        raise InputError(
            f"{name} holds whole numbers from 0 to 255, which are pixels: write x.astype(np.uint8)."
        )
    return x.astype(np.float32)


def _points(arrays: Arrays, name: str, x: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
    if is_globe(arrays):
        x = on_globe(name, x, arrays.columns["x"])
    return as_points(name, x, codec_of_points(arrays, x), arrays.project)


def codec_of_points(arrays: Arrays, x: Shaped[np.ndarray, "n ..."]) -> Points:
    """The codec of points (n, ...) on the manifold that the arrays say.

    Raises:
        InputError: there is none of that name, or none with points of so many numbers.
    """
    assert arrays.manifold is not None, "asked where there is a manifold"
    return Points(arrays.manifold, math.prod(x.shape[1:]))


def _tokens(name: str, x: Shaped[np.ndarray, "n ..."], vocabulary: int) -> Int[np.ndarray, "n ..."]:
    check_at_least("--tokens, the size of the vocabulary,", vocabulary, 2)
    if x.ndim == 0 or 0 in x.shape:
        raise InputError(
            f"{name} must have shape (n, ...) with at least one example; got {x.shape}."
        )
    return as_tokens(x[:, None] if x.ndim == 1 else x, vocabulary, name)


def _pixels(name: str, images: np.ndarray) -> np.ndarray:
    x = images[..., None] if images.ndim == 3 else images
    if x.ndim != 4 or x.shape[-1] not in _CHANNELS or 0 in x.shape:
        raise InputError(
            f"{name} must have shape (n, H, W), (n, H, W, 1) or (n, H, W, 3), as images of uint8 "
            f"have; got {images.shape}."
        )
    return x


def _are_levels(x: np.ndarray) -> bool:
    return bool(x.min() >= 0 and 1 < x.max() <= 255 and (x == np.round(x)).all())


def _check_finite(arrays: Arrays, role: str, name: str, x: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        wrong = np.argwhere(~np.isfinite(x.astype(np.float32)))
    if not len(wrong):
        return
    row, *place = wrong[0].tolist()
    where = f"at {tuple(place)}" if len(place) != 1 else f"in column {place[0]}"
    if len(place) == 1 and role in arrays.columns:
        where = f"in column {arrays.columns[role][place[0]]!r}"
    raise InputError(
        f"{name} must be finite in float32; row {row} holds {x[tuple(wrong[0])]} {where}, the "
        f"first of {len(wrong)}. Leave such rows out, or fill them in."
    )


def weights_of(arrays: Arrays, part: str, count: int) -> Float32[np.ndarray, " {count}"]:
    """How often each example counts, float32 (n,); 1 where the part has none.

    Raises:
        InputError: as `fmjax.data.resampling.check_weights`.
    """
    weights = getattr(arrays, part).get("weights")
    if weights is None:
        return np.ones(count, np.float32)
    return check_weights(arrays.name("weights", part), weights, count)


def check_condition_name(said: str, name: str) -> None:
    """Checks the name of a condition.

    Args:
        said: what would have it, as the message names it.
        name: of the condition.

    Raises:
        InputError: it is no name, or another thing has it.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise InputError(
            f"{said} would be a condition, whose name must be of letters, digits and _, a letter "
            f"first, and none of {', '.join(_RESERVED)}; rename it."
        )


def check_condition(
    arrays: Arrays, name: str, part: str, count: int
) -> Shaped[np.ndarray, "{count} ..."]:
    """A condition as it is kept: texts as they are, int64 (n,), float32, bool, or uint8 images.

    Raises:
        InputError: it has another length than the data, is not finite, or no condition is such.
    """
    x, said = getattr(arrays, part)[name], arrays.name(name, part)
    check_condition_name(said, name)
    if x.shape[:1] != (count,):
        raise InputError(
            f"{said} must have one entry for each of the {count} examples, got shape {x.shape}: "
            "every array beside the data is a condition; leave out what is none."
        )
    if x.shape == (count, 1) and (x.dtype.kind in "iuUS" or name == "label"):
        x = x[:, 0]  # as CIFAR is often stored
    if name == "label" and (x.dtype.kind not in "iuUS" or x.ndim != 1):
        raise InputError(
            f"{said} must be whole numbers, one label for each of the {count} examples, got "
            f"{x.dtype} of shape {x.shape}; give conditions of other kinds another name."
        )
    if x.dtype.kind in "US" and x.ndim == 1:
        return x.astype(str)
    if x.dtype == np.uint8 and x.ndim == 4:
        return _pixels(said, x)
    if x.dtype.kind in "iu" and x.ndim == 1:
        return x.astype(np.int64)
    if x.dtype == bool and x.ndim in (1, 2):
        return x.astype(np.int64) if x.ndim == 1 else x
    if x.dtype.kind != "f" or not 1 <= x.ndim <= 4 or 0 in x.shape:
        raise InputError(
            f"{said} is {x.dtype} of shape {x.shape}, and a condition is whole numbers or texts "
            "(n,), which are classes; floats (n, k), (n, length, k) or (n, h, w, c); a bool mask "
            "(n, length) named after its sequence, NAME_mask; or images of uint8 (n, h, w, c)."
        )
    x = x[:, None] if x.ndim == 1 else x
    _check_finite(arrays, name, said, x)
    return x.astype(np.float32)


def check_varies(arrays: Arrays, x: Shaped[np.ndarray, "n ..."]) -> None:
    """Checks that no column of a table, and no set of latents, is constant over its training part.

    Raises:
        InputError: one is; it is named.
    """
    flat = x if x.ndim == 2 else x.reshape(1, -1).T
    constant = np.flatnonzero((flat == flat[0]).all(axis=0))
    if not len(constant):
        return
    if x.ndim != 2:
        raise InputError(f"{arrays.name('x')} is constant: there is nothing to learn.")
    named = arrays.columns.get("x", [str(i) for i in range(x.shape[1])])
    raise InputError(
        f"{arrays.name('x')} has the constant columns {', '.join(named[int(i)] for i in constant)}"
        ", over the rows that are trained on: leave them out."
    )
