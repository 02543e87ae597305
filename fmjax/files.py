"""Files on disk: written whole or not at all, and checked before a long job depends on them."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fmjax.errors import InputError, changed_keys


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file, which gets its name only if all goes well.

        with whole_file(path) as temporary:
            temporary.write_text("content")

    A program that is stopped in between leaves what was under the name before, and perhaps a
    ``.tmp`` beside it, which the next attempt overwrites.

    Args:
        path: where the file will be; its folder exists, and an existing file is replaced.

    Yields:
        The path to write to; it is removed if the body raises.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: dict) -> None:
    """Writes a JSON file whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def check_space(folder: Path, needed: int, what: str, advice: str) -> None:
    """Checks that a folder's disk has room.

    Args:
        folder: which exists.
        needed: bytes.
        what: needs them, as in "the samples".
        advice: what to do otherwise.

    Raises:
        InputError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} has {free / 1e6:.0f} MB free, and {what} need {needed / 1e6:.0f} MB; "
            f"{advice}."
        )


def check_writable(folder: Path, flag: str) -> None:
    """Makes a folder and tries to write in it.

    Raises:
        InputError: it cannot; the flag to change is named.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}. Give another {flag}."
        ) from error


def lock_folder(folder: Path, flag: str) -> IO | None:
    """Keeps other runs out of a folder for as long as the file returned is open.

    Args:
        folder: which exists.
        flag: that gives another folder, as the message names it.

    Returns:
        The open file; None where the system has no locks.

    Raises:
        InputError: another run has it.
    """
    try:
        import fcntl
    except ImportError:  # not a Unix
        return None
    handle = (folder / ".lock").open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise InputError(
            f"another run is training in {folder}; wait for it, or give another {flag}."
        ) from None
    except OSError:  # a file system without locks
        pass
    return handle


def differences(path: Path, content: dict, free: tuple[str, ...] = ()) -> list[str]:
    """How a stored manifest differs from one that is asked for, key by key.

    A manifest says in JSON what a set of files is to hold and is written before the first of them,
    so that a job that was stopped goes on only where it is asked for the same again.

    Args:
        path: of the JSON file.
        content: what is asked for.
        free: keys that may differ.

    Returns:
        ``"key=stored (asked: ...)"`` for each key that differs; empty where there is no file.

    Raises:
        ValueError: the file is not JSON.
    """
    if not path.exists():
        return []
    stored, asked = (
        {key: value for key, value in json.loads(text).items() if key not in free}
        for text in (path.read_text(), json.dumps(content))
    )
    return changed_keys(stored, asked)


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
