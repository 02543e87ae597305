"""Runs as their users start them: processes that are killed, signalled, or several."""

import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from fmjax.factory import Recipe
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.samplers import solver_spec
from tests.conftest import nightly_but
from tests.run.conftest import small_flags
from tests.run.forked import finish, free_port
from tests.run.train.test_train import assert_same_bits, read_state

pytestmark = pytest.mark.slow


def wait_for(path, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.output
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


# The moments of the kills and signals lie in the first half of these steps.
LONG = {"train__steps": 400, "train__checkpoint_every": 50, "train__log_every": 50}


@pytest.fixture
def start(commands):
    """Starts train.py in a folder."""
    return lambda workdir, *flags, **how: commands.start(
        "train.py", f"--workdir={workdir}", *flags, **how
    )


@pytest.mark.nightly
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(tmp_path, train_small, start):
    flags = small_flags(**LONG)
    seed = random.randrange(2**32)
    print(f"random seed {seed}")
    rng, kills = random.Random(seed), 0
    for _ in range(2):
        process = start(tmp_path / "killed", *flags)
        wait_for(tmp_path / "killed" / "checkpoints" / str(50 * (kills + 1)), process)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.wait()
    assert kills >= 1
    (output,) = finish(start(tmp_path / "killed", *flags))
    assert "resuming at step" in output
    train_small(tmp_path / "whole", **LONG)
    assert_same_bits(read_state(tmp_path / "killed"), read_state(tmp_path / "whole"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_says_so_and_leaves(tmp_path, start, number):
    process = start(tmp_path / "run", *small_flags(**LONG))
    wait_for(tmp_path / "run" / "checkpoints" / "50", process)
    process.send_signal(number)
    (output,) = finish(process, code=128 + number)
    assert f"stopped by signal {int(number)}: saved step" in output
    step = int(output.partition("saved step ")[2].split(".")[0])
    assert int(read_state(tmp_path / "run")["step"]) == step
    assert 50 <= step < 400


def in_two(start, workdir, *flags):
    """Starts train.py as two processes."""
    flags += (
        "--distributed=explicit",
        f"--coordinator=127.0.0.1:{free_port()}",
        "--num_processes=2",
    )
    return [start(workdir, *flags, f"--process_id={i}") for i in range(2)]


def cut_after_step_4(workdir):
    """Leaves a run as it was at step 4 of 12 (both halves have to be told all 12 steps)."""
    for step in ("8", "12"):
        shutil.rmtree(workdir / "checkpoints" / step)


def assert_close(workdir, other):
    for a, b in zip(*map(jax.tree.leaves, (read_state(workdir), read_state(other))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parallel", nightly_but(["jit", "pmap"], "jit"))
def test_two_processes_train_to_the_parameters_of_one_which_goes_on_with_theirs(
    tmp_path, trained, train_small, start, capsys, parallel
):
    workdir = tmp_path / "run"
    finish(*in_two(start, workdir, *small_flags(), f"--parallel={parallel}"))
    assert_close(workdir, trained)
    if parallel == "jit":  # a checkpoint of pmap has the same layout
        cut_after_step_4(workdir)
        train_small(workdir)
        assert "resuming at step 4" in capsys.readouterr().err
        assert_close(workdir, trained)


@pytest.mark.nightly
def test_a_run_of_one_process_goes_on_with_two(tmp_path, trained, start):
    shutil.copytree(trained, tmp_path / "run")
    cut_after_step_4(tmp_path / "run")
    outputs = finish(*in_two(start, tmp_path / "run", *small_flags()))
    assert "resuming at step 4" in outputs[0]
    assert_close(tmp_path / "run", trained)


def test_a_run_goes_on_with_another_number_of_devices(tmp_path, trained, start):
    shutil.copytree(trained, tmp_path / "run")
    cut_after_step_4(tmp_path / "run")
    (output,) = finish(start(tmp_path / "run", *small_flags(), devices=8))
    assert "resuming at step 4" in output
    assert_close(tmp_path / "run", trained)


def test_samples_are_the_same_on_one_device_and_on_eight(tmp_path, trained, commands):
    flags = [f"--workdir={trained}", f"--out={tmp_path / '8'}", "--num=20", "--steps=3"]
    finish(commands.start("sample.py", *flags, devices=8))
    sample(trained, tmp_path / "1", Request(20), Recipe(solver_spec("heun", 3)))
    one, eight = (np.load(tmp_path / d / "samples.npz")["samples"] for d in ("1", "8"))
    np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-5)


def test_what_process_0_finds_wrong_stops_all_of_them(tmp_path, start):
    (tmp_path / "file").write_text("")
    outputs = finish(*in_two(start, tmp_path / "file" / "run", *small_flags()), code=2)
    assert "cannot write to" in outputs[0]
    assert "process 0 found something wrong" in outputs[1]
