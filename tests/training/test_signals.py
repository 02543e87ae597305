"""The first signal is remembered, so that a training saves; a second one ends it at once."""

import os
import signal
import subprocess
import sys

import pytest

from fmjax.training.signals import Signals
from tests.conftest import ROOT

WATCHED = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.mark.parametrize("number", WATCHED)
def test_the_first_is_remembered_and_afterwards_all_is_as_before(number):
    before = {each: signal.getsignal(each) for each in WATCHED}
    with Signals() as signals:
        assert signals.received(agree=True) == 0
        os.kill(os.getpid(), number)
        assert signals.received(agree=True) == number
        assert {each: signal.getsignal(each) for each in WATCHED} == before
    assert {each: signal.getsignal(each) for each in WATCHED} == before


def test_where_none_is_watched_they_end_the_program_as_ever():
    with Signals(watch=False) as signals:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.received(agree=True) == 0


def test_one_that_was_ignored_stays_so(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received(agree=True) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


# A step, or a save, that never ends: only a signal can end it.
STUCK = """
import signal, time
from fmjax.training.signals import Signals

# What a shell starts in the background, or under nohup, ignores these two from the start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with Signals() as signals:
    print("ready", flush=True)
    while not signals.received(agree=True):
        time.sleep(0.01)
    print("remembered", flush=True)
    time.sleep(600)
"""


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGHUP), (15, signal.SIGINT)],
)
def test_a_second_one_ends_a_program_that_is_stuck(first, second):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    with child:
        try:
            assert child.stdout.readline() == "ready\n"
            child.send_signal(first)
            assert child.stdout.readline() == "remembered\n"
            child.send_signal(second)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    if second == signal.SIGINT:
        assert said.strip().endswith("KeyboardInterrupt")
    else:
        assert child.returncode == -second
