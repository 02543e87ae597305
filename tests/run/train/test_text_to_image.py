"""The networks of images and texts train by their names, and are there again afterwards."""

import json

import jax
import numpy as np
import pytest

from fmjax.conditions import as_labels
from fmjax.run.restore import open_run, restore_flow
from tests.run import texts

SIZES = {"width": 16, "depth": 2, "heads": 2, "patch_size": 2}


@pytest.mark.parametrize(
    "network",
    [
        pytest.param({"name": "mmdit", "grid": 2}, id="mmdit", marks=pytest.mark.slow),
        pytest.param({"name": "flux", "single_depth": 1}, id="flux", marks=pytest.mark.nightly),
    ],
)
def test_it_trains_on_a_text(train_small, network):
    workdir = train_small(
        data__name="tests.run.texts:load",
        train__steps=2,
        optimizer__warmup_steps=0,
        train__log_every=1,
        **{f"model__{name}": value for name, value in (SIZES | network).items()},
    )
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    flow = restore_flow(workdir, open_run(workdir))
    x, t = np.ones((2, 4, 4, 1), np.float32), np.full(2, 0.5, np.float32)
    given = {name: a[:2] for name, a in texts.arrays(0)[1].items()}
    labels = as_labels(given, flow.experiment.conditions)
    out = jax.jit(flow.experiment.apply_fn)(flow.params, x, t, labels)
    assert out.shape == x.shape
    assert np.abs(out).max() > 0
    assert flow.experiment.flops > 0
