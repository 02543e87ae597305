"""Tensors of two published files that PyTorch wrote, without PyTorch.

Such a file is a pickle, which can run any program as it is read. So a file is read only if its
sha256 is that of a published one, and even then nothing is called but what builds tensors. Any
other file is refused: PyTorch itself turns it into safetensors in one line.

The form is that of ``torch.save`` before its version 1.6: four pickles (a magic number, the
version, the system, the tensors), then the names of the storages, then each storage with its
length before it.
"""

import collections
import pickle
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from fmjax.errors import InputError

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(NamedTuple):
    name: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries of tensors, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *rest: _Tensor(
                storage, offset, shape, strides
            )
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: tuple) -> _Storage:
        _, dtype, name, _, size, _ = pid
        return _Storage(name, dtype, size)


def read_torch_tensors(path: Path, digest: str, known: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the tensors of a published file.

    Args:
        path: of the file.
        digest: its sha256, hexadecimal.
        known: the sha256 of the published file.

    Returns:
        The tensors by name.

    Raises:
        InputError: it is another file.
    """
    if digest != known:
        raise InputError(
            f"{path} has the sha256 {digest[:12]}..., and the published file {known[:12]}...: a "
            "file of PyTorch can run programs as it is read, so others are not read; write it as "
            "safetensors, in PyTorch: safetensors.torch.save_file(torch.load(PATH, "
            "weights_only=True), NAME)."
        )
    with path.open("rb") as file:
        try:
            magic, _, _, tensors, names = (_Unpickler(file).load() for _ in range(5))
        except pickle.UnpicklingError as error:
            raise InputError(f"{path} cannot be read without PyTorch ({error}).") from error
        if magic != _MAGIC:
            raise InputError(f"{path} is no file of torch.save before version 1.6.")
        types = {one.storage.name: one.storage for one in tensors.values()}
        storages = {name: _read_storage(file, types[name]) for name in names}
    return {name: _array(one, storages[one.storage.name]) for name, one in tensors.items()}


def _read_storage(file: IO[bytes], storage: _Storage) -> Shaped[np.ndarray, " size"]:
    size = int(np.frombuffer(file.read(8), "<i8")[0])
    return np.frombuffer(file.read(size * storage.dtype.itemsize), storage.dtype)


def _array(tensor: _Tensor, content: Shaped[np.ndarray, " size"]) -> Shaped[np.ndarray, "..."]:
    strides = tuple(content.itemsize * stride for stride in tensor.strides)
    whole = content[tensor.offset :]
    view = np.lib.stride_tricks.as_strided(whole, tensor.shape, strides, writeable=False)
    return view.copy()
