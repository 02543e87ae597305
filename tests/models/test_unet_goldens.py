"""Tiny U-Nets under the published names give the numbers that PyTorch gives with them.

The files are made by `tests/golden/make_unet.py`.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file

from fmjax.conditions import ClassIds
from fmjax.models.unet import PRESETS, UNet, places, preset

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unet"
HEAD_SIZE = 4
TINY = functools.partial(UNet, width=8, depth=1, channel_mult=(1, 2), head_size=HEAD_SIZE, groups=4)
NETWORKS = {
    "torchcfm": TINY(scale_shift=False),
    "flow_matching": TINY(attention_factors=(), resampling="pool"),
    "adm": TINY(attention_factors=(1, 2), resampling="residual", conditions=ClassIds(5)),
}
NEW_ORDER = ("flow_matching", "adm")  # of queries, keys and values
every_network = pytest.mark.parametrize("name", NETWORKS)

INSIDE = {
    # of a residual block
    "norm_0": "in_layers.0",
    "conv_0": "in_layers.2",
    "condition": "emb_layers.1",
    "norm_1": "out_layers.0",
    "conv_1": "out_layers.3",
    "skip": "skip_connection",
    # of an attention block
    "norm": "norm",
    "attention/qkv": "qkv",
    "attention/out": "proj_out",
}


def blocks_of(model):
    """The blocks of ours, and what they are called there."""
    down, _, up = places(model)
    blocks = {
        "condition/time/dense_0": "time_embed.0",
        "condition/time/dense_1": "time_embed.2",
        "condition/label": "label_emb",
        "in": "input_blocks.0.0",
        "middle_0/residual": "middle_block.0",
        "middle_0/attention": "middle_block.1",
        "middle_1/residual": "middle_block.2",
        "norm": "out.0",
        "out": "out.2",
    }
    for place in (*down, *up):
        way, number = place.name.split("_")
        theirs = {"down": "input_blocks", "up": "output_blocks"}[way]
        kinds = {"residual": place.residual, "attention": place.heads, "resample": place.resample}
        for i, kind in enumerate(kind for kind, there in kinds.items() if there):
            blocks[f"{place.name}/{kind}"] = f"{theirs}.{number}.{i}"
        if place.resample and model.resampling == "conv":
            blocks[f"{place.name}/resample"] += {"down": ".op", "up": ".conv"}[place.resample]
    return blocks


def name_of(path, blocks):
    """What one of our parameters is called there."""
    *layer, leaf = path
    for length in range(len(layer), 0, -1):
        block, inside = "/".join(layer[:length]), "/".join(layer[length:])
        if block in blocks:
            names = [
                blocks[block],
                INSIDE.get(inside, inside),
                "bias" if leaf == "bias" else "weight",
            ]
            return ".".join(part for part in names if part)
    raise LookupError(path)


def ours(theirs, path, leaf, new_order):
    """One array of theirs as ours."""
    if path[-1] == "table":  # ours has one more row, for no class
        return np.concatenate([theirs, np.zeros_like(theirs[:1])])
    if "qkv" in path and new_order:
        heads = leaf.shape[-1] // (3 * HEAD_SIZE)
        parts = theirs.reshape(3, heads, HEAD_SIZE, *theirs.shape[1:])
        theirs = parts.swapaxes(0, 1).reshape(theirs.shape)
    if theirs.ndim == 3:  # a convolution along one axis, of one place
        theirs = theirs[..., 0]
    return theirs.transpose({1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[theirs.ndim])


def given(name):
    """The network, the parameters, and the stored arrays."""
    model, tensors = NETWORKS[name], load_file(GOLDEN / f"{name}.safetensors")
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    args = (arrays["x"], arrays["t"], arrays.get("labels"))
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), *args)["params"])
    blocks, params = blocks_of(model), {}
    for path, leaf in shapes.items():
        tensor = tensors.pop(name_of(path, blocks)).astype(np.float32)
        params[path] = ours(tensor, path, leaf, name in NEW_ORDER)
        assert params[path].shape == leaf.shape, path
    assert not tensors  # every tensor of theirs is one of ours
    return model, unflatten_dict(params), args, arrays


def relative(found, expected):
    return np.abs(np.asarray(found, np.float32) - expected).max() / np.abs(expected).max()


@every_network
def test_outputs_and_gradients_are_those_of_pytorch(name):
    model, params, (x, *rest), arrays = given(name)

    def squares(x):
        out = model.apply({"params": params}, x, *rest)
        return jnp.sum(out**2), out

    gradient, out = jax.jit(jax.grad(squares, has_aux=True))(x)
    assert relative(out, arrays["out"]) < 1e-5
    assert relative(gradient, arrays["gradient"]) < 1e-5


@every_network
def test_bfloat16_is_within_its_rounding(name):
    model, params, args, arrays = given(name)
    half = model.clone(dtype=jnp.bfloat16)
    out = jax.jit(lambda *args: half.apply({"params": params}, *args))(*args)
    assert out.dtype == jnp.float32
    assert 1e-4 < relative(out, arrays["out"]) < 2e-2


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_sizes_have_the_parameters_of_pytorch(name):
    side, classes = (64, ClassIds(1000)) if "ImageNet64" in name else (32, None)
    model = preset(name, conditions=classes)
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    labels = None if classes is None else jax.ShapeDtypeStruct((1,), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), x, t, labels)["params"]
    no_class = 0 if classes is None else 4 * model.width  # one more row of the table
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) - no_class
    assert count == json.loads((GOLDEN / "sizes.json").read_text())[name]
