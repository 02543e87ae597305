"""Features by name; weights come from a file whose hash and whose tensors are held."""

import hashlib
import types

import numpy as np
import pytest
from safetensors.numpy import save_file

from fmjax.errors import InputError
from fmjax.factory import features as module
from fmjax.factory.features import NETWORKS, make_features
from fmjax.metrics import Features, pixel_features
from tests.models.features.test_tensors import SHAPES, TENSORS, Small

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A network of a few weights by the name "small"."""
    entry = module.FeatureNetwork(Small(), "FD-small", "0" * 64, "them from nowhere")
    monkeypatch.setitem(NETWORKS, "small", entry)
    monkeypatch.setattr(module, "NAMES", ("pca", "pixels", "given", *NETWORKS))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    return path


def test_weights_of_either_form_give_the_same_features(weights, tmp_path):
    np.savez(tmp_path / "weights.npz", **TENSORS)
    one = make_features("small", weights)
    other = make_features("small", tmp_path / "weights.npz")
    assert one(IMAGES).shape == (5, 4)
    assert np.array_equal(one(IMAGES), other(IMAGES))
    assert (one.name, one.distance) == ("small", "FD-small")
    assert one.digest == other.digest != ""


def test_a_hash_that_is_given_is_held(weights, tmp_path):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    make_features("small", weights, digest)
    make_features("small", weights, digest[:8].upper())
    for wrong in ("ab" * 32, digest[:7], ""):
        with pytest.raises(InputError, match=f"have the sha256 {digest}, not {wrong}"):
            make_features("small", weights, wrong)
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="and the published file 0000"):
        make_features("small", tmp_path / "weights.pth")


def test_names_without_weights():
    assert make_features("pixels").name == "pixels"
    assert make_features("pca", real=lambda: IMAGES).name == "pca of 4 dimensions"
    rows = np.ones((3, 2))
    assert np.array_equal(make_features("given")(rows), rows)


def test_features_of_your_own(monkeypatch):
    own = types.ModuleType("own_features")
    own.mean = lambda images: images.reshape(len(images), -1).mean(axis=1, keepdims=True)
    own.ready = Features("ready", own.mean, digest="abc")
    own.broken = lambda images: images.nothing
    own.number = 3
    monkeypatch.setitem(__import__("sys").modules, "own_features", own)
    assert make_features("own_features:mean")(IMAGES).shape == (5, 1)
    assert make_features("own_features:ready") is own.ready
    with pytest.raises(InputError, match="fails with AttributeError"):
        make_features("own_features:broken")(IMAGES)
    with pytest.raises(InputError, match="must be a function or a class; got 3"):
        make_features("own_features:number")


def lacking(path):
    save_file({name: x for name, x in TENSORS.items() if name != "fc.bias"}, path)


def another_shape(path):
    save_file(TENSORS | {"fc.bias": np.zeros(6, np.float32)}, path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lacking, "does not hold the tensor fc.bias"),
        (another_shape, r"fc.bias as float32 of shape \(6,\); expected floats of shape \(5,\)"),
        (lambda path: path.write_bytes(b"x"), "cannot be read as a safetensors file"),
        (lambda path: None, "the weights .* cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, write, sentence):
    path = tmp_path / "weights.safetensors"
    write(path)
    with pytest.raises(InputError, match=sentence):
        make_features("small", path)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: make_features("fid"), "unknown features 'fid'"),
        (lambda: make_features("small"), "need weights: get them from nowhere, and give the file"),
        (lambda: make_features("pca"), "pca is fitted to real examples"),
        (lambda: make_features("pixels", sha256="ab" * 32), "pixels has none to read"),
        (lambda: make_features("given")(IMAGES), r"features already, \(n, d\); got shape \(5, 6"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def test_the_published_files_are_named_by_their_hash():
    # PyTorch's hub writes the first digits of the sha256 into the name.
    assert NETWORKS["inception"].published[:8] in NETWORKS["inception"].get
    assert NETWORKS["efficientnet_lite0"].published[:8] in NETWORKS["efficientnet_lite0"].package[1]
    assert pixel_features().digest == ""
    assert set(SHAPES) == set(TENSORS)
