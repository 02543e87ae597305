"""The command line: each mistake gets one sentence, exit code 2, and no folder."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from absl import logging
from flax.traverse_util import flatten_dict

from fmjax.__main__ import COMMANDS
from fmjax.config import default_config
from fmjax.data.tfds.directory import data_root
from fmjax.errors import InputError
from fmjax.run import cli, other_words
from fmjax.run.cli import check_config_keys, compilation_folder, find_config
from tests.conftest import ROOT

CONFIG = """
from fmjax.config import default_config

def get_config():
    c = default_config()
    {}
    return c
"""
DIGITS = "--config=configs/digits.py"
MISTAKES = [
    ("train.py", [], "--config=digits"),
    ("train.py", ["--config=configs/digit.py"], "Did you mean 'configs/digits.py'?"),
    ("train.py", ["--config=digit"], "unknown configuration 'digit'. Did you mean 'digits'?"),
    ("train.py", [DIGITS, "--config.train.step=5"], "Nearest: train.steps"),
    ("train.py", [DIGITS, "--config.train.steps=many"], "invalid literal for int()"),
    ("train.py", [DIGITS, "--paralel=jit"], "Did you mean: parallel"),
    ("train.py", [DIGITS, "--parallel=fsdp"], "should be one of <jit|pmap>"),
    ("train.py", [DIGITS, "steps=5"], "flags begin with --"),
    ("train.py", [DIGITS, "--distributed=on"], "should be one of <auto|off|explicit>"),
    ("train.py", [DIGITS, "--coordinator=h:1", "--process_id=1"], "--distributed=explicit, --co"),
    ("train.py", [DIGITS, "--distributed=explicit", "--process_id=1"], "got --process_id and"),
    ("train.py", [DIGITS, "--distributed=explicit"], "got none of the last three"),
    ("train.py", [DIGITS, "--config.data.name=toy/moon"], "Did you mean 'toy/moons'?"),
    ("train.py", [DIGITS, "--config.mesh.fsdp=2"], "2 does not divide 1"),
    ("train.py", [DIGITS, "--init_from=nowhere"], "nowhere holds no run"),
    ("train.py", [DIGITS, "--compile_only=v5e:4by4"], "v5e:4x4"),
    ("train.py", [DIGITS, "--compile_only=v5e:4x4", "--parallel=pmap"], "--parallel=jit"),
    ("sample.py", [], "--workdir=runs/digits"),
    ("sample.py", ["--workdir=nowhere"], "nowhere holds no run"),
    ("sample.py", ["--workdir=x", DIGITS], "--config is for --compile_only"),
    ("sample.py", ["--compile_only=v5e:4x4"], "either --workdir"),
    ("sample.py", ["--workdir=x", "--labels=one"], "a list of numbers"),
    ("sample.py", ["--workdir=x", "--labels=1", "--condition=c.npy"], "in place of --labels"),
    ("sample.py", ["--workdir=x", "--solver=huen"], "Did you mean 'heun'?"),
    ("sample.py", ["--workdir=x", "--steps=0"], "at least 1; got 0"),
    ("sample.py", ["--workdir=x", "--num=ten"], "invalid literal"),
    ("sample.py", ["--workdir=x", "--out="], "--out is empty; give a value, or leave it out"),
    (
        "train.py",
        [DIGITS, "--config.optimizer.b1=1"],
        "optimizer.b1 (decay of the first moment) must be a number in [0, 1); got 1.0",
    ),
    (
        "train.py",
        [DIGITS, "--config.train.steps=50"],
        "got optimizer.warmup_steps=50 and train.steps=50",
    ),
]
LAUNCHED = ("train.py", [DIGITS], {"WORLD_SIZE": "2"}, "WORLD_SIZE=2 speaks of several processes")
DIVIDES = (
    "train.py",
    ["--config=configs/toy2d.py", "--config.train.batch_size=100"],
    {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    "does not divide over 8 devices; write train.batch_size=96",
)
BROKEN = [
    ("def get_config(:", "SyntaxError"),
    ("x = 1", "get_config"),
    (CONFIG.format("c.trian = 3"), "trian"),
    (CONFIG.format("c.train.steps = 'x'"), "TypeError"),
]


class Answer(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def answers(tmp_path_factory, commands) -> tuple[list[Answer], Path]:
    """The answers to all the mistakes above, in order, and the workdir that none may make."""
    folder = tmp_path_factory.mktemp("answers")
    workdir = folder / "run"
    lines = [(script, flags, {}) for script, flags, _ in MISTAKES]
    lines += [LAUNCHED[:3], DIVIDES[:3]]
    for number, (body, _) in enumerate(BROKEN):
        (folder / f"mine{number}.py").write_text(body)
        lines.append(("train.py", [f"--config={folder / f'mine{number}.py'}"], {}))
    lines = [
        (script, [*flags, f"--workdir={workdir}"] if script == "train.py" and flags else flags, env)
        for script, flags, env in lines
    ]
    started = [commands.start(script, *flags, env=env) for script, flags, env in lines]
    return [Answer(command.wait(), command.out, command.err) for command in started], workdir


def sentence_of(answer: Answer, script: str, workdir: Path) -> str:
    assert answer.code == 2, answer.err
    assert answer.out == ""
    (line,) = answer.err.strip().splitlines()
    assert line.startswith(f"{script}: ")
    assert not workdir.exists()
    return line


async def read():
    """As orbax reads: whatever ends it becomes an error, its removal from memory too."""
    try:
        await Never()
    except BaseException as error:
        raise ValueError("error while reading an array") from error


class Never:
    def __await__(self):
        yield


class OnClosedLoop:
    def __del__(self):
        raise RuntimeError("Event loop is closed")


class OfOurs:
    def __del__(self):
        raise ValueError("a defect")


@pytest.mark.slow
def test_what_is_left_of_a_damaged_checkpoint_is_not_said_and_all_else_is(monkeypatch):
    said, level = [], logging.get_verbosity()
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: said.append(str(hook.exc_value)))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    cli._quieten()
    logging.set_verbosity(level)
    reading = read()
    reading.send(None)
    del reading
    OnClosedLoop(), OfOurs()
    gc.collect()
    assert said == ["a defect"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_gets_one_sentence(answers, number):
    script, _, sentence = MISTAKES[number]
    assert sentence in sentence_of(answers[0][number], script, answers[1])


@pytest.mark.slow
def test_several_tasks_without_a_coordinator_do_not_become_several_runs(answers):
    assert LAUNCHED[-1] in sentence_of(answers[0][len(MISTAKES)], "train.py", answers[1])


@pytest.mark.slow
def test_a_batch_that_does_not_divide_over_the_devices_is_refused(answers):
    assert DIVIDES[-1] in sentence_of(answers[0][len(MISTAKES) + 1], "train.py", answers[1])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_broken_config_file_is_named(answers, number):
    line = sentence_of(answers[0][len(MISTAKES) + 2 + number], "train.py", answers[1])
    assert f"mine{number}.py" in line
    assert BROKEN[number][1] in line


def run(script, *flags, **env):
    return subprocess.run(
        [sys.executable, str(ROOT / script), *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_help_lists_the_flags_in_the_order_of_the_decisions():
    done = run("sample.py", "--help")
    assert done.returncode == 0
    places = [done.stdout.index(text) for text in ("--workdir", "--num", "--solver", "--guidance")]
    assert places == sorted(places)
    assert max(map(len, done.stdout.splitlines())) <= 100


_FLAGS_OF_COMMANDS = """
import importlib, sys
from absl import flags
from fmjax.__main__ import COMMANDS
from fmjax.run import help_text
name = sys.argv[1]
command = importlib.import_module(f"fmjax.run.{name}.command")
listed = [holder.name for group in command.HELP.values() for holder in group]
modules = flags.FLAGS.flags_by_module_dict().items()
defined = [flag.name for module, own in modules if module.startswith("fmjax") for flag in own]
assert sorted(listed) == sorted(defined), set(listed) ^ set(defined)
assert all(f"--{flag}" in help_text.help_text("fmjax", command) for flag in defined)
print(*defined)
"""


@pytest.fixture(scope="module")
def flags_of_commands():
    names = [name for name in COMMANDS if name != "prepare"]
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", _FLAGS_OF_COMMANDS, name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in names
    }
    return {
        name: (process.communicate()[0], process.returncode) for name, process in started.items()
    }


@pytest.mark.slow
def test_help_lists_every_flag_once(flags_of_commands):
    for name, (output, code) in flags_of_commands.items():
        assert code == 0, (name, output)


@pytest.mark.slow
def test_the_words_of_other_libraries_lead_to_flags_and_keys_that_exist(flags_of_commands):
    every = {flag for output, _ in flags_of_commands.values() for flag in output.split()}
    assert set(other_words.OTHER_FLAGS.values()) <= every
    known = flatten_dict(default_config().to_dict(), sep=".")
    assert set(other_words.OTHER_KEYS.values()) <= set(known)


@pytest.mark.parametrize(
    ("key", "meant"),
    [("train.lr", "optimizer.learning_rate"), ("model.hidden_size", "model.width")],
)
def test_a_key_of_another_library_is_answered_with_ours(key, meant):
    with pytest.raises(InputError, match=rf"unknown configuration key '{key}'. Nearest: {meant}\."):
        check_config_keys([f"--config.{key}=5"])


def test_a_configuration_is_found_by_path_or_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("digits") == ROOT / "configs" / "digits.py"
    (tmp_path / "configs").mkdir()
    for name in ("digits", "mine"):
        (tmp_path / "configs" / f"{name}.py").write_text("")
    assert find_config("digits") == Path("configs/digits.py")  # one's own comes first
    assert find_config("configs/mine.py") == find_config("mine") == Path("configs/mine.py")
    with pytest.raises(InputError, match=r"unknown configuration 'mein'. Did you mean 'mine'\?"):
        find_config("mein")
    with pytest.raises(InputError, match="unknown configuration 'xxx"):
        find_config("x" * 300)
    with pytest.raises(
        InputError,
        match=r"unknown configuration ''\. Known: checkerboard, cifar10, cifar10_unet, digits",
    ):
        find_config("")


def test_an_unknown_key_is_answered_with_the_nearest_and_where_all_are_listed():
    check_config_keys(["--config.train.steps=5", "--workdir=x"])
    with pytest.raises(InputError, match=r"Nearest: train\.steps.*--help-config` lists them all"):
        check_config_keys(["--config.train.stepz=5"])


def test_programs_of_another_cpu_are_kept_elsewhere(tmp_path):
    here, there = (compilation_folder(tmp_path, flags) for flags in ("sse avx2", "sse avx512f"))
    assert here.parent == there.parent == tmp_path / "fmjax"
    assert here != there
    assert compilation_folder(tmp_path, "sse avx2") == here


@pytest.mark.slow
def test_compiled_programs_are_kept_in_the_users_cache(tmp_path):
    flags = ["--config=configs/toy2d.py", "--config.train.steps=2", "--config.train.log_every=2"]
    flags += ["--config.train.checkpoint_every=2", "--config.optimizer.warmup_steps=1"]
    flags += ["--config.eval.num=0", f"--workdir={tmp_path / 'run'}"]
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_ENABLE_COMPILATION_CACHE": "true"}
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    inherited = os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    try:
        done = run("train.py", *flags, **env)
    finally:
        if inherited is not None:
            os.environ["JAX_COMPILATION_CACHE_DIR"] = inherited
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache" / "fmjax").glob("compiled-*/*step*"))


ODD = [
    ({"JAX_PLATFORMS": "tpu"}, [], "no device of JAX_PLATFORMS='tpu' is found"),
    ({"JAX_DISABLE_JIT": "1"}, [], "unset JAX_DISABLE_JIT"),
    ({}, [b"--workdir=\xff"], r"'--workdir=\udcff' is not UTF-8"),
    ({}, ["--config=EXITS"], "ends the program (sys.exit)"),
]


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(("env", "flags", "sentence"), ODD)
def test_an_odd_environment_gets_one_sentence(tmp_path, env, flags, sentence):
    exits = tmp_path / "exits.py"
    exits.write_text("import sys\n\ndef get_config():\n    sys.exit(0)\n")
    flags = [exits if flag == "--config=EXITS" else flag for flag in flags]
    flags = [f"--config={flag}" if flag is exits else flag for flag in flags]
    command = [sys.executable, str(ROOT / "train.py"), *(flags or ["--config=toy2d"])]
    if not any("workdir" in str(flag) for flag in flags):
        command.append(f"--workdir={tmp_path / 'run'}")
    if "--config" not in str(command):
        command.append("--config=toy2d")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | env,
        capture_output=True,
        timeout=120,
        check=False,
    )
    (line,) = done.stderr.decode().strip().splitlines()
    assert (done.returncode, line.startswith("train.py: ")) == (2, True)
    assert sentence in line
    assert not (tmp_path / "run").exists()


def test_without_a_home_nothing_is_cached_and_the_data_are_asked_for(monkeypatch):
    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    cli._keep_compiled()
    with pytest.raises(InputError, match=r"no home directory for ~/.*; write data\.dir"):
        data_root()


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--help", "--help-config"])
def test_a_reader_that_leaves_is_no_fault(flag):
    line = f"{sys.executable} train.py --config=digits {flag} | head -1"
    done = subprocess.run(line, cwd=ROOT, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
