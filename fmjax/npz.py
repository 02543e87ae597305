"""Arrays of an ``.npz`` or an ``.npy``, every number of which is checked before it is believed."""

import zipfile
from collections.abc import Container
from pathlib import Path
from typing import IO

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


def read_array(path: Path) -> np.ndarray:
    """Reads the array of an ``.npy``; no object is unpickled.

    Args:
        path: of the file.

    Raises:
        InputError: it is no ``.npy`` of a plain array, is damaged, or does not fit into memory.
    """
    try:
        size = path.stat().st_size
        check_memory(size, f"the array in {path}", "give a smaller one")
        with path.open("rb") as file:
            return _read(file, size)
    except InputError:
        raise
    except Exception as error:  # whatever the damaged bytes make a reader raise
        raise InputError(
            f"{path} cannot be read as an .npy of a plain array ({first_line(error)[:200]})."
        ) from error


def _read(file: IO[bytes], size: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"arrays of version {version} are not known")
    shape, fortran, dtype = _READERS[version](file, max_header_size=_HEADER)
    if dtype.hasobject:
        raise ValueError("it holds objects")
    count = 1
    for length in shape:
        count *= length
    if min(shape, default=0) < 0 or count * dtype.itemsize > size:
        raise ValueError(f"an array of shape {shape} does not fit into its {size} bytes")
    content = file.read()  # to the end, where the checksum is compared
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} has {len(content)} bytes")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return array.copy()
