"""A copy of a run under another path is sampled and trained on, and nothing leaves it."""

import hashlib
import shutil

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.train.training import train
from fmjax.samplers import solver_spec
from tests.run.conftest import small_config

HEUN = Recipe(solver_spec("heun", 2))


def content(folder):
    """The files below a folder, links as what they are, with their bytes."""
    return {
        str(path.relative_to(folder)): path.is_symlink()
        or (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def moved(trained, tmp_path):
    """A copy of a run under another path, where the first one is out of reach."""
    first = shutil.copytree(trained, tmp_path / "first")
    moved = shutil.copytree(first, tmp_path / "other" / "name of mine")
    first.rename(tmp_path / "gone")
    return moved


def drawn(run, out):
    sample(run, out, Request(5, (0,), (1.0,)), HEUN, batch_size=5)
    return np.load(out / "samples.npz")["samples"]


@pytest.mark.slow
def test_a_copy_gives_the_samples_of_the_run_it_was_copied_from(trained, moved, tmp_path):
    np.testing.assert_array_equal(drawn(moved, tmp_path / "a"), drawn(trained, tmp_path / "b"))


@pytest.mark.slow
def test_a_copy_is_trained_on_where_it_lies(moved, tmp_path):
    before = content(tmp_path / "gone")
    assert train(small_config(train__steps=16), moved) == 0
    assert (moved / "checkpoints" / "16").is_dir()
    assert content(tmp_path / "gone") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone", "other"]
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["name of mine"]


LINKED = ["metrics.jsonl", "run.json", "checkpoints", "checkpoints/12", ".lock"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", LINKED)
def test_nothing_is_written_through_a_link_in_a_copy(moved, tmp_path, name, overwrite):
    outside, link = tmp_path / "outside", moved / name
    if link.exists():
        link.rename(outside)
    else:
        outside.write_text("mine")
    link.symlink_to(outside)
    before = content(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(InputError, match=rf"{name} is a link"):
        train(small_config(train__steps=16), moved, overwrite=overwrite)
    assert (content(outside) if outside.is_dir() else outside.read_bytes()) == before
