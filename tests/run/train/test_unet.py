"""A U-Net trains by its name in a configuration, and is there again afterwards."""

import json

import jax
import numpy as np
import pytest

from fmjax.models.unet import UNet
from fmjax.run.restore import open_run, restore_flow

SIZES = {"width": 32, "depth": 1, "heads": 2, "channel_mult": "1", "attention_factors": "none"}


@pytest.mark.nightly
def test_a_unet_trains_by_its_name(train_small):
    changes = {f"model__{name}": value for name, value in SIZES.items()}
    workdir = train_small(
        data__name="digits",
        model__name="unet",
        train__steps=4,
        train__log_every=2,
        optimizer__learning_rate=1e-3,
        **changes,
    )
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    flow = restore_flow(workdir, open_run(workdir))
    x, t = np.ones((2, 8, 8, 1), np.float32), np.full(2, 0.5, np.float32)
    out = jax.jit(flow.experiment.apply_fn)(flow.params, x, t, np.arange(2))
    assert out.shape == x.shape
    assert np.abs(out).max() > 0
    assert flow.experiment.flops > 0
    assert flow.experiment.sharding_rules == UNet.sharding_rules
