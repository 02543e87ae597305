"""The folder of a run, and the commands that a run prints."""

import re
import shlex
from pathlib import Path

import pytest

from fmjax.config import KEYS
from fmjax.keys import walk
from fmjax.run.train.command import default_workdir
from tests.conftest import nightly_but
from tests.run.conftest import small_flags
from tests.run.forked import finish


@pytest.mark.parametrize(
    ("config", "overrides", "folder"),
    [
        ("configs/digits.py", {}, "digits"),
        ("configs/digits.py", {"data.name": "digits"}, "digits"),
        ("configs/toy2d.py", {"data.name": "toy/moons"}, "toy2d-moons"),
        ("/elsewhere/images.py", {"data.name": "flowers"}, "images-flowers"),
        ("configs/cifar10.py", {"data.name": "random/32x32x3/10"}, "cifar10-random-32x32x3-10"),
        ("mine.py", {"train.steps": 5}, "mine"),
    ],
)
def test_a_run_is_named_after_its_configuration_and_its_data(config, overrides, folder):
    assert default_workdir(config, overrides) == Path("runs") / folder


@pytest.mark.slow
def test_help_config_prints_every_key_and_does_nothing_else(commands, tmp_path):
    (out,) = finish(commands.start("train.py", "--help-config", cwd=tmp_path))
    for dotted, key in walk(KEYS):
        assert f"  {dotted}={key.default}    {key.expected()}" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    nightly_but(
        [
            {"data__name": "toy/moons"},
            {"data__name": "toy/scurve", "labels__conditional": False},
            {"data__name": "digits"},
        ],
        {"data__name": "digits"},
    ),
)
def test_the_command_it_prints_works_when_pasted(commands, tmp_path, changes):
    """With classes and without, for points and for images, from a folder of one's own."""
    flags = small_flags(train__steps=4, train__checkpoint_every=4, **changes)
    flags[0] = "--config=toy2d"  # by name: there is no folder of configurations here
    (said,) = finish(commands.start("fmjax/__main__.py", "train", *flags, cwd=tmp_path))
    (printed,) = re.findall(r"^next: (.*)$", said, flags=re.MULTILINE)
    start, *arguments = shlex.split(printed)[2:]
    assert printed.startswith("python -m fmjax sample ")
    assert start == "fmjax"
    (said,) = finish(commands.start("fmjax/__main__.py", *arguments, cwd=tmp_path))
    assert "100 samples of step 4" in said
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("toy2d-")
    assert (tmp_path / "out" / run.name / "samples.npz").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]
