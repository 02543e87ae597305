"""Published weights begin a run: the same numbers, or one sentence before any is read."""

import argparse
import json
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax.conditions import ClassIds, Sequence, Vector
from fmjax.data.codecs import Pixels
from fmjax.errors import InputError
from fmjax.factory import make_experiment, spec_of
from fmjax.factory.data_spec import DataSpec
from fmjax.factory.settings import DataSettings
from fmjax.losses import make_loss_fn
from fmjax.models import flux, pretrained
from fmjax.models.autoencoders import TinyAutoencoder
from fmjax.models.dit import DiT
from fmjax.models.pretrained import loading
from fmjax.predictions import as_velocity
from fmjax.run.restore import load_params, open_run
from fmjax.run.train import report
from fmjax.run.train.training import train
from fmjax.run.weights.in_layout import export_in_layout
from fmjax.run.weights.initial import Initial, check_initial, initial_params
from fmjax.run.workdir import load_record
from fmjax.storage.fingerprint import fingerprint
from fmjax.storage.safetensors import named
from fmjax.training.mesh import make_mesh
from tests.conftest import nightly_but
from tests.models.pretrained.test_goldens import DIFFUSERS, OFFICIAL, tiny
from tests.models.pretrained.test_text_to_image import GOLDEN as TEXT_TO_IMAGE
from tests.run.conftest import small_config

# The network of the official golden file.
DIT = {
    "data__name": "random/8x8x4/5",
    "model__name": "dit",
    "model__width": 16,
    "model__depth": 2,
    "model__heads": 2,
    "model__patch_size": 2,
    "model__time_scale": 1.0,
    "model__variance": True,
    "train__batch_size": 4,
}
NOISE = {
    "model__at_steps": True,
    "path__name": "discrete_vp",
    "loss__prediction": "x0",
}
SIT = Initial(OFFICIAL, "sit")
TABLE = "condition.label.table"


def config(**changes):
    return small_config(**{**DIT, **changes})


def experiment(**changes):
    asked = config(**changes)
    return make_experiment(asked, spec_of(DataSettings(**asked.data).load()))


def assert_same(found, expected, but=()):
    found, expected = named(found), named(expected)
    assert list(found) == list(expected)
    for name in found.keys() - set(but):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", nightly_but(["jit", "pmap"], "jit"))
def test_a_run_begins_with_them_and_so_does_its_average(tmp_path, monkeypatch, parallel):
    monkeypatch.setattr(report, "save_overview", lambda *arguments: None)
    workdir = tmp_path / "run"
    asked = config(optimizer__learning_rate=1e-30, train__steps=4, train__val_every=0)
    how = {"parallel": parallel, "init_from": OFFICIAL, "init_layout": "sit"}
    assert train(asked, workdir, **how) == 0
    expected = pretrained.load(OFFICIAL, "sit", model=tiny()).params
    for ema in (False, True):
        step, found = load_params(workdir, open_run(workdir), "latest", ema, make_mesh())
        assert step == 4
        for name, leaf in named(found).items():
            np.testing.assert_allclose(leaf, named(expected)[name], rtol=1e-6, err_msg=name)
    began = load_record(workdir).began
    assert began == {
        "from": str(OFFICIAL),
        "layout": "sit",
        "fresh": [],
        "parameters": int(fingerprint(expected)),
    }
    asked.train.steps = 8  # resumed: what it began with stays in the record
    assert train(asked, workdir, **how) == 0
    assert load_record(workdir).began == began
    assert json.loads((workdir / "run.json").read_text())["began"]["from"] == str(OFFICIAL)


@pytest.mark.slow
def test_other_classes_begin_anew_and_all_else_is_taken(trained):
    initial = SIT._replace(fresh=("condition/label/*",))
    run = experiment(data__name="random/8x8x4/9")
    with pytest.raises(
        InputError, match=r"or --init_fresh=condition/label/table to begin that par"
    ):
        check_initial(SIT, run)
    found = initial_params(initial, run, make_mesh())
    assert_same(found, pretrained.load(OFFICIAL, "sit", model=tiny()).params, but=[TABLE])
    key = jax.random.key(run.train.seed)
    np.testing.assert_array_equal(named(found)[TABLE], named(jax.jit(run.init_params)(key))[TABLE])


@pytest.mark.slow
def test_of_a_run_some_parameters_begin_anew_too(trained):
    run, params = (
        open_run(trained),
        load_params(trained, open_run(trained), "latest", True, make_mesh())[1],
    )
    fresh = jax.jit(run.init_params)(jax.random.key(run.train.seed))
    found = initial_params(Initial(trained, fresh=("out/*",)), run, make_mesh())
    assert_same(found, params, but=["out.kernel", "out.bias"])
    assert_same(found["out"], fresh["out"])
    assert np.any(np.asarray(found["out"]["kernel"]) != np.asarray(params["out"]["kernel"]))


@pytest.mark.slow
def test_a_folder_of_them_is_no_run(tmp_path):
    net = pretrained.load(OFFICIAL, "sit", model=tiny())
    folder = tmp_path / "folder"
    pretrained.save(folder / "model.safetensors", net.params, "sit", net.model, shape=net.shape)
    (folder / "config.json").write_text("{}")
    assert_same(initial_params(Initial(folder, "sit"), experiment(), make_mesh()), net.params)


@pytest.fixture
def file_of_pytorch(tmp_path):
    """As the official training programs write it: the averaged weights and the command line."""
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(x) for key, x in load_file(OFFICIAL).items()}
    other = {key: torch.zeros_like(x) for key, x in tensors.items()}
    content = {"model": other, "ema": tensors, "opt": {}, "args": argparse.Namespace(epochs=80)}
    torch.save(content, tmp_path / "0400000.pt")
    return tmp_path / "0400000.pt"


def test_a_file_of_pytorch_begins_a_run_with_its_averaged_weights(file_of_pytorch):
    found = initial_params(Initial(file_of_pytorch, "sit"), experiment(), make_mesh())
    assert_same(found, pretrained.load(OFFICIAL, "sit", model=tiny()).params)
    with pytest.raises(InputError, match=r"write --init_layout=dit .* or --init_layout=sit"):
        check_initial(Initial(file_of_pytorch), experiment())


@pytest.mark.slow
def test_training_begins_with_a_file_of_pytorch(file_of_pytorch, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "save_overview", lambda *arguments: None)
    asked = config(train__steps=4, train__val_every=0)
    how = {"init_from": file_of_pytorch, "init_layout": "sit"}
    assert train(asked, tmp_path / "run", **how) == 0
    assert load_record(tmp_path / "run").began["from"] == str(file_of_pytorch)


def test_a_file_of_pytorch_needs_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "x.pt"
    path.write_bytes(b"a")
    with pytest.raises(InputError, match=r"x\.pt is a file of PyTorch, .* pip install torch"):
        check_initial(Initial(path, "sit"), experiment())


@pytest.mark.slow
def test_a_network_of_two_times_begins_as_the_flow():
    run = experiment(flow_map__name="meanflow")
    found = initial_params(SIT, run, make_mesh())
    net = pretrained.load(OFFICIAL, "sit", model=tiny())
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    t, labels = np.float32([0.2, 0.7]), np.array([0, 5])
    expected = jax.jit(net.apply_fn)(net.params, x, t, labels)
    np.testing.assert_allclose(jax.jit(run.apply_fn)(found, x, t, labels), expected, atol=1e-6)


@pytest.mark.slow
def test_an_official_dit_is_asked_for_the_noise_at_its_steps():
    run, initial = experiment(**NOISE), Initial(OFFICIAL, "dit")
    found = initial_params(initial, run, make_mesh())
    net = pretrained.load(OFFICIAL, "dit", model=tiny())
    assert_same(found, net.params)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    t, labels = np.float32([0.2, 0.7]), np.array([0, 5])
    velocity = as_velocity(net.apply_fn, net.path.schedule, net.prediction)
    expected = jax.jit(velocity)(net.params, x, t, labels)
    np.testing.assert_allclose(jax.jit(run.apply_fn)(found, x, t, labels), expected, atol=1e-5)
    loss_fn = make_loss_fn(net.apply_fn, net.path, prediction=net.prediction)
    noise = jax.random.normal(jax.random.key(1), x.shape)
    losses = [jax.jit(one)(found, noise, x, t, labels) for one in (run.loss_fn, loss_fn)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.slow
def test_a_network_of_texts_begins_with_published_ones():
    sizes = {"width": 16, "depth": 3, "heads": 2, "patch_size": 2, "grid": 6}
    asked = config(**{f"model__{k}": None for k in ("time_scale", "heads")})
    asked.model.update({"name": "mmdit", "variance": False, **sizes})
    images = DataSpec(Pixels((8, 8, 4)), {"text": Sequence(5, 10), "pooled": Vector(6)})
    initial = Initial(TEXT_TO_IMAGE / "sd3-medium")
    check_initial(initial, make_experiment(asked, images))
    asked.model.heads = 4
    with pytest.raises(InputError, match=r"channels of a head=\{8\} \(here: \{4\}\)"):
        check_initial(initial, make_experiment(asked, images))


def test_a_network_that_takes_the_scale_begins_with_a_published_one(monkeypatch):
    monkeypatch.setattr(flux, "usual_axes", lambda size: (2, 2, 4))  # those of the file
    sizes = {"width": 16, "depth": 2, "single_depth": 2, "heads": 2, "patch_size": 2}
    asked = config(**{f"model__{k}": None for k in ("time_scale", "heads")})
    asked.model.update({"name": "flux", "variance": False, **sizes, "guidance_scale": 3.5})
    images = DataSpec(Pixels((8, 8, 4)), {"text": Sequence(5, 10), "pooled": Vector(6)})
    check_initial(Initial(TEXT_TO_IMAGE / "flux-dev"), make_experiment(asked, images))
    asked.model.guidance_scale = None
    with pytest.raises(InputError, match=r"guidance=True \(here: False\)"):
        check_initial(Initial(TEXT_TO_IMAGE / "flux-dev"), make_experiment(asked, images))


@pytest.mark.nightly
def test_an_official_dit_is_trained_further_and_goes_out_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "save_overview", lambda *arguments: None)
    workdir, out = tmp_path / "run", tmp_path / "tuned.safetensors"
    asked = config(**NOISE, train__steps=4, train__val_every=0)
    assert train(asked, workdir, init_from=OFFICIAL, init_layout="dit") == 0
    export_in_layout(workdir, out, "dit", ema=False)
    found, expected = load_file(out), load_file(OFFICIAL)
    assert found.keys() == expected.keys()
    assert any(np.abs(found[name] - x).max() > 1e-5 for name, x in expected.items())
    with pytest.raises(InputError, match=r"asked at the step .*, and --layout=sit"):
        export_in_layout(workdir, tmp_path / "x.safetensors", "sit")


def changed(folder, change):
    tensors = load_file(OFFICIAL)
    change(tensors)
    save_file(tensors, folder / "x.safetensors")
    return folder / "x.safetensors"


def autoencoder(folder):
    model = TinyAutoencoder(latent_channels=4, width=8)
    x = np.zeros((1, 16, 16, 3), np.float32)
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    pretrained.save(folder / "vae", params, "taesd", model)
    return folder / "vae"


def published_size(folder):
    """A DiT of a size that is published, in shapes alone: heads are known."""
    model = DiT(patch_size=2, width=384, depth=12, heads=6, conditions=ClassIds(5), time_scale=1.0)
    x, t, labels = np.zeros((1, 4, 4, 4)), np.zeros(1), np.zeros(1, np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, labels)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    path = folder / "sit.safetensors"
    pretrained.save(path, params, "sit", model, shape=(4, 4, 4), dtype="bfloat16")
    return path


NAMED = {"model__name": "DiT-S/2", "model__time_scale": 1.0, "data__name": "random/8x8x4/5"}
SIZES = ("width", "depth", "heads", "patch_size")
WRONG = {
    # what it begins with, what differs in the configuration, and the message
    "two layouts": (
        lambda d: Initial(OFFICIAL),
        {},
        r"write --init_layout=dit \(an official DiT\) or --init_layout=sit \(an official SiT\)",
    ),
    "an unknown layout": (lambda d: Initial(OFFICIAL, "sti"), {}, "unknown layout 'sti'"),
    "noise": (
        lambda d: Initial(OFFICIAL, "dit"),
        {},
        r"an official DiT, which predicts x0 on .*DiscreteVP.*and this run predicts velocity on .*"
        r"Linear.*asked at t: write loss.prediction=x0, path.name=discrete_vp and model.at_steps=T",
    ),
    "noise, of diffusers": (lambda d: Initial(DIFFUSERS), {}, "which predicts x0 on"),
    "noise, asked at t": (
        lambda d: Initial(OFFICIAL, "dit"),
        NOISE | {"model__at_steps": False},
        "asked at t: write .*model.at_steps=True",
    ),
    "a velocity, asked at steps": (lambda d: SIT, NOISE, "step that .* write .*at_steps=False"),
    "another path": (lambda d: SIT, {"path__name": "cosine"}, "this run predicts .* on .*Cosine"),
    "another prediction": (
        lambda d: SIT,
        {"loss__prediction": "x1"},
        "which predicts velocity on .*and this run predicts x1",
    ),
    "an autoencoder": (lambda d: Initial(autoencoder(d)), {}, "is a TinyAutoencoder; got model of"),
    "another scale of time": (lambda d: SIT, {"model__time_scale": 1000.0}, "has time_scale=1.0"),
    "another network": (
        lambda d: SIT,
        {"model__name": "mlp", "data__name": "toy/moons"}
        | dict.fromkeys([f"model__{s}" for s in ("heads", "patch_size", "time_scale")])
        | {"model__variance": False},
        "an official SiT is a DiT; got model of type MLP",
    ),
    "another width": (
        lambda d: SIT,
        {"model__width": 32},
        r"of shape \[.*\], and the network of this run takes .*: give the model\.\* keys",
    ),
    "another depth": (
        lambda d: SIT,
        {"model__depth": 3},
        r"lacks blocks\.2\..*of this run takes: give",
    ),
    "less depth": (lambda d: SIT, {"model__depth": 1}, r"holds blocks\.1\..*of this run has no"),
    "without a variance": (lambda d: SIT, {"model__variance": False}, "final_layer.*of shape"),
    "other heads": (
        lambda d: Initial(published_size(d), "sit"),
        dict.fromkeys([f"model__{s}" for s in SIZES])
        | {"model__width": 384, "model__depth": 12, "model__heads": 12, "model__patch_size": 2}
        | {"model__variance": False},
        r"another network than this run's, with channels of a head=\{64\} \(here: \{32\}\)",
    ),
    "other channels": (
        lambda d: SIT,
        {"data__name": "random/8x8x3/5"},
        "takes examples of 4 channels, and the data 'random/8x8x3/5' have 3",
    ),
    "a missing tensor": (
        lambda d: Initial(changed(d, lambda x: x.pop("x_embedder.proj.bias")), "sit"),
        {},
        "lacks x_embedder.proj.bias, which",
    ),
    "a pattern of nothing": (
        lambda d: SIT._replace(fresh=("label/*",)),
        {},
        r"--init_fresh: no parameter matches 'label/\*'; there are adaln/dense/bias",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_said_before_a_number_is_read(name, tmp_path, monkeypatch):
    def fill(*_):
        raise AssertionError("a parameter was read")

    monkeypatch.setattr(loading, "fill", fill)
    make, changes, message = WRONG[name]
    initial, run = make(tmp_path), experiment(**changes)
    with pytest.raises(InputError, match=message) as error:
        check_initial(initial, run)
    assert "\n" not in str(error.value)


def test_a_layout_of_a_run_and_flags_without_a_source_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match="is of fmjax itself: leave --init_layout=sit out"):
        check_initial(Initial(trained, "sit"), open_run(trained))
    for how in ({"init_layout": "sit"}, {"init_fresh": ("out/*",)}):
        with pytest.raises(InputError, match="say how to begin with --init_from"):
            train(small_config(), tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()
