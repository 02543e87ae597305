"""At full size, the tables of names give every tensor of the published files; no memory is used.

The lists are made by `tests/golden/make_layouts.py`, but for two: that of LightningDiT was read off
the official network (hustvl/LightningDiT, XL/1 on the latents of VA-VAE), and that of JiT off a
fork without classes (char0n-yfy/JiT).
"""

import json
import math
from pathlib import Path

import jax
import pytest

from fmjax.conditions import ClassIds
from fmjax.models.dit import preset
from fmjax.models.pretrained.families import FAMILIES
from fmjax.models.pretrained.family import family_named, recognise
from fmjax.models.pretrained.jit import JIT
from fmjax.models.pretrained.lightningdit import LIGHTNING
from fmjax.models.pretrained.rules import expected_shapes, origins
from fmjax.storage.weight_files import WeightFiles

LAYOUTS = Path(__file__).resolve().parents[2] / "golden" / "layouts"


def unread(name):
    raise AssertionError(f"{name} was read")


def published(name):
    shapes = json.loads((LAYOUTS / f"{name}.json").read_text())
    return WeightFiles(Path(name), {key: tuple(shape) for key, shape in shapes.items()}, {}, unread)


TABLE = {
    # layout: the list, the tensors that are left out, the parameters here
    "dit": ("dit_xl2_256_official", {"pos_embed"}, 675_129_632 - 256 * 1152),
    "sit": ("dit_xl2_256_official", {"pos_embed"}, 675_129_632 - 256 * 1152),
    "diffusers-dit": ("diffusers_dit_xl2_256", set(), 675_129_632 - 256 * 1152),
    "lightningdit": (
        "lightningdit_xl1_vavae_f16d32",
        {"pos_embed", "feat_rope.freqs_cos", "feat_rope.freqs_sin"},
        675_293_600 - 256 * 1152 - 2 * 256 * 72,
    ),
    "taesd": ("taesd_official", set(), 2_445_063),
    "diffusers-taesd": ("diffusers_autoencoder_tiny_taesd", set(), 2_445_063),
    "sd-vae": ("diffusers_autoencoderkl_sd_vae_ft", set(), 83_653_863),
    "sd3-vae": ("diffusers_autoencoderkl_sd3_flux", set(), 83_819_683),
    "flux-vae": ("diffusers_autoencoderkl_sd3_flux", set(), 83_819_683),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", TABLE)
def test_the_table_names_every_tensor_with_its_shape(layout):
    name, left_out, count = TABLE[layout]
    files, family = published(name), family_named(layout, FAMILIES)
    model = family.build(files.shapes, files.config)
    params = family.abstract_params(model, family.shape(files))
    found = expected_shapes(origins(family.rules(model), params))
    assert found == {key: x for key, x in files.shapes.items() if key not in left_out}
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("layout", TABLE)
def test_each_layout_is_recognised(layout):
    files = published(TABLE[layout][0])
    assert recognise(files, layout, FAMILIES).name == layout
    fits = [family.name for family in FAMILIES if family.accepts(files.shapes, files.config)]
    assert set(fits) == {other for other, row in TABLE.items() if row[0] == TABLE[layout][0]}


def test_taef2_is_an_official_tiny_autoencoder():
    files = published("taef2_official")
    family = recognise(files, None, FAMILIES)
    model = family.build(files.shapes, {})
    assert (model.latent_channels, model.pooled) == (32, True)
    params = family.abstract_params(model, ())
    assert expected_shapes(origins(family.rules(model), params)) == files.shapes


def test_the_scale_of_a_configuration_tells_sd3_from_flux():
    shapes = published("diffusers_autoencoderkl_sd3_flux").shapes
    for shift, name in ((0.0609, "sd3-vae"), (0.1159, "flux-vae")):
        config = {"_class_name": "AutoencoderKL", "shift_factor": shift}
        assert [family.name for family in FAMILIES if family.accepts(shapes, config)] == [name]


def test_the_sizes_of_dit_are_read_from_shapes():
    files = published("dit_xl2_256_official")
    model = family_named("dit", FAMILIES).build(files.shapes, {})
    assert (model.depth, model.width, model.heads, model.patch_size) == (28, 1152, 16, 2)
    assert (model.conditions.num_classes, model.mlp_ratio, model.variance) == (1000, 4.0, True)


def test_jit_has_the_tensors_of_its_fork():
    files = published("jit_b16_256_fork")
    model = preset("JiT-B/16", label_tokens=0, label_tokens_from=0)
    x, t = jax.ShapeDtypeStruct((1, 256, 256, 3), "float32"), jax.ShapeDtypeStruct((1,), "float32")
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(model.init, key, x, t)["params"]
    found = expected_shapes(origins(JIT.rules(model), params))
    assert found == {key: x for key, x in files.shapes.items() if key != "pos_embed"}


def test_the_preset_of_lightningdit_is_that_of_its_file():
    files = published("lightningdit_xl1_vavae_f16d32")
    model = preset("LightningDiT-XL/1", conditions=ClassIds(1000), time_scale=1.0)
    assert LIGHTNING.build(files.shapes, {}) == model
