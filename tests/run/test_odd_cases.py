"""No command line, configuration or file makes a command end otherwise than documented."""

import json
import shutil

import pytest

from fmjax.__main__ import COMMANDS
from tests.run.forked import finish

pytest.importorskip("hypothesis")

NUMBERS = {
    "prepare": 120,
    "train": 40,
    "compile": 60,
    "weights": 40,
    "evaluate": 15,
    "likelihood": 15,
    "sample": 15,
    "reflow": 15,
    "distill": 10,
}


@pytest.fixture(scope="module")
def world(commands, trained, tmp_path_factory):
    """What cases begin with."""
    world = tmp_path_factory.mktemp("odd") / "world"
    code = """
        import sys
        from pathlib import Path
        from benchmarks.faults.odd_cases.case import fill
        fill(*map(Path, sys.argv[1:]))
    """
    finish(commands.start_code(code, world, trained))
    return world


def counts_of(commands, world, tmp_path, command, number):
    code = """
        import sys
        from pathlib import Path
        from benchmarks.faults.odd_cases.tried import try_cases
        command, number, world, out = sys.argv[1:]
        try_cases(command, int(number), 2, Path(world), Path(out))
    """
    own = shutil.copytree(world, tmp_path / "world", symlinks=True)
    out = tmp_path / "counts.json"
    (output,) = finish(commands.start_code(code, command, number, own, out))
    return json.loads(out.read_text()), output


def test_every_command_is_tried():
    from benchmarks.faults.odd_cases.__main__ import SHARES
    from benchmarks.faults.odd_cases.draw import BASE

    assert COMMANDS.keys() == NUMBERS.keys() == BASE.keys() == SHARES.keys()


# A case of these trains, or reads a trained model: seconds each.
SLOW = {"train", "reflow", "distill", "evaluate", "likelihood"}


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=[pytest.mark.nightly] if c in SLOW else []) for c in NUMBERS],
)
def test_odd_cases_end_as_documented(commands, world, tmp_path, command):
    counts, output = counts_of(commands, world, tmp_path, command, NUMBERS[command])
    assert counts["failed"] == 0, output
    assert counts["cases"] == NUMBERS[command]
