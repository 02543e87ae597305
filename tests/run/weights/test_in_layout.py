"""A run's parameters out under published names: to the bit, and never as something they are not."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from fmjax.errors import InputError
from fmjax.models import pretrained
from fmjax.run.restore import load_params, open_run
from fmjax.run.train import report
from fmjax.run.train.training import train
from fmjax.run.weights.export import export_weights
from fmjax.run.weights.in_layout import export_in_layout
from fmjax.run.weights.initial import Initial, initial_params
from fmjax.training.mesh import make_mesh
from tests.models.pretrained.test_goldens import OFFICIAL, tiny
from tests.run.weights.test_published import assert_same, config

FROZEN = "patch/*,condition/*,blocks/*,adaln/*"


def run_of(workdir, **changes):
    """A short run of the network of the official golden file; its last layer alone is trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "save_overview", lambda *arguments: None)
        asked = config(train__steps=4, train__frozen=FROZEN, **changes)
        assert train(asked, workdir, init_from=OFFICIAL, init_layout="sit") == 0
    return workdir


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("tuned") / "run")


@pytest.mark.slow
def test_what_was_not_trained_is_as_in_the_file_to_the_bit(tuned, tmp_path):
    for ema in (True, False):
        out = tmp_path / f"{ema}.safetensors"
        written = export_in_layout(tuned, out, "sit", ema=ema)
        assert written.startswith(f"{out}: step 4 as an official SiT, ")
        found, original = load_file(out), load_file(OFFICIAL)
        assert found.keys() == original.keys()
        for name, tensor in found.items():
            same = tensor.tobytes() == original[name].astype(np.float32).tobytes()
            assert same == (not name.startswith("final_layer.linear")) or name == "pos_embed"
        params = load_params(tuned, open_run(tuned), "latest", ema, make_mesh())[1]
        net = pretrained.load(out, "sit", model=tiny())
        assert_same(net.params, params)
        begun = initial_params(Initial(out, "sit"), open_run(tuned), make_mesh())
        assert_same(begun, params)


@pytest.mark.slow
def test_an_exported_folder_serves_as_the_run_does(tuned, tmp_path):
    export_weights(tuned, tmp_path / "folder")
    for source in (tuned, tmp_path / "folder"):
        export_in_layout(source, tmp_path / "x.safetensors", "sit", overwrite=True)
        export_in_layout(source, tmp_path / f"{source.name}.safetensors", "sit", dtype="bfloat16")
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("run", "folder"))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


WRONG = {
    # arguments, and the message
    "an unknown layout": ({"layout": "sti"}, r"unknown layout 'sti'.*Known: .*diffusers-dit"),
    "another meaning": (
        {"layout": "dit"},
        r"predicts velocity on .*--layout=dit, an official DiT, stands for x0 on .*DiscreteVP",
    ),
    "another network": ({"layout": "torchcfm-unet"}, "is a UNet; got model of type DiT"),
    "an autoencoder": ({"layout": "taesd"}, "is a TinyAutoencoder; got model of type DiT"),
    "a dtype": ({"dtype": "float8"}, "unknown dtype 'float8'"),
    "a folder": ({"out": "folder"}, r"ends in \.safetensors here; got .*folder: write --out="),
    "a checkpoint": ({"checkpoint": "3"}, "no checkpoint of step 3"),
}


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_said_and_leaves_nothing(name, tuned, tmp_path):
    changes, message = WRONG[name]
    given = {"out": "x.safetensors", "layout": "sit", **changes}
    with pytest.raises(InputError, match=message) as error:
        export_in_layout(tuned, tmp_path / given.pop("out"), given.pop("layout"), **given)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_a_file_is_not_replaced_unless_it_is_asked(tuned, trained, tmp_path, monkeypatch):
    out = tmp_path / "x.safetensors"
    out.write_text("mine")
    with pytest.raises(InputError, match="is there already; give another --out, or --overwrite"):
        export_in_layout(tuned, out, "sit")
    assert out.read_text() == "mine"
    with pytest.raises(InputError, match="an official SiT is a DiT; got model of type MLP"):
        export_in_layout(trained, out, "sit")
    full = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match="MB free, and the parameters need"):
        export_in_layout(tuned, out, "sit", overwrite=True)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (tiny(time_scale=1000.0), "has time_scale=1.0, and model has 1000.0"),
        (tiny(conditions=None), "an official SiT cannot be this DiT: .*labels"),
    ],
)
def test_a_network_that_the_layout_cannot_hold_is_refused(model, message):
    with pytest.raises(InputError, match=message):
        pretrained.outline_of("sit", model, (8, 8, 4))


def test_an_outline_says_what_a_file_stands_for():
    net = pretrained.outline_of("sit", tiny(), (8, 8, 4))
    assert (net.prediction, net.family, net.shape) == ("velocity", "sit", (None, None, 4))
    assert net.params is None
