"""The network of docs/extending is trained and sampled as the networks of fmjax are."""

import json

import jax
import numpy as np
import pytest

from fmjax.factory import Guidance, Recipe
from fmjax.run.restore import open_run
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.train import report
from fmjax.run.train.loop import train
from fmjax.samplers.ode import solver_spec
from tests.conftest import ROOT
from tests.run.conftest import small_config


@pytest.fixture
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "extending"))
    monkeypatch.setattr(report, "save_overview", lambda *arguments: None)


@pytest.mark.usefixtures("on_path")
def test_a_network_of_ones_own_is_trained_and_sampled(tmp_path):
    config = small_config(
        model__name="residual_network:build",
        optimizer__learning_rate=0.05,
    )
    assert train(config, tmp_path / "run") == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert losses[-1] < losses[0]
    experiment = open_run(tmp_path / "run")
    assert (experiment.flops, experiment.sharding_rules) == (None, ())
    params = jax.eval_shape(experiment.init_params, jax.random.key(0))
    assert params["layer_0"]["kernel"].shape == (16, 16)
    assert params["condition"].keys() == {"time", "label"}
    recipe = Recipe(solver_spec("heun", 2), Guidance())
    sample(tmp_path / "run", tmp_path / "out", Request(8, w=(2.0,)), recipe)
    with np.load(tmp_path / "out" / "samples.npz") as content:
        assert content["samples"].shape == (8, 2)
        assert len(np.unique(content["samples"], axis=0)) == 8
        assert np.isfinite(content["samples"]).all()
