"""No command line and no damaged record makes a command end otherwise than documented."""

import pytest

from tests.run.forked import finish

COMMANDS = ("sample", "train", "weights", "evaluate", "likelihood", "reflow")


@pytest.mark.parametrize("command", COMMANDS)
def test_odd_cases_end_as_documented(commands, trained, tmp_path, command):
    pytest.importorskip("hypothesis")
    folder = tmp_path / "tried"
    folder.mkdir()
    (output,) = finish(commands.start("tests/run/odd_cases.py", command, trained, folder, 40))
    assert "all held" in output


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_many_odd_cases_end_as_documented(commands, trained, tmp_path, command):
    pytest.importorskip("hypothesis")
    folder = tmp_path / "tried"
    folder.mkdir()
    (output,) = finish(commands.start("tests/run/odd_cases.py", command, trained, folder, 400))
    assert "all held" in output
