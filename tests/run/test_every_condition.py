"""Every kind of condition at once, from training to samples and to an exported sampler."""

import jax
import jax.export
import numpy as np
import pytest

from fmjax.factory import Guidance, Recipe
from fmjax.run.sample.export import export_run
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.train.training import train
from fmjax.samplers import solver_spec
from tests.run import every_condition
from tests.run.conftest import small_config

NAME = "tests.run.every_condition:load"
RECIPE = Recipe(solver_spec("euler", 2), Guidance())
DIT = {"model__name": "dit", "model__patch_size": 2, "model__width": 16, "model__heads": 2}


@pytest.mark.day_cases(1)
@pytest.mark.parametrize(
    "network",
    [pytest.param({}, id="mlp"), pytest.param(DIT, id="dit", marks=pytest.mark.slow)],
)
def test_a_run_is_trained_and_sampled_and_exported_under_every_kind(network, tmp_path):
    run, file = tmp_path / "run", tmp_path / "file.npz"
    config = small_config(data__name=NAME, train__steps=4, labels__drop_all=0.1, **network)
    assert train(config, run) == 0
    images, given = every_condition.arrays(1)
    asked = {name: x[:6] for name, x in given.items()}
    np.savez(file, **asked)  # as a user has them: int64, float64, uint8
    request = Request(None, file, (2.0,))
    sample(run, tmp_path / "out", request, RECIPE)
    with np.load(tmp_path / "out" / "samples.npz") as content:
        samples, labels = content["samples"], {name: content[name] for name in given}
    assert (samples.shape, samples.dtype) == ((6, *images.shape[1:]), np.uint8)
    np.testing.assert_array_equal(labels["text_mask"], asked["text_mask"])
    np.testing.assert_allclose(labels["photo"], asked["photo"] / 127.5 - 1, atol=1e-6)

    export_run(run, tmp_path / "sampler", request, RECIPE)
    sampler = jax.export.deserialize(bytearray((tmp_path / "sampler").read_bytes()))
    drawn = sampler.call(np.uint32(0), np.arange(6, dtype=np.int32), labels, np.full(6, 2.0, "f4"))
    # A grey level may tip where a sample lies between two.
    assert np.abs(np.asarray(drawn, int) - samples.astype(int)).max() <= 1
