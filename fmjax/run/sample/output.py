"""Writing samples to disk: any number of them in bounded memory, whole or not at all."""

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class NpzWriter:
    """Writes an ``.npz`` of which one array grows batch by batch.

    `numpy.savez` needs the whole array in memory; here only one batch is. The file gets its name
    when it is complete, so that a stopped job leaves no half of one behind.

    Args:
        path: where the file will be.
        name: the growing array's name.
        shape: its final shape.
        dtype: its type.
    """

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype):
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._zip = zipfile.ZipFile(self._temporary, "w")
        self._member = self._zip.open(f"{name}.npy", "w", force_zip64=True)
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self._member, header)

    def append(self, batch: np.ndarray) -> None:
        """Writes the next rows."""
        self._member.write(np.ascontiguousarray(batch).tobytes())

    def finish(self, **arrays: np.ndarray) -> None:
        """Adds whole arrays and gives the file its name."""
        self._member.close()
        for name, array in arrays.items():
            with self._zip.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        self._zip.close()
        self._temporary.replace(self._path)

    def abandon(self) -> None:
        """Leaves nothing behind."""
        self._member.close()
        self._zip.close()
        self._temporary.unlink(missing_ok=True)


def first_rows(paths: Iterable[Path], name: str, num: int) -> np.ndarray:
    """The first rows of an array that lies in one or several files of `NpzWriter`.

    Only those rows are read, however long the array is.

    Args:
        paths: of the files, in order.
        name: the array's.
        num: how many rows, at most as many as there are.
    """
    parts = []
    for path in paths:
        with zipfile.ZipFile(path) as content, content.open(f"{name}.npy") as member:
            np.lib.format.read_magic(member)
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            rows = min(num - sum(map(len, parts)), shape[0])
            data = member.read(rows * math.prod(shape[1:]) * dtype.itemsize)
            parts.append(np.frombuffer(data, dtype).reshape(rows, *shape[1:]))
        if sum(map(len, parts)) == num:
            break
    return np.concatenate(parts)
