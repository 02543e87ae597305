"""Writing samples to disk: any number of them in bounded memory, whole or not at all."""

import zipfile
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
