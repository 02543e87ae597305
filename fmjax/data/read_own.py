"""Opens a user's own data: a folder of images, an ``.npz``, an ``.npy`` or a ``.csv``."""

from collections.abc import Sequence
from pathlib import Path

from fmjax.checks import check_at_least, check_between
from fmjax.data.images.own_folder import own_folder
from fmjax.data.own import OwnData
from fmjax.data.tables.csv_file import read_csv
from fmjax.data.tables.files import read_npy, read_npz
from fmjax.data.tables.read import own_arrays
from fmjax.data.texts.own_text import own_text
from fmjax.errors import InputError

_FILES = {".npz": read_npz, ".npy": read_npy}


def read_own(
    source: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    test_fraction: float | None = None,
    conditions: Sequence[str] = (),
    weights: str | None = None,
    tokens: int | None = None,
    manifold: str | None = None,
    project: bool = False,
    length: int | None = None,
    by_bytes: bool = False,
    x0: str | None = None,
) -> OwnData:
    """Reads what a path leads to; everything that can be wrong with it is found here.

    Args:
        source: a folder, as `fmjax.data.images.folder.read_folder` describes; an ``.npz`` or an
            ``.npy``, as `fmjax.data.tables.files`; a ``.csv``, as `fmjax.data.tables.csv_file`; or
            a ``.txt``, as `fmjax.data.texts.own_text`.
        size: of a folder: the side of the square to scale and crop to.
        channels: of a folder: 1 or 3.
        test_fraction: the share to set apart for testing where the source has no test part, a
            tenth if None.
        conditions: of a ``.csv``: which columns are conditions, as `read_csv` takes them.
        weights: of a ``.csv``: which column says how often a row counts.
        tokens: of an ``.npz`` or an ``.npy``: the data are tokens of a vocabulary of this size.
        manifold: of a ``.npz``, ``.npy`` or ``.csv``: the data are points on the manifold of this
            name; see `fmjax.manifolds.manifold_by_name`.
        project: whether these are moved to the nearest points.
        length: of a ``.txt``: how many symbols an example has, 128 if None.
        by_bytes: of a ``.txt``: whether its symbols are bytes, and not characters.
        x0: of a folder: another one, of the images that these are paired with, by their names.

    Raises:
        InputError: for anything wrong with the options or the source.
    """
    _check_options(size, channels, test_fraction)
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"--source={source} does not exist.")
    if (conditions or weights is not None) and path.suffix != ".csv":
        raise InputError(
            "--condition and --weights name columns of a .csv; an .npz says by the names of its "
            "arrays which are conditions."
        )
    if tokens is not None and path.suffix not in (".npz", ".npy"):
        raise InputError(
            f"--tokens is the size of the vocabulary of an .npz or an .npy; got {source}. A .txt "
            "has a tokeniser, and the grey levels of images become tokens by data.levels."
        )
    _check_manifold(path, source, tokens, manifold, project)
    if (length is not None or by_bytes) and path.suffix != ".txt":
        raise InputError(f"--length and --bytes are for a .txt; got {source}.")
    if path.is_dir():
        return own_folder(path, size, channels, test_fraction, _folder_of_x0(x0))
    if x0 is not None:
        raise InputError(
            "--x0 is a folder of images beside a folder as --source; in an .npz the array x0 holds "
            "the points that x is paired with."
        )
    if path.suffix not in (*_FILES, ".csv", ".txt"):
        raise InputError(
            f"--source must be a folder of images, an .npz, .npy, .csv or .txt, got {source}; "
            "whatever else Python reads can be saved by np.savez, or given to fmjax.training.fit."
        )
    if size is not None or channels is not None:
        raise InputError("--size and --channels are for folders; a file has its own shape.")
    if path.suffix == ".txt":
        return own_text(path, length, by_bytes, test_fraction)
    if path.suffix == ".csv":
        arrays = read_csv(path, conditions, weights)
    else:
        arrays = _FILES[path.suffix](path)._replace(vocabulary=tokens)
    return own_arrays(arrays._replace(manifold=manifold, project=project), test_fraction)


def _check_manifold(
    path: Path, source: str, tokens: int | None, manifold: str | None, project: bool
) -> None:
    if project and manifold is None:
        raise InputError("--project moves data to the nearest points of --manifold: give both.")
    if manifold is None:
        return
    if path.suffix not in (*_FILES, ".csv"):
        raise InputError(
            f"--manifold says where the numbers of an .npz, .npy or .csv live; got {source}."
        )
    if tokens is not None:
        raise InputError("--tokens are no points of a --manifold: leave one of the two out.")


def _folder_of_x0(x0: str | None) -> Path | None:
    if x0 is None:
        return None
    path = Path(x0).expanduser()
    if not path.is_dir():
        raise InputError(f"--x0={x0} must be a folder of images, as --source is.")
    return path


def _check_options(size: int | None, channels: int | None, test_fraction: float | None) -> None:
    if size is not None:
        check_at_least("--size", size)
    if channels not in (None, 1, 3):
        raise InputError(f"--channels must be 1 or 3, got {channels}.")
    if test_fraction is not None:
        check_between("--test_fraction", test_fraction, 0, 1, "()")
