"""Parameters from a published file, tensor by tensor, each device its own part."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Shaped

from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.models.pretrained.rules import Origin
from fmjax.storage.weight_files import WeightFiles

Index = tuple[slice, ...]


def fill(files: WeightFiles, origin: Origin, leaf: jax.ShapeDtypeStruct) -> Shaped[Array, "..."]:
    """Reads one parameter; the host holds no more of it than its own devices, and one tensor.

    Args:
        files: the weights.
        origin: where the parameter comes from.
        leaf: its shape, dtype and, unless it goes to the default device, its sharding.

    Returns:
        The array.

    Raises:
        InputError: a number is NaN or infinite, or copies that must be equal differ.
    """
    indices = _indices(leaf)
    parts = {_key(index, leaf.shape): index for index in indices.values()}
    buffers = {key: np.empty(_lengths(key), leaf.dtype) for key in parts}
    for k, names in enumerate(origin.names):
        if k and not origin.stacked:
            _check_copy(files, names, origin.names[0])
            continue
        value = origin.rule.change.forward([_read(files, name, origin) for name in names])
        for key, index in parts.items():
            with np.errstate(over="ignore"):  # told apart below, in a sentence
                written = _put(buffers[key], value, index, key, k if origin.stacked else None)
            if not np.isfinite(written).all():
                raise _not_finite(files, names, leaf.dtype)
    if leaf.sharding is None:
        return jax.numpy.asarray(next(iter(buffers.values())))
    arrays = [
        jax.device_put(buffers[_key(index, leaf.shape)], device)
        for device, index in indices.items()
    ]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, arrays)


def _read(files: WeightFiles, name: str, origin: Origin) -> np.ndarray:
    """A tensor, or those rows of it that a parameter is made of."""
    rows = origin.rule.rows
    return files.read(name) if rows is None else rows.take(files.read(name))


def _indices(leaf: jax.ShapeDtypeStruct) -> dict[Any, Index]:
    """Which part of a leaf each device of this process holds."""
    if leaf.sharding is None:
        return {None: (slice(None),) * len(leaf.shape)}
    sharding: Sharding = leaf.sharding
    return dict(sharding.addressable_devices_indices_map(leaf.shape))


def _key(index: Index, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """First and last of each axis: the same for devices that hold the same part."""
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _lengths(key: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in key)


def _put(
    buffer: np.ndarray, value: np.ndarray, index: Index, key: tuple, k: int | None
) -> np.ndarray:
    """Writes an array, or entry k of a stack, where this part of the leaf holds it.

    Returns:
        What was written, in its place; nothing where the entry lies in another part.
    """
    if k is None:
        buffer[...] = value[index]
        return buffer
    start, stop = key[0]
    if not start <= k < stop:
        return buffer[:0]
    buffer[k - start] = value[index[1:]]
    return buffer[k - start]


def _not_finite(files: WeightFiles, names: tuple[str, ...], dtype: np.dtype) -> InputError:
    return InputError(
        f"{files.path}: {' or '.join(names)} holds NaN, or numbers too large for {dtype}: the "
        "weights are damaged; fetch them again, or take a wider dtype."
    )


def _check_copy(files: WeightFiles, names: tuple[str, ...], first: tuple[str, ...]) -> None:
    for name, original in zip(names, first, strict=True):
        if not np.array_equal(files.read(name), files.read(original)):
            raise InputError(
                f"{files.path}: {name} differs from {original}, and the network here has one for "
                "both: such weights cannot be loaded."
            )
