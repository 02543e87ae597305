"""Parameters as a safetensors file, which other programs read too.

Each leaf stands under its dotted path, ``blocks.attention.qkv.kernel``. Neither writing nor reading
puts more on a device than its own shards; process 0 holds one whole copy in its memory to write.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.files import first_line, whole_file

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(jnp.bfloat16)}
_FLOATS = ("F64", "F32", "F16", "BF16")

Shapes = dict[str, tuple[int, ...]]


class Header(NamedTuple):
    """What a file says of itself: the shape of each tensor, and its metadata."""

    shapes: Shapes
    metadata: dict[str, str]


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by dotted name, in the order of the tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def shapes(tree: Any) -> Shapes:
    """The shape of each leaf by dotted name."""
    return {name: tuple(leaf.shape) for name, leaf in named(tree).items()}


def write_weights(
    path: Path, params: Any, dtype: str | None = "float32", metadata: dict[str, str] | None = None
) -> None:
    """Writes parameters, whole or not at all; called by all processes, written by process 0.

    Args:
        path: of the file; its folder exists.
        params: arrays over all processes, in any sharding.
        dtype: a name of `DTYPES`; bfloat16 rounds to the nearest, by at most one part in 256. None
            leaves each array the dtype that it has.
        metadata: goes into the file's header.
    """
    tensors = {}
    for name, leaf in named(params).items():
        whole = on_host(leaf)
        if jax.process_index() == 0:
            kept = whole.dtype if dtype is None else DTYPES[dtype]
            # The library writes an array's memory as it lies, so it has to lie in C order.
            tensors[name] = np.asarray(whole).astype(kept, order="C", copy=False)
    if jax.process_index() == 0:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        with whole_file(path) as temporary:
            temporary.touch()
            usual = temporary.stat().st_mode  # the library lets its owner alone read a file
            try:
                save_file(tensors, temporary, metadata)
            except SafetensorError as error:
                raise OSError(first_line(error)) from error
            temporary.chmod(usual)
    multihost_utils.sync_global_devices(f"weights in {path}")


def on_host(leaf: Any) -> Shaped[np.ndarray, "..."]:
    """A leaf in this process's memory; only what lies on other machines is gathered."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, opened to be read piece by piece.

    Raises:
        InputError: it is not there, or no whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as content:
            yield content
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as a safetensors file ({first_line(error)}); give a whole one."
        ) from error


def read_header(path: Path) -> Header:
    """Reads what a file holds, but none of the numbers.

    Raises:
        InputError: it cannot be read, or holds something that is not a floating-point number.
    """
    found = {}
    with _opened(path) as content:
        for name in content.keys():  # noqa: SIM118 (no dict)
            piece = content.get_slice(name)
            if piece.get_dtype() not in _FLOATS:
                raise InputError(
                    f"{path} holds {name} as {piece.get_dtype()}; parameters are floating-point "
                    f"numbers: {', '.join(_FLOATS)}."
                )
            found[name] = tuple(piece.get_shape())
        return Header(found, content.metadata() or {})


def read_tensor(path: Path, name: str) -> Shaped[np.ndarray, "..."]:
    """Reads one tensor of a file, whole, and lets the file go again.

    The pages of a file that stays open count as memory of the process; a whole model's would.

    Raises:
        InputError: the file cannot be read, or has no such tensor.
    """
    with _opened(path) as content:
        return content.get_tensor(name)


def read_tensors(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads all tensors of a file by name, of whatever network.

    Raises:
        InputError: it cannot be read, or holds something that is not a number.
    """
    with _opened(path) as content:
        return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no dict)


def check_same(found: Shapes, expected: Shapes, source: Path) -> None:
    """Checks that parameters are those of a model.

    Args:
        found: the shapes that were stored.
        expected: those of the model.
        source: where they were stored.

    Raises:
        InputError: they are not; the first leaf that differs is named.
    """
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            here, there = (
                f"has shape {where[name]}" if name in where else "does not exist"
                for where in (found, expected)
            )
            raise InputError(
                f"{source} holds the parameters of another model: {name} {here} there and {there} "
                "in this one. Give the model.* keys, and data of the shape and classes, that they "
                "were trained with."
            )


def read_weights(path: Path, target: Any) -> Any:
    """Reads parameters into the dtypes and shardings of a target, each shard by itself.

    Args:
        path: of the file.
        target: a tree of `jax.ShapeDtypeStruct` with shardings.

    Returns:
        A tree like the target, of arrays over all processes.

    Raises:
        InputError: the file cannot be read, or holds other names or shapes.
    """
    check_same(read_header(path).shapes, shapes(target), path)
    with _opened(path) as content:
        leaves = [_place(content.get_slice(name), leaf) for name, leaf in named(target).items()]
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


def _place(piece: Any, leaf: jax.ShapeDtypeStruct) -> Shaped[Array, "..."]:
    def read(index: tuple[slice, ...] | None) -> Shaped[np.ndarray, "..."]:
        return np.asarray(piece[index]).astype(leaf.dtype, copy=False)

    return jax.make_array_from_callback(leaf.shape, leaf.sharding, read)
