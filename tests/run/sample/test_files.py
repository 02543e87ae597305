"""The files of a sample run: how many there may be, what they take, and whether one is whole."""

import json

import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Vectors
from fmjax.errors import InputError
from fmjax.factory import DataSpec
from fmjax.run.sample import files
from fmjax.run.sample.files import SampleFiles, is_whole

SPEC = DataSpec(Vectors(2), ClassIds(2))


def test_as_many_files_as_a_folder_takes_are_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST", 3)
    for num in (8, 9):
        SampleFiles(tmp_path, num, 3).claim(SPEC).close()
    with pytest.raises(InputError, match=r"more than 3 files; write --shard_size=4 or more"):
        SampleFiles(tmp_path, 10, 3).claim(SPEC)


def test_one_file_is_in_memory_twice_while_it_is_written(tmp_path, monkeypatch):
    needed = []
    monkeypatch.setattr(files, "check_memory", lambda size, *_: needed.append(size))
    SampleFiles(tmp_path, 1000).claim(SPEC).close()
    SampleFiles(tmp_path, 1000, 100).claim(SPEC).close()
    assert needed == [2 * 1000 * (2 * 4 + 4)]  # two coordinates and a label


@pytest.mark.parametrize(
    ("samples", "whole"),
    [
        (np.zeros((3, 2), "f4"), True),
        (np.zeros((2, 2), "f4"), False),
        (np.zeros((4, 2), "f4"), False),
        (np.zeros((3, 1), "f4"), False),
        (np.zeros((3, 2), "f8"), False),
        (np.zeros((3, 2), "i1"), False),
    ],
)
def test_a_shard_is_whole_with_the_samples_that_it_should_have(tmp_path, samples, whole):
    np.savez(tmp_path / "a.npz", samples=samples)
    assert is_whole(tmp_path / "a.npz", range(5, 8), SPEC) == whole
    np.savez(tmp_path / "b.npz", other=samples)
    assert not is_whole(tmp_path / "b.npz", range(5, 8), SPEC)


def test_shards_have_a_manifest_and_one_file_has_none(tmp_path):
    SampleFiles(tmp_path, 9).begin({"num": 9})
    assert not (tmp_path / files.MANIFEST).exists()
    for _ in range(2):  # a second time it agrees
        SampleFiles(tmp_path, 9, 3).begin({"num": 9})
    assert json.loads((tmp_path / files.MANIFEST).read_text()) == {"num": 9}
    with pytest.raises(InputError, match=r"holds other samples, with num=9 .asked: 8."):
        SampleFiles(tmp_path, 8, 3).begin({"num": 8})


def test_overwriting_removes_shards_at_once_and_one_file_when_it_is_replaced(tmp_path):
    made = (files.WHOLE, files.PICTURE, files.MANIFEST, "samples-00000-of-00001.npz")
    for shard_size, kept in ((3, set()), (0, {files.WHOLE, files.PICTURE})):
        out = tmp_path / str(shard_size)
        out.mkdir()
        for name in (*made, "mine.txt"):
            (out / name).write_text("{}")
        SampleFiles(out, 3, shard_size, overwrite=True).begin({"num": 3})
        manifest = {files.MANIFEST} if shard_size else set()
        assert {path.name for path in out.iterdir()} == {*kept, *manifest, "mine.txt"}
