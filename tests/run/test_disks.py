"""A disk that fails in the middle of a command: full, read-only, or gone; at each thing written."""

import contextlib
import shutil
import subprocess
import time

import pytest

from fmjax.factory.training import abstract_state
from fmjax.run.restore import open_run
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.mesh import make_mesh
from tests.run.conftest import small_flags

# The command, with a fault just before one of its functions is called for the n-th time.
COMMAND = """
    import importlib, os, subprocess, sys

    def fill(place):
        with open(place + "/fill", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**12))
            except OSError:
                pass

    def read_only(place):  # as Linux makes it where a disk fails; files are open for writing
        subprocess.run(["mount", "-o", "remount,abort", place], check=True)

    def remove(place):
        os.rename(place + "/out", place + "/elsewhere")

    def fail_before(name, count, fault, place):
        module, *names = name.split(":")
        owner = importlib.import_module(module)
        for part in names[0].split(".")[:-1]:
            owner = getattr(owner, part)
        last = names[0].split(".")[-1]
        usual, calls = getattr(owner, last), []
        def failing(*arguments, **options):
            calls.append(1)
            if len(calls) == count:
                fault(place)
            return usual(*arguments, **options)
        setattr(owner, last, failing)

    place, fault, command, name, count, *arguments = sys.argv[1:]
    fail_before(name, int(count), globals()[fault], place)
    sys.argv = [command, *arguments]
    from fmjax.run import cli
    cli.run(importlib.import_module(f"fmjax.run.{command}.command"))
"""


@pytest.fixture
def disk(tmp_path):
    """A file system of 24 MB, which the tests fill, or end the writing of."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(24 * 2**20)
    make = ["mkfs.ext4", "-q", "-F", str(image)]
    mount = ["mount", "-o", "loop", str(image), str(place)]
    for command in (make, mount):
        if (
            shutil.which(command[0]) is None
            or subprocess.run(command, capture_output=True).returncode
        ):
            pytest.skip("no file system can be made here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


ENDLESS = small_flags(train__steps=10**6, train__checkpoint_every=100, train__log_every=20)
PICTURED = small_flags(train__sample_every=4)
SAMPLE = ["--workdir=RUN", "--out=OUT", "--num=40", "--steps=2", "--batch_size=8"]
SHARDS = [*SAMPLE, "--shard_size=8"]
MEASURE = ["--workdir=RUN", "--out=OUT/figures.json", "--num=40", "--steps=2"]
MOMENTS = {
    "a checkpoint": ("train", "fmjax.storage.checkpoints:Checkpoints.save", 3, ENDLESS),
    "the log": ("train", "fmjax.training.progress:Progress.write", 30, ENDLESS),
    "the events": ("train", "fmjax.training.events:Events.write", 30, ENDLESS),
    "a preview": ("train", "fmjax.run.train.report:write_preview", 1, PICTURED),
    "the samples": ("sample", "fmjax.run.sample.to_disk:write_file", 1, SAMPLE),
    "a shard": ("sample", "fmjax.run.sample.to_disk:write_file", 3, SHARDS),
    "a picture": ("sample", "fmjax.run.sample.to_disk:write_picture", 1, SAMPLE),
    "a program": (
        "sample",
        "fmjax.run.sample.export:write_bytes",
        1,
        ["--workdir=RUN", "--export=OUT/program"],
    ),
    "the weights": (
        "weights",
        "fmjax.run.weights.export:write_weights",
        1,
        ["--workdir=RUN", "--out=OUT"],
    ),
    "figures": ("evaluate", "fmjax.run.evaluate.command:write_json", 1, MEASURE),
    "a likelihood": ("likelihood", "fmjax.run.likelihood.command:write_json", 1, MEASURE),
}


# Each moment with one of the faults; the checkpoint, which must never be lost, with all.
CASES = [
    ("a checkpoint", "fill"),
    ("a checkpoint", "read_only"),
    ("a checkpoint", "remove"),
    ("the log", "fill"),
    ("the events", "fill"),
    ("a preview", "read_only"),
    ("the samples", "remove"),
    ("a shard", "fill"),
    ("a picture", "read_only"),
    ("a program", "fill"),
    ("the weights", "read_only"),
    ("figures", "remove"),
    ("a likelihood", "fill"),
]


@pytest.mark.day_cases(4)
@pytest.mark.slow
@pytest.mark.parametrize(("moment", "fault"), CASES)
def test_a_disk_that_fails_ends_a_command_with_one_sentence(commands, disk, trained, moment, fault):
    command, name, count, flags = MOMENTS[moment]
    out = disk / "out"
    out.mkdir()
    if command == "train":
        flags = [*flags, "--workdir=OUT"]
    flags = [flag.replace("OUT", str(out)).replace("RUN", str(trained)) for flag in flags]
    run = commands.start_code(COMMAND, disk, fault, command, name, count, *flags)
    began = time.monotonic()
    code = run.wait(120)
    assert time.monotonic() - began < 90  # importing and compiling included
    assert_one_sentence(run, command, code)
    whole = disk / "elsewhere" if fault == "remove" else out
    assert_whole(whole)
    assert not list(whole.rglob(".fmjax-*.tmp")) or fault != "fill"


def assert_one_sentence(run, command, code):
    assert code == 4, run.output
    *_, last = run.err.replace("\r", "\n").strip().splitlines()
    assert last.startswith(f"{command}: "), run.output
    assert "could not be written" in last or "Read-only file system" in last
    assert "Traceback" not in run.err, run.err


def assert_whole(folder):
    """Every checkpoint that has its name is whole."""
    if not any(path.name.isdecimal() for path in folder.glob("checkpoints/*")):
        return
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    target = {"params": abstract_state(open_run(folder), make_mesh()).params}
    for step in checkpoints.steps():
        assert checkpoints.restore(step, target)["params"]
    with contextlib.suppress(OSError):
        checkpoints.close()
