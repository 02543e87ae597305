"""Files appear whole or not at all, and a disk is asked before a long job depends on it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from fmjax.errors import InputError
from fmjax.files import (
    check_file,
    check_space,
    check_writable,
    first_line,
    remove_temporaries,
    whole_file,
    write_bytes,
    write_json,
)
from fmjax.json_files import differences


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "x"
    with whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_goes_wrong_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "x"
    path.write_text("before")

    def fail():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=f"{name} could not be written: it is there already"):
            write_bytes(tmp_path / name, b"x")
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_that_nobody_wrote_is_an_error(tmp_path):
    with (
        pytest.raises(OSError, match=r"x could not be written: No such"),
        whole_file(tmp_path / "x"),
    ):
        pass


def test_bytes_and_json_replace_what_is_there_and_what_was_left(tmp_path):
    path = tmp_path / "x.json"
    (tmp_path / ".fmjax-0123.tmp").write_text("left by a killed program")
    remove_temporaries(tmp_path)
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    write_json(path, {"a": [1, None]})
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_noticed_before(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path, free // 2, "the samples", "lower --num")
    with pytest.raises(InputError, match=r"MB free, and the samples need .* MB; lower --num\."):
        check_space(tmp_path, 10 * free, "the samples", "lower --num")


def test_a_folder_is_made_and_tried(tmp_path):
    check_writable(tmp_path / "a" / "b", "--out")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file/b: .*\. Give another --out\."):
        check_writable(tmp_path / "file" / "b", "--out")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write to"):
        check_writable(tmp_path, "--out")


def test_a_manifest_differs_key_by_key(tmp_path):
    path = tmp_path / "m.json"
    asked = {"seed": 2, "shape": (1, 2), "resume": "b", "new": 1}
    assert differences(path, asked) == []
    write_json(path, {"seed": 1, "shape": [1, 2], "resume": "a"})
    found = differences(path, asked, free=("resume",))
    assert found == ["seed=1 (asked: 2)", "new=None (asked: 1)"]
    path.write_text("{")
    with pytest.raises(InputError, match=r"m\.json is no JSON \(Expecting"):
        differences(path, asked)


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError("a\nb"), "a"), (OSError("\n a"), "a"), (OSError(), "OSError")],
)
def test_an_error_in_one_line(error, line):
    assert first_line(error) == line


def test_the_name_of_a_folder_or_a_device_is_no_file_to_write(tmp_path):
    check_file(tmp_path / "new" / "figures.json", "--out")
    (tmp_path / "new" / "figures.json").write_text("{}")
    check_file(tmp_path / "new" / "figures.json", "--out")  # it is replaced
    with pytest.raises(InputError, match=r"--out takes the name of a file; .* is a folder"):
        check_file(tmp_path, "--out")
    with pytest.raises(InputError, match=r"--out takes the name of a file; /dev/null is no file"):
        check_file(Path("/dev/null"), "--out")
    with pytest.raises(InputError, match="cannot write to"):
        check_file(tmp_path / "new" / "figures.json" / "x", "--out")
