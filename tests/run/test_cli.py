"""The command line: each mistake gets one sentence, exit code 2, and no folder."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CONFIG = """
from fmjax.config import default_config

def get_config():
    c = default_config()
    {}
    return c
"""
DIGITS = "--config=configs/digits.py"


def run(script, *flags, **env):
    return subprocess.run(
        [sys.executable, str(ROOT / script), *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "flags", "sentence"),
    [
        ("train.py", [], "--config=configs/digits.py"),
        ("train.py", ["--config=configs/digit.py"], "Did you mean 'configs/digits.py'?"),
        ("train.py", [DIGITS, "--config.train.step=5"], "Nearest: train.steps"),
        ("train.py", [DIGITS, "--config.train.steps=many"], "invalid literal for int()"),
        ("train.py", [DIGITS, "--paralel=jit"], "Did you mean: parallel"),
        ("train.py", [DIGITS, "--parallel=fsdp"], "should be one of <jit|pmap>"),
        ("train.py", [DIGITS, "steps=5"], "flags begin with --"),
        ("train.py", [DIGITS, "--coordinator=h:1", "--process_id=1"], "by hand need --distributed"),
        ("train.py", [DIGITS, "--distributed", "--process_id=1"], "got only --process_id"),
        ("train.py", [DIGITS, "--distributed"], "found no cluster"),
        ("train.py", [DIGITS, "--config.data.name=toy/moon"], "Did you mean 'toy/moons'?"),
        ("sample.py", [], "--workdir=runs/digits"),
        ("sample.py", ["--workdir=nowhere"], "nowhere holds no run"),
        ("sample.py", ["--workdir=x", "--labels=one"], "a list of numbers"),
        ("sample.py", ["--workdir=x", "--solver=huen"], "Did you mean 'heun'?"),
        ("sample.py", ["--workdir=x", "--steps=0"], "at least 1; got 0"),
        ("sample.py", ["--workdir=x", "--num=ten"], "invalid literal"),
    ],
)
def test_a_mistake_gets_one_sentence(script, flags, sentence, tmp_path):
    if script == "train.py" and flags:
        flags = [*flags, f"--workdir={tmp_path / 'run'}"]
    done = run(script, *flags)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"{script}: ")
    assert sentence in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path):
    done = run(
        "train.py",
        "--config=configs/toy2d.py",
        "--config.train.batch_size=100",
        f"--workdir={tmp_path / 'run'}",
        XLA_FLAGS="--xla_force_host_platform_device_count=8",
    )
    assert done.returncode == 2
    assert "does not divide over 8 devices; write train.batch_size=96" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "get_config"),
        (CONFIG.format("c.trian = 3"), "trian"),
        (CONFIG.format("c.train.steps = 'x'"), "TypeError"),
    ],
)
def test_a_broken_config_file_is_named(body, sentence, tmp_path):
    (tmp_path / "mine.py").write_text(body)
    done = run("train.py", f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "mine.py" in line
    assert sentence in line
    assert not (tmp_path / "run").exists()


def test_help_lists_the_flags():
    done = run("sample.py", "--help")
    assert "--guidance" in done.stdout
    assert "repeats in turn" in done.stdout
