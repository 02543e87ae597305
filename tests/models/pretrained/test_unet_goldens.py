"""U-Nets under the published names give the numbers that PyTorch gives with them.

The files are made by `tests/golden/make_unet.py`.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.models import pretrained
from fmjax.models.pretrained.families import FAMILIES
from fmjax.models.pretrained.family import family_named
from fmjax.models.pretrained.rules import expected_shapes, origins
from fmjax.models.unet import PRESETS, UNet, preset

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "unet"
TINY = functools.partial(
    UNet, width=8, depth=1, channel_mult=(1, 2), head_size=4, groups=4, time_scale=1.0
)
NETWORKS = {
    # file: the layout, and the network, whose heads cannot be read from its shapes
    "torchcfm": ("torchcfm-unet", TINY(scale_shift=False, conditions=ClassIds(5))),
    "flow_matching": ("flow-matching-unet", TINY(attention_factors=(), resampling="pool")),
    "imagenet": (
        "flow-matching-unet",
        TINY(attention_factors=(1, 2), resampling="residual", conditions=ClassIds(5)),
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def loaded(name, **how):
    layout, model = NETWORKS[name]
    return pretrained.load(GOLDEN / f"{name}.safetensors", layout, model=model, **how)


def given(name):
    """The stored arrays; PyTorch was asked at 1000 t, where the features of the time matter."""
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    return arrays, (1000 * arrays["t"], arrays.get("labels"))


def relative(found, expected):
    return np.abs(np.asarray(found, np.float32) - expected).max() / np.abs(expected).max()


@pytest.mark.day_cases(1)
@pytest.mark.slow
@every_network
def test_outputs_and_gradients_are_those_of_pytorch(name):
    net, (arrays, rest) = loaded(name), given(name)

    def squares(x):
        out = net.apply_fn(net.params, x, *rest)
        return jnp.sum(out**2), out

    gradient, out = jax.jit(jax.grad(squares, has_aux=True))(arrays["x"])
    assert relative(out, arrays["out"]) < 1e-5
    assert relative(gradient, arrays["gradient"]) < 1e-5
    assert (net.family, net.prediction, net.shape) == (
        NETWORKS[name][0],
        "velocity",
        (None, None, 3),
    )


@pytest.mark.day_cases(1)
@pytest.mark.slow
@every_network
def test_bfloat16_is_within_its_rounding(name):
    net, (arrays, rest) = loaded(name), given(name)
    half = net.model.clone(dtype=jnp.bfloat16)
    out = jax.jit(lambda *args: half.apply({"params": net.params}, *args))(arrays["x"], *rest)
    assert out.dtype == jnp.float32
    assert 1e-4 < relative(out, arrays["out"]) < 2e-2


@pytest.mark.day_cases(1)
@pytest.mark.slow
@every_network
def test_weights_that_go_out_again_are_the_same_bit_for_bit(name, tmp_path, float16):
    net, path = loaded(name, dtype=jnp.float16), tmp_path / "saved.safetensors"
    pretrained.save(path, net.params, net.family, net.model, shape=net.shape)
    found, expected = load_file(path), load_file(GOLDEN / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].tobytes() == value.tobytes(), key


@pytest.mark.slow
def test_the_row_of_no_class_that_torchcfm_lacks_is_zero():
    table = loaded("torchcfm").params["condition"]["label"]["table"]
    assert table.shape == (6, 32)
    np.testing.assert_array_equal(table[-1], 0)
    assert np.abs(table[:-1]).min(axis=1).all()


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("layout", ["torchcfm-unet", "flow-matching-unet"])
def test_a_published_size_is_known_from_its_shapes(name, layout):
    classes = ClassIds(1000) if "ImageNet64" in name else None
    model, family = preset(name, conditions=classes, time_scale=1.0), family_named(layout, FAMILIES)
    params = family.abstract_params(model, (None, None, 3))
    shapes = expected_shapes(origins(family.rules(model), params))
    assert family.accepts(shapes, {})
    assert family.build(shapes, {}) == model
    no_class = 0 if classes is None or layout == "torchcfm-unet" else 4 * model.width
    count = sum(int(np.prod(shape)) for shape in shapes.values()) - no_class
    assert count == json.loads((GOLDEN / "sizes.json").read_text())[name]


def changed(tmp_path, change):
    tensors = load_file(GOLDEN / "torchcfm.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors")
    return tmp_path / "changed.safetensors"


def learn_a_variance(tensors):
    tensors["out.2.weight"] = np.concatenate([tensors["out.2.weight"]] * 2)


def lose_a_layer(tensors):
    del tensors["input_blocks.1.0.out_layers.3.weight"]


@pytest.mark.parametrize(
    ("change", "layout", "message"),
    [
        (lambda tensors: None, None, "layout='torchcfm-unet' .* or layout='flow-matching-unet'"),
        (lambda tensors: None, "torchcfm-unet", "how many heads .*width=8, depth=1.*model=UNet"),
        (learn_a_variance, "torchcfm-unet", "takes 3 channels and gives 6: it learned a variance"),
        (lose_a_layer, "torchcfm-unet", "input_blocks.1.0.out_layers.3.weight, and it is missing"),
    ],
)
def test_what_cannot_be_known_is_refused(change, layout, message, tmp_path):
    with pytest.raises(InputError, match=message):
        pretrained.load(changed(tmp_path, change), layout)


def test_another_scale_of_the_time_is_refused():
    layout, model = NETWORKS["torchcfm"]
    with pytest.raises(InputError, match=r"write time_scale=1\.0"):
        pretrained.load(GOLDEN / "torchcfm.safetensors", layout, model=model.clone(time_scale=9.0))
