"""Which network a name gives, with which fields, and what is refused."""

import sys
import types

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from fmjax.conditions import ClassIds, Mask, Sequence, Vector
from fmjax.config import default_config
from fmjax.errors import InputError
from fmjax.factory.model import MODELS, make_model
from fmjax.models import flux, mmdit, token_transformer, unet
from fmjax.models.dit import PRESETS, DiT, preset
from fmjax.models.flux import Flux
from fmjax.models.mlp import MLP
from fmjax.models.mmdit import MMDiT
from fmjax.models.token_transformer import TokenTransformer
from fmjax.models.unet import UNet

SIZES = {"width": 16, "depth": 2, "heads": 2, "patch_size": 2}
TWO = {"class": ClassIds(3), "age": Vector(2)}
TEXT = {"text": Sequence(5, 6), "pooled": Vector(4)}


def made(conditions=None, **fields):
    config = default_config()
    config.model.update(fields)
    return make_model(config, conditions, portable=True)


def test_every_name_gives_its_network():
    of_tokens = {"token_transformer", *token_transformer.PRESETS}
    of_text = {"mmdit", "flux", *mmdit.PRESETS, *flux.PRESETS}
    others = {"mlp", "fourier_mlp", "dit", "unet", *PRESETS, *unet.PRESETS}
    assert set(MODELS) == others | of_text | of_tokens
    assert made(name="mlp", width=16) == MLP(width=16)
    assert made(TWO, name="mlp") == MLP(conditions=TWO)
    assert made(TWO, name="dit", **SIZES) == DiT(**SIZES, conditions=TWO)
    how = {"dtype": jnp.bfloat16, "scan": True, "remat": "dots"}
    given = how | {"dtype": "bfloat16"}
    assert made(name="DiT-S/4", depth=3, **given) == preset("DiT-S/4", depth=3, **how)


def test_a_transformer_of_tokens_has_the_vocabulary_of_the_data():
    sizes = {"width": 16, "depth": 2, "heads": 2}

    def of_five(**fields):
        config = default_config()
        config.model.update(fields)
        return make_model(config, TWO, portable=True, vocabulary=5)

    expected = TokenTransformer(vocabulary=5, **sizes, conditions=TWO)
    assert of_five(name="token_transformer", **sizes) == expected
    assert of_five(name="token_transformer", tied=True, **sizes) == expected.clone(tied=True)
    how = {"dtype": jnp.bfloat16, "scan": True, "remat": "dots", "conditions": TWO}
    small = token_transformer.preset("TokenTransformer-XS", vocabulary=5, **how)
    given = {"dtype": "bfloat16", "scan": True, "remat": "dots"}
    assert of_five(name="TokenTransformer-XS", **given) == small
    assert of_five(name="dit", **SIZES) == DiT(**SIZES, conditions=TWO)
    with pytest.raises(InputError, match=r"model.tied is of token_transformer; got .*'dit'"):
        of_five(name="dit", tied=True, **SIZES)


def test_a_unet_is_given_its_levels_as_text():
    sizes = {"width": 32, "depth": 1, "heads": 2}
    assert made(TWO, name="unet", **sizes) == UNet(**sizes, conditions=TWO)
    lists = {"channel_mult": "0.5,1,2", "attention_factors": "2,4"}
    expected = UNet(**sizes, channel_mult=(0.5, 1, 2), attention_factors=(2, 4))
    assert made(name="unet", **sizes, **lists) == expected
    alone = UNet(**sizes, attention_factors=())
    assert made(name="unet", **sizes, attention_factors="none") == alone
    how = {"dtype": jnp.bfloat16, "remat": "full"}
    name = "UNet-CIFAR10/torchcfm"
    given = how | {"dtype": "bfloat16"}
    assert made(name=name, heads=2, **given) == unet.preset(name, heads=2, **how)


LATER = {
    "norm": "rms",
    "mlp": "swiglu",
    "mlp_ratio": 8 / 3,
    "qk_norm": True,
    "rope": True,
    "bottleneck": 6,
    "label_tokens": 2,
    "label_tokens_from": 1,
}


@pytest.mark.parametrize("name", LATER)
def test_a_choice_of_the_blocks_of_a_dit_is_set_by_its_key(name):
    assert getattr(made(name="dit", **SIZES, **{name: LATER[name]}), name) == LATER[name]
    assert made(name="dit", **SIZES) == DiT(**SIZES)
    preset_name = "JiT-B/16"
    assert made(name=preset_name) == preset(preset_name)
    other = {"norm": "layer", "mlp": "gelu"}.get(name, 3)
    other = not LATER[name] if isinstance(LATER[name], bool) else other
    assert getattr(made(name=preset_name, **{name: other}), name) == other


def test_the_choices_of_the_blocks_together_are_a_network_that_runs():
    model = made(ClassIds(3), name="dit", **SIZES | {"width": 16}, **LATER)
    x, t, labels = jnp.ones((2, 4, 4, 1)), jnp.ones(2), jnp.zeros(2, jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, labels)["params"]
    assert {"bottleneck", "label_tokens", "blocks", "later_blocks", "norm"} <= shapes.keys()


def test_networks_of_texts_take_their_sizes_from_the_conditions():
    text = {"channels": None, "text_size": 6, "text_length": 5, "pooled_size": 4}
    assert made(TEXT, name="mmdit", **SIZES) == MMDiT(**SIZES, **text)
    assert made(TEXT | {"text_mask": Mask(5, of="text")}, name="mmdit", **SIZES) == MMDiT(
        **SIZES, **text
    )
    small = MMDiT(**SIZES, **text, grid=8, spacing=1.0)
    assert made(TEXT, name="mmdit", **SIZES, grid=8) == small
    assert made(TEXT, name="mmdit", **SIZES, qk_norm=True).qk_norm
    how = {"dtype": jnp.bfloat16, "scan": True, "remat": "dots"}
    given = how | {"dtype": "bfloat16"}
    wide = made(TEXT, name="SD3.5-medium", grid=384, **given)
    assert wide == mmdit.preset("SD3.5-medium", **text, **how)
    sizes = SIZES | {"width": 32}
    found = made(TEXT, name="flux", **sizes, single_depth=3)
    depths = {"joint_depth": sizes.pop("depth"), "single_depth": 3}
    assert found == Flux(**sizes, **depths, axes=(4, 6, 6), **text)
    found = made(TEXT, name="FLUX.1-schnell", depth=1, **given)
    assert found == flux.preset("FLUX.1-schnell", joint_depth=1, **text, **how)


@pytest.mark.parametrize(
    "conditions",
    [
        None,
        ClassIds(3),
        {"text": TEXT["text"]},
        {"text": TEXT["pooled"], "pooled": TEXT["text"]},
        TEXT | {"mask": Mask(5, of="text")},
    ],
)
@pytest.mark.parametrize("name", ["SD3-medium", "FLUX.1-schnell"])
def test_networks_of_texts_need_a_text(name, conditions):
    message = f"model.name='{name}' takes the features of a text, .*data.conditions=text,pooled"
    with pytest.raises(InputError, match=message):
        made(conditions, name=name)


def test_flux_takes_no_scale_of_a_flow_map():
    config = default_config()
    config.model.name, config.flow_map.name = "FLUX.1-schnell", "meanflow"
    assert make_model(config, TEXT, portable=True).span
    config.flow_map.guidance_max = 3.0
    with pytest.raises(InputError, match="guidance_max is no input of flux"):
        make_model(config, TEXT, portable=True)


@pytest.mark.parametrize(
    ("dtype", "platform", "kernel"),
    [("bfloat16", "gpu", "cudnn"), ("float32", "gpu", "xla"), ("bfloat16", "cpu", "xla")],
)
def test_attention_is_fused_where_every_head_can_be(dtype, platform, kernel, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    config = default_config()
    config.model.update({"name": "UNet-ImageNet64", "dtype": dtype})
    assert make_model(config, None).attention == kernel
    config.model.name = "UNet-CIFAR10/flow_matching"  # heads of 256
    assert make_model(config, None).attention == "xla"
    config.model.name = "SD3-medium"
    assert make_model(config, TEXT).attention == kernel


@pytest.mark.parametrize("sizes", [{"name": "mlp"}, {"name": "DiT-S/2"}, {"name": "dit", **SIZES}])
def test_the_scale_of_the_time_is_the_networks_unless_it_is_set(sizes):
    assert made(**sizes).time_scale == {"mlp": 100.0}.get(sizes["name"], 1000.0)
    assert made(**sizes, time_scale=1.0).time_scale == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "mpl"}, r"unknown model 'mpl'. Did you mean 'mlp'"),
        ({"name": "mlp", "heads": 2}, "'mlp' has no such fields; leave out model.heads=2"),
        ({"name": "mlp", "scan": True}, "'mlp' has no such fields; leave out model.scan=True"),
        ({"name": "mlp", "remat": "dots"}, "the mlp is float32 and has no .*'remat': 'dots'"),
        ({"name": "dit", "width": 8}, "needs model.depth, model.heads, model.patch_size; or take"),
        ({"name": "unet", "width": 8}, "'unet' needs model.depth, model.heads; or take a preset"),
        ({"name": "UNet-ImageNet64", "patch_size": 2}, "no such fields; leave out model.patch_s"),
        ({"name": "UNet-ImageNet64", "scan": True}, "no such fields; leave out model.scan=True"),
        ({"name": "UNet-ImageNet64", "variance": True}, "leave out model.variance=True"),
        ({"name": "mlp", "variance": True}, "'mlp' has no such fields; leave out model.variance"),
        ({"name": "FLUX.1-schnell", "variance": True}, "leave out model.variance=True"),
        ({"name": "mlp", "rope": True}, "'mlp' has no such fields; leave out model.rope=True"),
        ({"name": "UNet-ImageNet64", "norm": "rms"}, "leave out model.norm='rms'"),
        ({"name": "SD3-medium", "label_tokens": 2}, "leave out model.label_tokens=2"),
        ({"name": "FLUX.1-schnell", "qk_norm": True}, "leave out model.qk_norm=True"),
        ({"name": "mlp", "channel_mult": "1,2"}, "'mlp' has no such fields"),
        ({"name": "DiT-S/2", "channel_mult": "1,2"}, "out model.channel_mult='1,2'"),
        ({"name": "DiT-S/2", "grid": 2, "single_depth": 1}, "model.single_depth=1, model.grid=2"),
        ({"name": "mmdit", "width": 8}, "'mmdit' needs model.depth, .* SD3-medium, SD3.5-large"),
        ({"name": "SD3-medium", "time_scale": 1.0}, "no such fields; leave out model.time_scale"),
        (
            {"name": "flux", **SIZES},
            "'flux' needs model.single_depth; .* preset: FLUX.1-dev, FLUX.1-schnell.$",
        ),
        ({"name": "FLUX.1-schnell", "grid": 8}, "no such fields; leave out model.grid=8"),
        (
            {"name": "UNet-ImageNet64", "channel_mult": "1,two"},
            "model.channel_mult='1,two': expected numbers with commas between, e.g. 1,2,2,2",
        ),
    ],
)
def test_what_a_network_does_not_have_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        made(TEXT, **fields)


@pytest.fixture
def own(monkeypatch):
    """A module with a network of the user's own."""
    module = types.ModuleType("own_network")
    module.build = lambda c, conditions: MLP(c.width, c.depth, conditions)
    module.width, module.nothing = 3, lambda c, conditions: None
    monkeypatch.setitem(sys.modules, "own_network", module)


@pytest.mark.usefixtures("own")
def test_a_network_of_ones_own_is_built_by_its_name():
    model = made(TWO, name="own_network:build", width=5, depth=1)
    assert model == MLP(5, 1, TWO)
    assert isinstance(model, nn.Module)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_network:biuld", "model.name in own_network 'biuld'. Did you mean 'build'"),
        ("no_such_module_at_all:build", "model.name 'no_such_module_at_all:build': No module"),
        ("own_network:width", "must be a function or a class; got "),
        ("own_network:nothing", "must give a Linen module, with init and apply; .* NoneType"),
    ],
)
def test_a_name_that_gives_no_network_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        made(name=name)
