"""What goes wrong around a run: processes that are lost, disks that fail, many at a time."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from fmjax.errors import InputError
from fmjax.factory.training import abstract_state
from fmjax.run.distributed import failure, launch
from fmjax.run.restore import open_run
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.mesh import make_mesh
from tests.conftest import ROOT
from tests.run.conftest import small_flags


@pytest.mark.parametrize(
    ("environment", "tpu_host", "found"),
    [
        ({}, False, None),
        ({"SLURM_NTASKS": "1"}, False, None),
        ({"SLURM_NTASKS": ""}, False, None),
        ({"SLURM_NTASKS": "4"}, False, "SLURM_NTASKS=4"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, False, "OMPI_COMM_WORLD_SIZE=2"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True, "TPU_WORKER_HOSTNAMES=a,b"),
        ({"TPU_WORKER_HOSTNAMES": "none found, look there"}, False, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, True, "a TPU on this machine"),
    ],
)
def test_several_processes_are_seen_by_what_their_launcher_sets(environment, tpu_host, found):
    assert launch.launched_tasks(environment, tpu_host) == found


@pytest.fixture
def set_flags():
    """Sets flags for the length of a test, parsed or not before."""
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver():
        yield lambda **values: [setattr(flags.FLAGS, k, v) for k, v in values.items()]


THREE = {"coordinator": "host:1234", "num_processes": 2, "process_id": 0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"distributed": "explicit"}, "got none of the last three and --distributed=explicit"),
        ({"distributed": "explicit"} | THREE | {"process_id": None}, "got --coordinator, --num_pr"),
        ({"distributed": "auto"} | THREE, "--distributed=auto"),
        ({"distributed": "off", "process_id": 0}, "got --process_id and --distributed=off"),
    ],
)
def test_flags_that_make_no_run_of_several_processes_are_named(set_flags, given, said):
    set_flags(**given)
    with pytest.raises(InputError, match=said):
        launch.join_processes()


def test_a_launcher_without_a_coordinator_is_an_error_and_not_many_runs(set_flags, monkeypatch):
    def no_coordinator(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", no_coordinator)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE=2 speaks of several processes, and no coord"):
        launch.join_processes()
    set_flags(distributed="off")
    launch.join_processes()


LOST = "UNKNOWN: Gloo all-reduce failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:1"


def test_the_loss_of_a_process_is_told_from_other_errors():
    assert failure.lost_process(jax.errors.JaxRuntimeError(LOST + "\nmore")) == LOST
    unwritten = OSError("a checkpoint could not be written")
    unwritten.__cause__ = jax.errors.JaxRuntimeError(LOST)
    assert failure.lost_process(unwritten) == LOST
    assert failure.lost_process(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: memory")) is None
    assert failure.lost_process(ConnectionResetError("Connection reset by peer")) is None


def test_a_process_alone_fails_as_ever():
    def main():
        raise FloatingPointError("the loss is nan")

    with pytest.raises(FloatingPointError, match="the loss is nan"):
        failure.together(main)
    assert failure.together(lambda: 15) == 15


@pytest.fixture
def target():
    """What to restore of a run's folder."""
    return lambda workdir: {"params": abstract_state(open_run(workdir), make_mesh()).params}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place):
    with contextlib.suppress(OSError), (place / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


def move(place):
    (place / "run").rename(place / "elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fill, move])
def test_a_disk_that_fails_ends_a_training_with_one_sentence(commands, small_disk, target, fault):
    endless = small_flags(train__steps=10**6, train__checkpoint_every=100, train__log_every=100)
    workdir = small_disk / "run"
    run = commands.start("train.py", *endless, f"--workdir={workdir}")
    wait_for(run, workdir / "checkpoints" / "200")
    fault(small_disk)
    began = time.monotonic()
    assert run.wait(60) == 4
    assert time.monotonic() - began < 60
    *_, last = run.err.replace("\r", "\n").strip().splitlines()
    assert last.startswith("train.py: ")
    assert "could not be written" in last
    assert "Traceback" not in run.err
    if fault is fill:
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        step = max(checkpoints.steps())
        assert checkpoints.restore(step, target(workdir))["params"]
        checkpoints.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_the_run_goes_on(commands, tmp_path, number):
    flags = small_flags(train__steps=10**6, train__checkpoint_every=10**6, train__log_every=10)
    metrics = tmp_path / "run" / "metrics.jsonl"
    run = commands.start("train.py", *flags, f"--workdir={tmp_path / 'run'}")
    wait_for(run, metrics, 200)
    run.send_signal(number)
    assert run.wait(60) == 128 + number
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def wait_for(run, path, size=0):
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size >= size):
        assert run.poll() is None, run.output
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_what_is_said_to_a_closed_stream_is_said_on_the_open_one(script):
    command = f"{sys.executable} {ROOT / script} --workdir=nowhere"
    for closed, stream in (("2>&-", "stdout"), (">&-", "stderr")):
        done = subprocess.run(
            f"{command} {closed}", shell=True, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        (line,) = getattr(done, stream).splitlines()
        assert line.startswith(f"{script}: ")


@pytest.mark.nightly
def test_no_run_is_lost(run_python, tmp_path):
    # Two of the twelve, which take an hour. The script ends with an error where a run is lost.
    out, faults = tmp_path / "faults.json", ("failing_store", "one_of_two")
    options = ("--only", *faults, "--trials", "1", "--steps", "100", "--out", out)
    command = "import runpy; runpy.run_module('benchmarks.faults', None, '__main__', True)"
    printed = run_python(command, *options, timeout=600)
    found = json.loads(out.read_text())["faults"]
    assert found.keys() == set(faults)
    assert all(fault["trials"] == 1 for fault in found.values()), printed
