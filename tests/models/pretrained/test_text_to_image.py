"""Stable Diffusion 3, 3.5 and FLUX.1 through the importer, held to what diffusers computes.

`tests/golden/make_text_to_image.py` made the files.
"""

import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.models import flux, mmdit
from fmjax.models.mmdit import MMDiT
from fmjax.models.pretrained import inspect, load, save
from fmjax.models.pretrained.rules import expected_shapes, origins
from fmjax.models.pretrained.text_to_image import FLUX, SD3
from tests.conftest import ROOT

safetensors = pytest.importorskip("safetensors.numpy")

GOLDEN = ROOT / "tests/golden/text_to_image"
NAMES = ("sd3-medium", "sd3.5-medium", "sd3.5-large", "flux-dev", "flux-schnell")
LAYOUTS = json.loads((GOLDEN / "layouts.json").read_text())
WEIGHTS = "diffusion_pytorch_model.safetensors"


@functools.cache
def loaded(name):
    return load(GOLDEN / name)


@functools.cache
def reference(name):
    return dict(np.load(GOLDEN / name / "reference.npz"))


def labels_of(name):
    wanted = ("text", "pooled", "guidance") if name == "flux-dev" else ("text", "pooled")
    return {key: reference(name)[key] for key in wanted}


def unfolded(layout):
    """Every name, from one line for the same tensor of many blocks."""
    for name, (shape, first, count) in layout.items():
        blocks = [None] if first is None else range(first, first + count)
        for i in blocks:
            yield name.replace("*", str(i)), tuple(shape)


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_velocity_and_gradient_are_those_of_diffusers(name):
    net, known = loaded(name), reference(name)

    @jax.jit
    def value(x):
        velocity = net.apply_fn(net.params, x, known["t"], labels_of(name))
        return jnp.sum(velocity * known["probe"]), velocity

    gradient, velocity = jax.grad(value, has_aux=True)(known["x"])
    for ours, theirs in ((velocity, known["velocity"]), (gradient, known["gradient"])):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd3.5-medium", "flux-dev"])
def test_in_bfloat16_the_velocity_is_within_its_rounding(name):
    net, known = loaded(name), reference(name)
    model = net.model.clone(dtype=jnp.bfloat16, scan=True, remat="dots")
    velocity = jax.jit(model.apply)({"params": net.params}, known["x"], known["t"], labels_of(name))
    assert velocity.dtype == jnp.float32
    error = np.linalg.norm(velocity - known["velocity"]) / np.linalg.norm(known["velocity"])
    assert 1e-4 < error < 0.03  # 8 bits, 0.4 %, in each of some ten products one after another


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_came_in_goes_out_bit_for_bit(name, tmp_path):
    net = load(GOLDEN / name, dtype=jnp.float16)
    save(tmp_path / WEIGHTS, net.params, net.family, net.model, shape=net.shape)
    before, after = (safetensors.load_file(at / WEIGHTS) for at in (GOLDEN / name, tmp_path))
    assert before.keys() == after.keys()
    for key, values in before.items():
        assert values.dtype == after[key].dtype
        np.testing.assert_array_equal(values, after[key], err_msg=key)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", LAYOUTS)
def test_names_and_shapes_are_the_published_ones(name):
    family, module = (FLUX, flux) if name.startswith("FLUX") else (SD3, mmdit)
    model, layout = module.preset(name), dict(unfolded(LAYOUTS[name]))
    params = family.abstract_params(model, (None, None, 16))
    assert expected_shapes(origins(family.rules(model), params)) == layout
    assert family.accepts(layout, {})
    assert family.build(layout, {}) == model


def test_the_configuration_says_what_shapes_leave_open():
    net = loaded("sd3-medium")
    assert (net.model.heads, net.model.spacing) == (2, pytest.approx(4 / 6))
    assert net.shape == (8, 8, 4)
    assert loaded("flux-dev").model.axes == (2, 2, 4)
    assert loaded("flux-dev").shape == (None, None, 4)


def test_the_table_of_positions_is_that_of_diffusers():
    model, params = loaded("sd3-medium").model, loaded("sd3-medium").params
    table = mmdit.position_table(model.grid, model.width, model.spacing)
    np.testing.assert_allclose(params["positions"], table, atol=1e-3)  # float16 in the file


def test_the_two_families_are_told_apart():
    assert [loaded(name).family for name in NAMES] == ["diffusers-sd3"] * 3 + ["diffusers-flux"] * 2
    assert inspect(GOLDEN / "flux-dev").unknown == ()
    with pytest.raises(InputError, match="is no diffusers-flux: its names are those of a Stable"):
        load(GOLDEN / "sd3-medium", layout="diffusers-flux")


def _without_config(name: str, folder: Path) -> Path:
    shutil.copy(GOLDEN / name / WEIGHTS, folder / WEIGHTS)
    return folder / WEIGHTS


def test_heads_that_cannot_be_known_are_asked_for(tmp_path):
    path = _without_config("sd3-medium", tmp_path)
    with pytest.raises(InputError, match=r"MM-DiT of depth 3 and width 16 .* its config.json"):
        load(path)
    assert load(path, model=loaded("sd3-medium").model).family == "diffusers-sd3"


def test_axes_that_cannot_be_known_are_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"how the 8 numbers of a head are turned .* config\.json"):
        load(_without_config("flux-dev", tmp_path))


def test_second_attention_in_other_blocks_is_refused():
    layout = dict(unfolded(LAYOUTS["SD3.5-medium"]))
    del layout["transformer_blocks.0.attn2.to_q.weight"]
    with pytest.raises(InputError, match=r"the blocks \[1, 2, .* have a second attention"):
        SD3.build(layout, {})


def test_axes_other_than_the_configuration_s_are_refused():
    model = loaded("flux-dev").model.clone(axes=(4, 2, 2))
    with pytest.raises(InputError, match=r"FLUX.1 of diffusers has axes=\(2, 2, 4\), and model"):
        load(GOLDEN / "flux-dev", model=model)


def test_another_network_does_not_fit():
    model = MMDiT(width=16, depth=3, heads=2, text_size=12, pooled_size=6, channels=4, grid=6)
    with pytest.raises(InputError, match=r"context_embedder.weight of shape \[16, 10\]"):
        load(GOLDEN / "sd3-medium", model=model)
