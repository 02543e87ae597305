"""The command ``fmjax``: it finds the others, and a mistake gets one sentence."""

import importlib
import sys

import pytest

from fmjax import __main__ as program


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["fmjax", *arguments])
    try:
        program.main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code
    return code, capsys.readouterr()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_it_lists_its_commands(monkeypatch, capsys, arguments):
    code, said = run(monkeypatch, capsys, *arguments)
    assert code == 0
    for name, what in program.COMMANDS.items():
        assert f"{name.ljust(10)}  {what}" in said.out


def test_an_unknown_command_is_answered_with_the_nearest(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "smaple")
    assert code == 2
    assert "unknown command 'smaple'. Did you mean 'sample'?" in said.err


@pytest.mark.parametrize(("module", "ours"), [("grain.python", False), ("fmjax.gone", True)])
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, capsys, module, ours):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(importlib, "import_module", missing)
    if ours:  # a defect of fmjax, and not of what is installed
        with pytest.raises(ModuleNotFoundError, match=r"fmjax\.gone"):
            run(monkeypatch, capsys, "train")
        return
    code, said = run(monkeypatch, capsys, "train")
    assert code == 2
    assert "train needs the package grain.python" in said.err
    assert 'pip install "fmjax[train]"' in said.err


FLAGS = {
    "train": "--init_from",
    "sample": "--guidance",
    "evaluate": "--interval",
    "likelihood": "--probes",
    "reflow": "--rounds",
    "distill": "--method",
    "weights": "--dtype",
    "compile": "--topology",
    "prepare": "--source",
}


@pytest.mark.slow
def test_every_command_prints_its_own_help(commands):
    """The flags of the command and what it does, not those of the program that starts it."""
    assert FLAGS.keys() == program.COMMANDS.keys()
    started = {name: commands.start("fmjax/__main__.py", name, "--help") for name in FLAGS}
    for name, command in started.items():
        command.wait()
        assert FLAGS[name] in command.output, (name, command.output)
        assert f"fmjax {name}" in command.output
