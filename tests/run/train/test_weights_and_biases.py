"""The log at Weights & Biases, of a package that stands in for theirs."""

import sys
from types import ModuleType

import pytest

from fmjax.errors import InputError
from fmjax.run.train.weights_and_biases import check_installed, logged


class Kept:
    """What ``wandb.init`` gives, and what came to it."""

    def __init__(self, **asked):
        self.asked, self.logged, self.ended = asked, [], False

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        self.logged.append(values)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True


@pytest.fixture
def runs(monkeypatch):
    """The runs that were begun, newest last."""
    found, module = [], ModuleType("wandb")

    def init(**asked):
        found.append(Kept(**asked))
        return found[-1]

    module.init, module.Image = init, lambda path: ("image", path)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return found


def test_scalars_and_pictures_reach_the_project(runs, tmp_path):
    with logged("flows", tmp_path / "digits", {"seed": 3}, 0) as log:
        log.scalars(50, {"loss": 0.5})
        log.picture(100, tmp_path / "final.png")
    (run,) = runs
    assert run.logged == [
        {"step": 50, "loss": 0.5},
        {"step": 100, "samples": ("image", str(tmp_path / "final.png"))},
    ]
    assert (run.asked["project"], run.asked["name"]) == ("flows", "digits")
    assert run.asked["config"] == {"seed": 3}
    assert run.ended


def test_a_run_that_goes_on_goes_on_there_and_a_new_one_begins_anew(runs, tmp_path):
    for folder, start in [("a", 0), ("a", 500), ("b", 0)]:
        with logged("flows", tmp_path / folder, {}, start):
            pass
    first, later, other = (run.asked for run in runs)
    assert first["id"] == later["id"] != other["id"]
    assert (first["resume"], later["resume"]) == (None, "allow")


def test_an_error_of_theirs_costs_no_training(runs, tmp_path, capsys):
    with logged("flows", tmp_path, {}, 0) as log:
        runs[0].log = lambda values: 1 / 0
        log.scalars(1, {"loss": 1.0})
        log.scalars(2, {"loss": 1.0})
    assert capsys.readouterr().out.count("the training goes on without it") == 1


def test_what_does_not_begin_is_one_sentence(runs, tmp_path, monkeypatch):
    def refuse(**asked):
        raise RuntimeError("No API key configured.")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(InputError, match=r"No API key configured\. Log in by"):
        logged("flows", tmp_path, {}, 0).__enter__()


def test_the_package_is_asked_for_only_where_it_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_installed(None)
    with pytest.raises(InputError, match="pip install wandb"):
        check_installed("flows")
    with logged(None, tmp_path, {}, 0) as log:
        log.scalars(1, {"loss": 1.0})
        log.picture(1, tmp_path / "no.png")
