"""Folders that a command makes its own: locked, without links to elsewhere, and emptied at once.

A folder may come from somebody else. Nothing in it is written through a link, and no more is
removed than what the command itself would have made.
"""

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from fmjax.errors import InputError
from fmjax.files import remove_temporaries

Content = Mapping[str, str]
"""Names that a command makes in its folder, as patterns of whole names; with a pattern of the names
below where it is a folder, or an empty one for a file."""

_GOING = ".fmjax-removed-"


def lock_folder(folder: Path, flag: str) -> IO | None:
    """Keeps other processes out of a folder for as long as the file returned is open.

    What earlier processes left unfinished there is removed.

    Args:
        folder: which exists.
        flag: that gives another folder, as the message names it.

    Returns:
        The open file; None where the system has no locks.

    Raises:
        InputError: another process has it, or the lock is a link.
        OSError: it cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not a Unix
        return None
    check_no_links(folder, [r"\.lock"], flag)
    handle = (folder / ".lock").open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise InputError(
            f"another process is at work in {folder}; wait for it, or give another {flag}."
        ) from None
    except OSError:  # a file system without locks
        return handle
    remove_temporaries(folder)
    return handle


def check_no_links(folder: Path, content: Iterable[str], flag: str) -> None:
    """Checks that nothing that will be written in a folder lies elsewhere.

    Args:
        folder: which may itself be a link.
        content: what is written there, as patterns of whole names: files, and folders with all that
            is in them.
        flag: that gives another folder, as the message names it.

    Raises:
        InputError: one is a link, or holds one.
    """
    for path in _matching(folder, "|".join(content)):
        found = [path] if path.is_symlink() else _links_below(path) if path.is_dir() else []
        for link in found:
            raise InputError(
                f"{link} is a link, and nothing is written through links inside {folder}; remove "
                f"the link, or give another {flag}."
            )


def _matching(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if re.fullmatch(pattern, path.name))


def _links_below(folder: Path) -> Iterable[Path]:
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(here) / name
            if path.is_symlink():
                yield path


def remove_content(folder: Path, content: Content) -> None:
    """Removes what a command made in its folder, and nothing else; all of it or nothing.

    What goes is moved into a hidden folder first. A program that is stopped before that leaves all;
    one that is stopped later leaves work that `finish_removal` completes.

    Args:
        folder: this process's own.
        content: the first name is moved first, so that it is what decides; without it the rest is
            worth nothing.

    Raises:
        OSError: something cannot be removed.
    """
    going = folder / f"{_GOING}{secrets.token_hex(8)}"
    going.mkdir()
    _move_into(going, folder, content)


def finish_removal(folder: Path, content: Content) -> None:
    """Completes what a stopped `remove_content` began in a folder of this process's own."""
    for going in folder.glob(f"{_GOING}*"):
        if going.is_symlink() or not going.is_dir():
            going.unlink()
        elif any(going.iterdir()):
            _move_into(going, folder, content)
        else:  # it was stopped before it took anything
            going.rmdir()


def _move_into(going: Path, folder: Path, content: Content) -> None:
    for name, below in content.items():
        for path in _matching(folder, name):
            target = going / path.name
            if below and path.is_dir() and not path.is_symlink():
                target.mkdir(exist_ok=True)
                for part in _matching(path, below):
                    part.rename(target / part.name)
                with contextlib.suppress(OSError):  # somebody's own files are in it: they stay
                    path.rmdir()
            else:
                path.rename(target)
    shutil.rmtree(going)


@contextlib.contextmanager
def working_folder(root: Path, prefix: str) -> Iterator[Path]:
    """A new folder for work in progress, which is removed at the end.

    Those that killed processes left in the same place are removed at the beginning.

    Args:
        root: where it lies; a folder that exists.
        prefix: of its name.

    Yields:
        The folder.
    """
    for left in root.glob(f"{prefix}*"):
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=root) as folder, _held(Path(folder)):
        yield Path(folder)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Says to other processes, as long as it lasts, that a folder is in use."""
    try:
        import fcntl
    except ImportError:  # not a Unix: nobody will know, and nothing will be removed
        yield
        return
    with (folder / ".new-lock").open("w") as handle:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only now has it the name that others look at: there it is always locked.
            (folder / ".new-lock").rename(folder / ".lock")
        yield


def _is_abandoned(folder: Path) -> bool:
    """Whether the process that worked in a folder is gone; False where nobody can tell."""
    try:
        import fcntl

        with (folder / ".lock").open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
