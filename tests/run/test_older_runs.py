"""The record of a run of 0.3.0, which knew no codecs and no conditions, still says what it was."""

import json
import shutil

import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Pixels, Vectors
from fmjax.factory import DataSpec, Recipe
from fmjax.run.resume import check_resumable
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.workdir import load_record
from fmjax.samplers import solver_spec


@pytest.fixture
def copied(trained, tmp_path):
    """A finished run, to be changed."""
    return shutil.copytree(trained, tmp_path / "run")


NEW_KEYS = {"source": None, "labels": ("drop_all", "only"), "model": ("time_scale",)}
NEW_KEYS |= {"train": ("val_every",)}


def older(workdir, data):
    """Rewrites the record as 0.3.0 wrote it."""
    path = workdir / "run.json"
    record = json.loads(path.read_text())
    del record["checksum"]
    for group, keys in NEW_KEYS.items():
        if keys is None:
            del record["config"][group]
        else:
            record["config"][group] = {
                key: value for key, value in record["config"][group].items() if key not in keys
            }
    path.write_text(json.dumps(record | {"data": data}))


@pytest.mark.slow
def test_a_run_of_points_is_sampled_and_may_go_on(copied, tmp_path):
    workdir = copied
    now = load_record(workdir)
    sample(workdir, tmp_path / "now", Request(6), Recipe(solver_spec("euler", 2)))
    older(workdir, {"shape": [2], "num_classes": 2, "class_names": ["0", "1"]})
    record = load_record(workdir)
    assert record.spec == now.spec == DataSpec(Vectors(2), ClassIds(2, names=("0", "1")))
    check_resumable(record.config, now.config, workdir)
    sample(workdir, tmp_path / "older", Request(6), Recipe(solver_spec("euler", 2)))
    one, other = (np.load(tmp_path / name / "samples.npz")["samples"] for name in ("now", "older"))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("classes", [None, 3])
def test_a_run_of_images_was_one_of_pixels(copied, classes):
    workdir = copied
    names = classes and list("abc")
    older(workdir, {"shape": [8, 8, 1], "num_classes": classes, "class_names": names})
    conditions = classes and ClassIds(3, names=("a", "b", "c"))
    assert load_record(workdir).spec == DataSpec(Pixels((8, 8, 1)), conditions)
