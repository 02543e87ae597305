"""Arrays of an ``.npz`` or an ``.npy``, every number of which is checked before it is believed."""

import math
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from fmjax.errors import InputError
from fmjax.files import first_line
from fmjax.machine import check_memory

_HEADER = 10_000  # bytes of the text that describes an array
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_arrays(path: Path, only: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of a file; the checksum of each is compared.

    No object is unpickled, and no memory is taken for more than the file holds.

    Args:
        path: of the file.
        only: the names of the arrays to read, where they exist; None for all.

    Raises:
        InputError: it is no ``.npz`` of plain arrays, is damaged, or does not fit into memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            members = [m for name, m in names.items() if only is None or name in only]
            total = sum(member.file_size for member in members)
            check_memory(total, f"the arrays in {path}", "give fewer or smaller ones")
            found = {}
            for member in members:
                with archive.open(member) as file:
                    found[member.filename.removesuffix(".npy")] = _read(file, member.file_size)
            return found
    except InputError:
        raise
    except Exception as error:  # whatever the damaged bytes make a reader raise
        raise InputError(
            f"{path} cannot be read as an .npz of plain arrays ({first_line(error)[:200]})."
        ) from error


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """Reads the array of an ``.npy``; no object is unpickled.

    Args:
        path: of the file.
        mapped: gives the array as it lies on the disk, read-only, of which no more is read than is
            looked at; it may be larger than memory.

    Raises:
        InputError: it is no ``.npy`` of a plain array, is damaged, or does not fit into memory.
    """
    try:
        size = path.stat().st_size
        if not mapped:
            check_memory(size, f"the array in {path}", "give a smaller one")
        with path.open("rb") as file:
            return _map(file, size) if mapped else _read(file, size)
    except InputError:
        raise
    except Exception as error:  # whatever the damaged bytes make a reader raise
        raise InputError(
            f"{path} cannot be read as an .npy of a plain array ({first_line(error)[:200]})."
        ) from error


class _Header(NamedTuple):
    """What a file says of its array, and what that takes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _read_header(file: IO[bytes], size: int) -> _Header:
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"arrays of version {version} are not known")
    shape, fortran, dtype = _READERS[version](file, max_header_size=_HEADER)
    if dtype.hasobject:
        raise ValueError("it holds objects")
    header = _Header(shape, dtype, "F" if fortran else "C")
    if min(shape, default=0) < 0 or header.nbytes > size:
        raise ValueError(f"an array of shape {shape} does not fit into its {size} bytes")
    return header


def _check_whole(header: _Header, size: int) -> None:
    if size != header.nbytes:
        raise ValueError(f"an array of shape {header.shape} has {size} bytes")


def _read(file: IO[bytes], size: int) -> np.ndarray:
    header = _read_header(file, size)
    content = file.read()  # to the end, where the checksum is compared
    _check_whole(header, len(content))
    return np.frombuffer(content, header.dtype).reshape(header.shape, order=header.order).copy()


def _map(file: IO[bytes], size: int) -> np.ndarray:
    header, begins = _read_header(file, size), file.tell()
    _check_whole(header, size - begins)
    if not header.nbytes:  # nothing that could be mapped
        return np.empty(header.shape, header.dtype)
    return np.memmap(file, header.dtype, "r", begins, header.shape, header.order)
