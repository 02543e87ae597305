"""Files on disk: written whole or not at all, and checked before a long job depends on them."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from fmjax.errors import InputError

_TEMPORARY = ".fmjax-{}.tmp"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # not everywhere


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file, which gets its name only if all goes well.

        with whole_file(path) as temporary:
            temporary.write_text("content")

    The place has a name that no other writer has, of this process or another. A program that is
    stopped in between leaves what was under the name before, and perhaps the temporary file, which
    `remove_temporaries` removes. A machine that is stopped later has the whole file, or what was
    there before.

    Args:
        path: where the file will be; its folder exists, and an existing file is replaced. A link is
            replaced as well: what it points to stays as it is.

    Yields:
        The path to write to; it is removed if the body raises.

    Raises:
        OSError: the file cannot be written, in one sentence.
    """
    if path.exists() and not path.is_file():  # a folder, or a device, which a file would replace
        raise OSError(f"{path} could not be written: it is there already and no file.")
    temporary = path.with_name(_TEMPORARY.format(secrets.token_hex(8)))
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone, or read-only by now
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Returns when the content of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot
            raise
    finally:
        os.close(handle)


def unwritten(path: Path, error: OSError) -> OSError:
    """The error of a file that could not be written, in one sentence.

    Args:
        path: of the file.
        error: what the system said.
    """
    return OSError(f"{path} could not be written: {error.strerror or first_line(error)}.")


def remove_temporaries(folder: Path) -> None:
    """Removes what killed writers left in a folder, which must be this process's own by a lock."""
    for path in folder.glob(_TEMPORARY.format("*")):
        path.unlink(missing_ok=True)


class AppendedFile:
    """A file that grows, and that nothing is kept back from: what is written is in it.

    Args:
        path: of the file, made if missing; never a link.

    Raises:
        OSError: it cannot be opened, in one sentence.
    """

    def __init__(self, path: Path):
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK
        try:
            self._handle = os.open(path, flags, 0o666)
        except OSError as error:
            raise unwritten(path, error) from error

    def write(self, content: bytes) -> None:
        """Appends some bytes.

        Raises:
            OSError: not all of them could be written, or the file has been moved or deleted, in one
                sentence.
        """
        try:
            if not os.path.samestat(os.lstat(self._path), os.fstat(self._handle)):
                raise FileNotFoundError(errno.ENOENT, "it has been moved or deleted")
            while content:  # a disk with little room takes a part, and then refuses
                content = content[os.write(self._handle, content) :]
        except OSError as error:
            raise unwritten(self._path, error) from error

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # nothing is kept back that could be lost here
            os.close(self._handle)


def write_bytes(path: Path, content: bytes | bytearray) -> None:
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
        probe = folder / _TEMPORARY.format(secrets.token_hex(8))
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}. Give another {flag}."
        ) from error


def check_file(path: Path, flag: str) -> None:
    """Checks that a file can be written, or replaced, before what goes into it is computed.

    Raises:
        InputError: it is a folder or another thing than a file, or its folder cannot be written.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise InputError(f"{flag} takes the name of a file; {path} is {what}.")
    check_writable(path.parent, flag)


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
