"""The pieces of docs/extending, found by name, in runs small enough for a test."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fmjax.factory import Experiment, Recipe
from fmjax.factory.registry import make_solver
from fmjax.run.restore import open_run
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.train import report
from fmjax.run.train.training import train
from tests.conftest import ROOT
from tests.run.conftest import small_config


class Trained(NamedTuple):
    """A run that was trained and sampled."""

    experiment: Experiment
    losses: list[float]
    samples: dict[str, np.ndarray]
    record: dict
    folder: Path


@pytest.fixture
def own_pieces(monkeypatch):
    """Puts docs/extending where modules are found."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "extending"))
    monkeypatch.setattr(report, "save_overview", lambda *arguments: None)


@pytest.fixture
def run_of(own_pieces, tmp_path):
    """``run_of(solver="heun", **changes)``: trains and samples through the commands' functions."""

    def run(solver: str = "heun", **changes) -> Trained:
        config = small_config(**{"optimizer__learning_rate": 0.05} | changes)
        assert train(config, tmp_path / "run") == 0
        sample(tmp_path / "run", tmp_path / "out", Request(8), Recipe(make_solver(solver, 2)))
        lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
        with np.load(tmp_path / "out" / "samples.npz") as content:
            samples = dict(content)
        assert len(np.unique(samples["samples"], axis=0)) > 4
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        losses = [line["loss"] for line in lines if "loss" in line]
        return Trained(open_run(tmp_path / "run"), losses, samples, record, tmp_path)

    return run
