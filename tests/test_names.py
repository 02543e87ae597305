"""What a record may name: dataclasses, of fmjax's modules and of the user's own."""

import sys

import pytest

from fmjax.data.codecs import Vectors
from fmjax.errors import InputError
from fmjax.names import check_names, describe, load_object, matching, rebuild


def test_a_dataclass_comes_back():
    assert rebuild(describe({"codec": Vectors(2)})) == {"codec": Vectors(2)}


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "jax:jit", "fmjax:solve"])
def test_nothing_but_a_dataclass_is_made(name):
    with pytest.raises(InputError, match=r"is no dataclass|is of Python's standard library"):
        rebuild({"type": name})


@pytest.mark.parametrize("name", ["os:abort", "subprocess:Popen", "xml.dom:Node"])
def test_a_name_of_the_standard_library_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"names {name}, .* is Python's own"):
        check_names({"config": {"data": {"name": name}}}, tmp_path)


@pytest.mark.parametrize("name", ["os:abort", "os.path:join", "sys:exit"])
def test_nothing_of_the_standard_library_is_called(name):
    with pytest.raises(InputError, match=f"a schedule '{name}' is of Python's standard library"):
        load_object("a schedule", name)


def test_a_module_in_the_folder_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with pytest.raises(InputError, match="lies in"):
        check_names([["evil_module:f"]], tmp_path)
    assert "evil_module" not in sys.modules


def test_a_module_of_the_users_own_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_module.py").write_text("")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    check_names(
        {"a": "own_module:f", "b": "fmjax.paths:Linear", "c": "a text: b"}, tmp_path / "run"
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert "names own_module:f, which is imported from" in line


TREE = {"blocks": {"mlp": {"up": 1, "down": 2}, "norm": 3}, "out": 4}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), []),
        (("out",), ["out"]),
        (("blocks/*",), ["blocks/mlp/down", "blocks/mlp/up", "blocks/norm"]),
        (("*/up", "o*"), ["blocks/mlp/up", "out"]),
    ],
)
def test_patterns_choose_leaves_by_name(patterns, names):
    assert sorted(matching(patterns, TREE, "frozen")) == names


def test_a_pattern_that_chooses_nothing_is_told_what_there_is():
    with pytest.raises(InputError, match=r"frozen: no parameter matches 'mlp/\*'; there are b"):
        matching(("out", "mlp/*"), TREE, "frozen")
    for wrong in ("out", (1,)):
        with pytest.raises(InputError, match="frozen must be a tuple of patterns"):
            matching(wrong, TREE, "frozen")
