"""A preparation that was stopped at any moment goes on, and ends with the same bytes."""

import itertools
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fmjax.data import prepare
from fmjax.data.images import folder as images
from fmjax.data.tfds import directory, example_set
from fmjax.folders import working_folder


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("rose", "tulip"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, size=(9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(example_set, "_PART", 4)


def prepared(photos, data_dir):
    """All files of a set of these photos, by name."""
    arguments = ["--name=set", f"--source={photos}", "--size=6", f"--data_dir={data_dir}"]
    assert prepare.main(arguments) == 0
    assert [path.name for path in data_dir.iterdir()] == ["set"]  # and nothing hidden
    return content(data_dir)


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stop(photos, data_dir, monkeypatch):
    """Begins the same preparation, and stops it after thirty examples."""

    def bar(examples, split, total):
        yield from itertools.islice(examples, 30)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_with_bar", bar)
        with pytest.raises(KeyboardInterrupt):
            prepared(photos, data_dir)


def test_what_was_decoded_is_not_decoded_again(photos, tmp_path, monkeypatch, capsys):
    whole = prepared(photos, tmp_path / "whole")
    stop(photos, tmp_path / "sets", monkeypatch)
    assert "the same command goes on with it" in capsys.readouterr().err
    assert directory.prepared(tmp_path / "sets") == {}
    decode, decoded = images.decode, []
    monkeypatch.setattr(images, "decode", lambda *a: decoded.append(a[0]) or decode(*a))
    assert prepared(photos, tmp_path / "sets") == whole
    # The first example of each part of both splits is looked at for its shape.
    assert len(decoded) <= 40 - 28 + 4


def test_a_part_that_was_cut_short_is_made_anew(photos, tmp_path, monkeypatch):
    whole = prepared(photos, tmp_path / "whole")
    stop(photos, tmp_path / "sets", monkeypatch)
    for k, part in enumerate(sorted((tmp_path / "sets" / ".parts-set").iterdir())):
        cut = part.read_bytes()
        wrong = (cut[: len(cut) // 2], b"", cut.replace(b"IDAT", b"IDAX", 1))
        part.write_bytes(wrong[k % len(wrong)])
    assert prepared(photos, tmp_path / "sets") == whole


def test_a_changed_photo_is_read_again(photos, tmp_path, monkeypatch):
    stop(photos, tmp_path / "sets", monkeypatch)
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(photos / "rose" / "0.png")
    assert prepared(photos, tmp_path / "sets") == prepared(photos, tmp_path / "whole")


def test_a_folder_in_use_stays_and_one_left_behind_goes(tmp_path):
    with working_folder(tmp_path, ".preparing-") as used:
        (tmp_path / ".preparing-left").mkdir()
        (tmp_path / ".preparing-left" / ".lock").touch()
        (tmp_path / ".preparing-begins").mkdir()  # a process that has not yet locked it
        with working_folder(tmp_path, ".preparing-") as other:
            assert used.exists()
            assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
                [used.name, other.name, ".preparing-begins"]
            )
    assert [path.name for path in tmp_path.iterdir()] == [".preparing-begins"]


KILLED = """
import os, pathlib, signal, sys
from fmjax.data import prepare
from fmjax.data.tfds import directory, example_set, kept_parts

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def bar_killed_after(number):
    def bar(examples, split, total):
        for k, example in enumerate(examples):
            if (split, k) == number:
                kill()
            yield example
    return bar

def half(path, **arrays):
    pathlib.Path(path).write_bytes(b"PK half of it")
    kill()

moments = {
    "at the first example": lambda: setattr(prepare, "_with_bar", bar_killed_after(("train", 0))),
    "in a part": lambda: setattr(kept_parts.np, "savez", half),
    "in the middle": lambda: setattr(prepare, "_with_bar", bar_killed_after(("train", 25))),
    "in the test part": lambda: setattr(prepare, "_with_bar", bar_killed_after(("test", 2))),
    "before its name": lambda: setattr(directory, "_move", kill),
    "after it": lambda: setattr(kept_parts.KeptParts, "remove", kill),
}
example_set._PART = 4
for number, (name, patch) in enumerate(moments.items()):
    child = os.fork()
    if not child:
        patch()
        more = ["--overwrite"] if number else []
        prepare.main([*sys.argv[1:], *more])
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    root = pathlib.Path(sys.argv[-1].partition("=")[2])
    print(code, sorted(directory.prepared(root)), flush=True)
"""


@pytest.mark.slow  # a process of its own, which imports all
def test_a_preparation_killed_at_any_moment_ends_with_the_same_bytes(photos, tmp_path):
    sets = tmp_path / "sets"
    arguments = ["--name=set", f"--source={photos}", "--size=6", f"--data_dir={sets}"]
    command = [sys.executable, "-c", KILLED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    killed = f"{-signal.SIGKILL} "
    assert lines == [killed + "[]"] * 5 + [killed + "['set']"], done.stderr
    prepare.main([*arguments, "--overwrite"])
    assert [path.name for path in sets.iterdir()] == ["set"]
    assert content(sets) == prepared(photos, tmp_path / "whole")
