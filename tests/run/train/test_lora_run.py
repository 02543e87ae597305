"""A run of LoRA trains adapters beside another run, and is its merged network for whoever asks."""

import jax
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.factory import Recipe, make_experiment
from fmjax.factory.lora import without_lora
from fmjax.run.restore import load_params, open_run, read_parameters
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.train import report
from fmjax.run.train.training import train
from fmjax.run.weights.adapters import export_adapters
from fmjax.run.weights.export import export_weights
from fmjax.run.weights.initial import Initial, initial_params
from fmjax.run.workdir import load_record
from fmjax.samplers import solver_spec
from fmjax.storage.safetensors import named
from fmjax.training import lora
from fmjax.training.mesh import make_mesh
from tests.run.conftest import small_config

LORA = {"lora__rank": 1, "lora__alpha": 3.0, "lora__patterns": "hidden_*,out/*"}
CONSTANT = {"optimizer__schedule": "constant"}  # one that does not end with the steps


def run_of(workdir, source, steps=8):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "save_overview", lambda *arguments: None)
        config = small_config(**LORA, **CONSTANT, train__steps=steps)
        assert train(config, workdir, init_from=source) == 0
    return workdir


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("tuned") / "run", trained)


def merged_of(workdir, ema=True):
    return load_params(workdir, open_run(workdir), "latest", ema, make_mesh())[1]


def both_of(workdir, ema=True):
    return read_parameters(workdir, open_run(workdir).adapted, "latest", ema, make_mesh())[1]


def assert_same(one, other):
    one, other = named(one), named(other)
    assert list(one) == list(other)
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[name], err_msg=name)


@pytest.mark.slow
def test_the_network_it_began_with_stays_and_the_merged_one_does_the_same(tuned, trained):
    run, x = open_run(tuned), jax.random.normal(jax.random.key(0), (4, 2))
    t, labels = np.linspace(0.1, 0.9, 4, dtype=np.float32), np.array([0, 1, 2, 0])
    assert load_record(tuned).began["from"] == str(trained)
    for ema in (True, False):
        both, merged = both_of(tuned, ema), merged_of(tuned, ema)
        assert_same(both["base"], merged_of(trained))
        assert (both["adapters"].rank, both["adapters"].alpha) == (1, 3.0)
        assert set(both["adapters"].kernels) == {"hidden_0", "out"}
        found = jax.jit(run.apply_fn)(merged, x, t, labels)
        expected = jax.jit(run.adapted.apply_fn)(both, x, t, labels)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(found - jax.jit(run.apply_fn)(both["base"], x, t, labels)).max() > 1e-4


@pytest.mark.slow
def test_it_goes_on_without_being_told_again_what_it_began_with(tuned, trained, tmp_path):
    workdir = run_of(tmp_path / "run", trained, steps=4)
    assert train(small_config(**LORA, **CONSTANT, train__steps=8), workdir) == 0
    assert_same(both_of(workdir), both_of(tuned))


@pytest.mark.slow
def test_samples_are_those_of_the_merged_network(tuned, tmp_path):
    folder = tmp_path / "folder"
    assert "step 8" in export_weights(tuned, folder)
    assert open_run(folder).adapted is None
    assert_same(merged_of(folder), merged_of(tuned))
    drawn = []
    for k, source in enumerate((tuned, folder)):
        sample(source, tmp_path / str(k), Request(6, (0, 1)), Recipe(solver_spec("heun", 2)))
        drawn.append(np.load(tmp_path / str(k) / "samples.npz")["samples"])
    np.testing.assert_array_equal(*drawn)


@pytest.mark.slow
def test_another_run_begins_with_the_merged_network(tuned, trained):
    config = small_config()
    experiment = make_experiment(config, load_record(tuned).spec)
    found = initial_params(Initial(tuned), experiment, make_mesh())
    assert_same(found, merged_of(tuned))


def test_the_adapters_alone_are_a_file(tuned, trained, tmp_path):
    out = tmp_path / "adapters.safetensors"
    assert export_adapters(tuned, out) == f"{out}: adapters of rank 1, step 8"
    adapters = lora.load(out)
    assert_same(adapters.kernels, both_of(tuned)["adapters"].kernels)
    merged = named(lora.merge(merged_of(trained), adapters))
    for name, leaf in named(merged_of(tuned)).items():
        np.testing.assert_allclose(merged[name], leaf, atol=1e-6, err_msg=name)
    with pytest.raises(InputError, match="is there already; give another --out, or --overwrite"):
        export_adapters(tuned, out)
    with pytest.raises(InputError, match=r"ends in \.safetensors here; got .*folder"):
        export_adapters(tuned, tmp_path / "folder")
    with pytest.raises(InputError, match=r"holds no adapters: it was not trained with lora\.rank"):
        export_adapters(trained, tmp_path / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


WRONG = {
    # changes of the configuration, and the message
    "nothing to begin with": (LORA, "lora.rank=1 trains adapters beside a trained network: give"),
    "frozen": ({**LORA, "train__frozen": "out/*"}, "leave train.frozen=out/. out"),
    "no rank": ({"lora__alpha": 2.0}, "lora.alpha=2.0 and .* give lora.rank=8, say"),
    "no kernel": (
        {"lora__rank": 1, "lora__patterns": "out/bias"},
        r"the patterns of LoRA: no parameter matches 'out/bias'; there are .*out/kernel",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_said_before_the_folder_is_made(name, tmp_path):
    changes, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        train(small_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_configuration_without_its_adapters_is_another_object():
    config = small_config(**LORA)
    assert without_lora(config) == small_config()
    assert config == small_config(**LORA)
