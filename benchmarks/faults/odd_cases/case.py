"""What a case is, and the folder it is tried in.

A world is a folder with three parts. ``kept`` has what a case begins with: a run, a data set,
images. ``own`` is made anew for each case of copies of those and of the files of the case. ``home``
is where careless programs write. Only ``own`` may change.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.odd_cases.images import TABLES
from fmjax.data import prepare

OF_A_RUN = ("sample", "evaluate", "likelihood", "reflow", "distill", "weights", "compile")
NEEDED = {"prepare": (), "train": ("run", "data"), **dict.fromkeys(OF_A_RUN, ("run",))}
"""The parts of ``kept`` that a command begins with."""
BELOW = Path("own", "here", "below")
"""Where a command is started: a name such as ``..`` does not lead out of ``own``."""

Files = tuple[tuple[str, bytes | None], ...]


class Case(NamedTuple):
    """One case.

    Attributes:
        command: for example "train".
        flags: its arguments; paths in them begin at `BELOW`.
        files: by their paths from ``own``, and their bytes; None for a folder.
    """

    command: str
    flags: tuple[str, ...]
    files: Files = ()


def fill(world: Path, run: Path) -> None:
    """Makes a world, of a trained run and of a small set of images."""
    kept = world / "kept"
    shutil.copytree(run, kept / "run")
    table = world / "home" / "images.npz"
    table.parent.mkdir()
    table.write_bytes(TABLES["two parts"])
    prepare.main(["--name=tiny", f"--source={table}", f"--data_dir={kept / 'data'}"])
    (world / "home" / "link").symlink_to(kept)
    (world / "own").mkdir()


def set_up(case: Case, world: Path) -> None:
    """Makes the folder that the case is tried in, and enters it."""
    own = world / "own"
    os.chdir(world)
    shutil.rmtree(own, ignore_errors=True)
    (world / BELOW).mkdir(parents=True)
    for part in NEEDED[case.command]:
        shutil.copytree(world / "kept" / part, own / part)
    for name, content in case.files:
        path = own / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    os.chdir(world / BELOW)


def watched(world: Path) -> dict[str, tuple]:
    """Everything in a world but ``own``: kind and rights, time of the last change, content."""
    found = {}
    for folder, folders, files in os.walk(world):
        if folder == str(world):
            folders.remove("own")
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            state = os.lstat(path)
            content = ""
            if name in files and not os.path.islink(path):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            found[path] = (state.st_mode, state.st_mtime_ns, content)
    return found
