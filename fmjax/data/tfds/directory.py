"""The data directory: where the sets lie, which are there, and how a new one appears in it.

The layout is TFDS's: ``<root>/<name>[/<config>]/<version>/`` with a ``dataset_info.json`` in it.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmjax.errors import InputError
from fmjax.files import first_line
from fmjax.folders import working_folder

# As in tensorflow_datasets, which need not be imported to know where things lie.
DEFAULT = "~/tensorflow_datasets"
FORMAT = "array_record"


def data_root(data_dir: str | os.PathLike | None = None) -> Path:
    """The directory that holds the sets: `data_dir`, else ``TFDS_DATA_DIR``, else TFDS's own."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or DEFAULT
    if "://" in str(chosen):
        raise InputError(f"the data directory must be on a mounted file system, got {chosen}.")
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(
            f"there is no home directory for {chosen}; write data.dir, --data_dir or "
            "TFDS_DATA_DIR in full."
        ) from error


def prepare_command(name: str, root: Path) -> str:
    """The command line that prepares `name` in `root`."""
    place = "" if root == data_root() else f" --data_dir={root}"
    return f"python -m fmjax prepare --name={name}{place}"


def prepared(root: Path) -> dict[str, Path]:
    """The sets in a data directory: ``"name"`` or ``"name/config"`` to their newest version."""
    found: dict[str, Path] = {}
    folders = [
        info.parent
        for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
        for info in root.glob(pattern)
        # A hidden folder is a set in the making, or one that was interrupted.
        if not info.relative_to(root).parts[0].startswith(".")
    ]
    for folder in sorted(filter(_version, folders), key=_version):
        found[folder.parent.relative_to(root).as_posix()] = folder
    return dict(sorted(found.items()))


def _version(folder: Path) -> tuple[int, ...]:
    """``.../3.0.1`` as (3, 0, 1); empty for a folder that is not a version."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", folder.name):
        return ()
    return tuple(map(int, folder.name.split(".")))


def check_new(name: str, root: Path, overwrite: bool = False) -> None:
    """Checks that a set may be written.

    Args:
        name: what it is to be called.
        root: the data directory.
        overwrite: whether it may replace a set of that name.

    Raises:
        InputError: for a name that cannot be used, or one that is there already; what is no set is
            never replaced.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
        raise InputError(
            "a set's name is at most 64 lower-case letters, digits and underscores, beginning "
            f"with a letter, got {name!r}."
        )
    if name in ("digits", "toy", "downloads"):
        raise InputError(f"the name {name!r} is taken by fmjax itself; choose another.")
    if (root / name).exists() and not overwrite:
        raise InputError(
            f"a data set {name!r} exists in {root}; add --overwrite to replace it, or choose "
            "another name."
        )
    if overwrite and (root / name).exists() and not _holds_set(root / name):
        raise InputError(
            f"{root / name} holds no data set, and is not replaced by one; choose another name or "
            "another --data_dir."
        )


def _holds_set(folder: Path) -> bool:
    """Whether there is a version of a set in a folder, or in a configuration's folder below it."""
    return any(_version(path) for below in ("*", "*/*") for path in folder.glob(below))


def publish(
    build: Callable[[str], Any],
    root: Path,
    *,
    replaces: Path | None = None,
    download_dir: Path | None = None,
) -> Path:
    """Prepares a set in a hidden folder and moves it to its place in one rename.

    Nothing half-written is ever seen under the final name. A process that is killed leaves its
    hidden folder, which the next one removes. Two processes that prepare the same
    set do not meet: each works in a folder of its own, the first rename wins, and the second
    finds the set there.

    Args:
        build: ``data_dir -> TFDS builder``.
        root: the data directory.
        replaces: a folder to remove once the new set is ready; None to keep what is there.
        download_dir: where TFDS keeps what it downloads, or None for a place that is deleted.

    Returns:
        The folder of the set.

    Raises:
        InputError: for a directory that cannot be written, or whatever the builder met.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with working_folder(root, ".preparing-") as scratch:
            builder = build(str(scratch))
            downloads = download_dir or scratch / "downloads"
            builder.download_and_prepare(file_format=FORMAT, download_dir=downloads)
            folder = Path(builder.data_dir)
            if replaces is not None and replaces.exists():
                replaces.rename(scratch / "replaced")
            return _move(folder, root / folder.relative_to(scratch))
    except InputError:
        raise
    except Exception as error:  # TFDS passes on whatever a download or a builder raised
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"the set could not be prepared in {root}: {reason}.") from error


def _move(folder: Path, final: Path) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(final)
    except OSError:
        # If the set is there, another process was faster, and what it wrote is the same.
        if not (final / "dataset_info.json").exists():
            raise
        shutil.rmtree(folder)
    return final
