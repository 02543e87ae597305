"""Tries a case, in this process or in one of its own, and says what it does not hold."""

import contextlib
import importlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from absl import app, flags
from absl.testing import flagsaver

from benchmarks.faults.odd_cases.case import Case, set_up, watched
from benchmarks.machine import ROOT
from fmjax import __main__ as program
from fmjax.run import cli  # noqa: F401  for the flags that absl defines when it is imported

CODES = (0, 2, 3, 4)
SECONDS = 10  # of the processor: a machine may be busy with other things
STOP = 300  # by the clock, after which a case is taken to hang
_BAR = re.compile(r"^[\w /]*:? *\d+%\|| \[\d\d:\d\d")
# What a training says before it meets what is wrong.
_BEGAN = re.compile(r"^training: |^compiled the step in ")


class Answer(NamedTuple):
    """The exit code of a command, what it wrote to the standard error, and its seconds."""

    code: object
    said: str
    seconds: float


class Outcome(NamedTuple):
    """What became of a case: its answer, and "" or what was wrong with it."""

    code: object
    said: str
    seconds: float
    wrong: str


def hold(case: Case, world: Path, answer: Callable[[Case, Path], Answer]) -> Outcome:
    """Tries a case and checks its end."""
    for _ in range(2):  # the first one of a kind compiles: late is what is late again
        set_up(case, world)
        before = watched(world)
        code, said, seconds = answer(case, world)
        if seconds < SECONDS:
            break
    wrong = _wrong(case.command, code, said)
    if seconds > SECONDS:
        wrong.append(f"it took {seconds:.1f} s of the processor")
    after = watched(world)
    wrong += [
        f"{path} was changed" for path in before | after if before.get(path) != after.get(path)
    ]
    return Outcome(code, said, seconds, "; ".join(wrong))


def _wrong(command: str, code: object, said: str) -> list[str]:
    lines = [line for line in re.split(r"[\r\n]+", said) if line.strip()]
    lines = [line for line in lines if not _BAR.search(line) and not _BEGAN.search(line)]
    if code not in CODES:
        return [f"the exit code is {code}: {_ends(said)}"]
    if "Traceback" in said:
        return [f"a traceback: {_ends(said)}"]
    if code != 0 and (len(lines) != 1 or not lines[0].startswith(f"fmjax {command}: ")):
        return [f"not one sentence: {_ends(said)}"]
    return []


def _ends(said: str) -> str:
    """What was said; of much, the first part, which names the error, and the last one."""
    return said if len(said) <= 4000 else f"{said[:2500]} ... {said[-1500:]}"


class _Hangs(BaseException):
    pass


@contextlib.contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Hangs(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def in_this_process(case: Case, world: Path) -> Answer:
    """The command as a function of this process."""
    with _flags_as_before(case.command):
        said, began = io.StringIO(), time.process_time()
        sys.argv = ["fmjax", case.command, *case.flags]
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                with _no_longer_than(STOP):
                    program.main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                code = 1
                said.write(traceback.format_exc())
    return Answer(code, said.getvalue(), time.process_time() - began)


@contextlib.contextmanager
def _flags_as_before(command: str) -> Iterator[None]:
    """Takes back what a command does to the flags of absl, which are those of the process."""
    if command == "prepare":  # has none
        yield
        return
    importlib.import_module(f"fmjax.run.{command}.command")  # else its flags are taken back too
    app.define_help_flags()
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        yield


def in_a_process_of_its_own(case: Case, world: Path) -> Answer:
    """The command as a user starts it."""
    began = _of_children()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fmjax", case.command, *map(os.fsencode, case.flags)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=STOP,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return Answer("none", f"no end after {STOP} s: {late.stderr}", _of_children() - began)
    said = done.stderr.decode(errors="replace")
    return Answer(done.returncode, said, _of_children() - began)


def _of_children() -> float:
    """The seconds that the processor has given to processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
