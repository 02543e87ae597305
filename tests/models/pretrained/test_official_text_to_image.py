"""Stable Diffusion 3, 3.5 and FLUX.1 under their official names are those of diffusers.

`tests/golden/make_official_text_to_image.py` made the files, and held them to diffusers' converter.
"""

import functools
import json

import jax
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.models import flux, mmdit
from fmjax.models.pretrained import inspect, layouts_of, load, save
from fmjax.models.pretrained.families import FAMILIES
from fmjax.models.pretrained.official_text_to_image import FLUX, PREFIX, SD3
from fmjax.models.pretrained.rules import expected_shapes, origins
from tests.conftest import ROOT
from tests.models.pretrained.test_text_to_image import (
    labels_of,
    loaded,
    reference,
    unfolded,
)

safetensors = pytest.importorskip("safetensors.numpy")

GOLDEN = ROOT / "tests/golden/text_to_image/official"
NAMES = ("sd3-medium", "sd3.5-medium", "flux-dev")
LAYOUTS = json.loads((GOLDEN / "layouts.json").read_text())


def path_of(name):
    return GOLDEN / f"{name}.safetensors"


@functools.cache
def official(name):
    """Read into the network of diffusers' file, since no shape tells heads and axes of these."""
    return load(path_of(name), model=loaded(name).model, dtype=np.float16)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_that_diffusers_file_gives(name):
    assert official(name).family == ("flux" if name.startswith("flux") else "sd3")
    jax.tree.map(np.testing.assert_array_equal, official(name).params, loaded(name).params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd3.5-medium", "flux-dev"])
def test_velocity_is_that_of_diffusers(name):
    net, known = official(name), reference(name)
    params = jax.tree.map(np.float32, net.params)
    velocity = jax.jit(net.apply_fn)(params, known["x"], known["t"], labels_of(name))
    error = np.abs(velocity - known["velocity"]).max() / np.abs(known["velocity"]).max()
    assert error < 1e-5


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", NAMES)
def test_what_came_in_goes_out_bit_for_bit(name, tmp_path):
    net, saved = official(name), tmp_path / "saved.safetensors"
    save(saved, net.params, net.family, net.model, shape=net.shape)
    before, after = safetensors.load_file(path_of(name)), safetensors.load_file(saved)
    assert before.keys() == after.keys()
    for key, values in before.items():
        assert values.tobytes() == after[key].tobytes(), key


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", LAYOUTS)
def test_names_and_shapes_are_the_published_ones(name):
    family, module = (FLUX, flux) if name.startswith("FLUX") else (SD3, mmdit)
    model, layout = module.preset(name), dict(unfolded(LAYOUTS[name]))
    params = family.abstract_params(model.clone(scan=True), (None, None, 16))  # traced once
    assert expected_shapes(origins(family.rules(model), params)) == layout
    assert [one.name for one in FAMILIES if one.accepts(layout, {})] == [family.name]
    assert family.build(layout, {}) == model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd3.5-medium", "flux-dev"])
def test_in_a_file_with_an_autoencoder_the_network_is_found(name, tmp_path):
    tensors = safetensors.load_file(path_of(name))
    theirs = {f"{PREFIX}{key}": x for key, x in tensors.items()}
    beside = {"first_stage_model.decoder.conv_in.weight": np.zeros((2, 2), np.float16)}
    path, saved = tmp_path / "whole.safetensors", tmp_path / "saved.safetensors"
    safetensors.save_file(theirs | beside, path)
    net = load(path, model=loaded(name).model, dtype=np.float16)
    assert layouts_of(path) == (f"{official(name).family}-single-file",)
    assert list(net.report.left_out) == list(beside)
    assert net.shape == official(name).shape
    save(saved, net.params, net.family, net.model, shape=net.shape)
    found = safetensors.load_file(saved)
    assert {key: x.tobytes() for key, x in found.items()} == {
        key: x.tobytes() for key, x in theirs.items()
    }


@pytest.mark.slow
def test_a_tensor_that_one_parameter_does_not_need_is_read_for_the_others():
    name = "double_blocks.0.img_attn.qkv.weight"
    model = loaded("flux-dev").model
    fresh = ("joint_blocks/attention/image/q/kernel",)
    report = inspect(path_of("flux-dev"), model=model, fresh=fresh)
    assert report.read.count(name) == 1
    assert report.left_out == {}
    params = load(path_of("flux-dev"), model=model, fresh=fresh).params
    ours, known = (
        p["joint_blocks"]["attention"]["image"] for p in (params, official("flux-dev").params)
    )
    np.testing.assert_array_equal(ours["k"]["kernel"], known["k"]["kernel"])
    assert np.abs(ours["q"]["kernel"] - known["q"]["kernel"]).max() > 0.1


def test_a_tensor_of_another_shape_is_told_whole(tmp_path):
    tensors = safetensors.load_file(path_of("flux-schnell"))
    tensors["single_blocks.1.linear1.weight"] = np.zeros((56, 16), np.float16)
    safetensors.save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"linear1.weight of shape \[56, 16\], .* takes \[112, 16"):
        load(tmp_path / "x.safetensors", model=loaded("flux-schnell").model)


def test_what_cannot_be_known_is_asked_for():
    with pytest.raises(InputError, match=r"MM-DiT of depth 3 and width 16 .* give model=MMDiT"):
        load(path_of("sd3-medium"))
    with pytest.raises(InputError, match=r"the 8 numbers of a head .* give model=Flux"):
        load(path_of("flux-dev"))
