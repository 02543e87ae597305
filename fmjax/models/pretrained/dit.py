"""DiT and SiT: the official layout, which is one for both, and that of diffusers.

The official names are those of facebookresearch/DiT and willisma/SiT. A DiT predicts the noise of
a diffusion of 1000 discrete steps, a SiT the velocity of the straight path; both learn a variance
beside it, which stays in the parameters and out of the output.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fmjax.conditions import ClassIds
from fmjax.conventions import Params
from fmjax.errors import InputError
from fmjax.models.adapters import from_linen
from fmjax.models.dit import PRESETS, DiT
from fmjax.models.embedders import MAX_PERIOD, sincos_2d
from fmjax.models.pretrained.changes import DENSE, SAME, by_head, joined, patches
from fmjax.models.pretrained.family import Config, Family, Shape, count_blocks, nothing
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.results import Network
from fmjax.models.pretrained.rules import Rule, layer
from fmjax.models.transformer import NORM_EPSILON
from fmjax.paths import AffinePath
from fmjax.schedules import DiscreteVP, at_steps
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles

DIFFUSION = DiscreteVP()
_POSITIONS = "pos_embed"
_HEADS = {(size["depth"], size["width"]): size["heads"] for size in PRESETS.values()}
_CLASSES = "the latter is how to fine-tune on other classes"
_ALONE = {"guidance": False, "span": False, "parts": (), "rope": False, "label_tokens": 0}
"""No published layout here has a place for a further input or output, or for tokens of the labels;
a rotation has no tensors."""
DIFFUSERS_PERIOD = MAX_PERIOD ** (128 / 127)
"""Of diffusers, whose 128 frequencies end at 1 / 10,000 where the official ones end before it."""


# ------------------------------------------------------------------------------ official names


def _official(model: DiT) -> tuple[Rule, ...]:
    return (
        *layer("x_embedder.proj", "patch", patches(model.patch_size)),
        *layer("t_embedder.mlp.0", "condition/time/dense_0"),
        *layer("t_embedder.mlp.2", "condition/time/dense_1"),
        Rule("y_embedder.embedding_table.weight", "condition/label/table", hint=_CLASSES),
        *official_blocks("blocks", model.heads),
        *layer("final_layer.adaLN_modulation.1", "adaln/dense"),
        *layer("final_layer.linear", "out"),
    )


def official_blocks(ours: str, heads: int, first: int = 0) -> tuple[Rule, ...]:
    """A stack of blocks under official names, those of LightningDiT and JiT among them.

    Args:
        ours: what the stack is called here.
        heads: of attention.
        first: as in `Rule`.
    """
    theirs = "blocks.*"
    at: dict[str, Any] = {"first": first}
    qkv = f"{ours}/attention/qkv"
    return (
        Rule(f"{theirs}.attn.qkv.weight", f"{qkv}/kernel", by_head(heads, DENSE), **at),
        Rule(f"{theirs}.attn.qkv.bias", f"{qkv}/bias", by_head(heads, SAME), **at),
        *layer(f"{theirs}.attn.proj", f"{ours}/attention/out", **at),
        *layer(f"{theirs}.mlp.fc1", f"{ours}/mlp/up", **at),
        *layer(f"{theirs}.mlp.fc2", f"{ours}/mlp/down", **at),
        *layer(f"{theirs}.adaLN_modulation.1", f"{ours}/adaln/dense", **at),
    )


def _fixed(config: Config) -> Mapping[str, Any]:
    del config
    return {"time_scale": 1.0, "max_period": MAX_PERIOD, "mlp_epsilon": NORM_EPSILON} | _ALONE


def _is_official(shapes: Shapes, config: Config) -> bool:
    del config
    names = ("x_embedder.proj.weight", "blocks.0.attn.qkv.weight", "final_layer.linear.weight")
    # RMSNorm, SwiGLU and rotary positions have tensors of their own.
    return {*names, "blocks.0.mlp.fc1.weight", "y_embedder.embedding_table.weight"} <= shapes.keys()


def _build_official(shapes: Shapes, config: Config) -> DiT:
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    depth = count_blocks(shapes, r"blocks\.(\d+)\.")
    if (depth, width) not in _HEADS:
        raise InputError(
            f"how many heads a DiT of depth {depth} and width {width} has cannot be read from "
            "shapes, and it is none of the published sizes: give model=DiT(...) with its heads."
        )
    return DiT(
        patch_size=patch,
        width=width,
        depth=depth,
        heads=_HEADS[depth, width],
        mlp_ratio=shapes["blocks.0.mlp.fc1.weight"][0] / width,
        conditions=ClassIds(shapes["y_embedder.embedding_table.weight"][0] - 1),
        **_fixed(config),
        variance=shapes["final_layer.linear.weight"][0] == 2 * patch**2 * channels,
    )


def _left_out(files: WeightFiles, model: DiT) -> Mapping[str, str]:
    """The table of positions, once it is that which the network computes."""
    del model
    if _POSITIONS not in files.shapes:
        return {}
    shape = files.shapes[_POSITIONS]
    tokens, width = shape[1:] if len(shape) == 3 else (0, 0)
    side = math.isqrt(tokens)
    fixed = width % 4 == 0 and shape == (1, side**2, width)
    if fixed:  # 16 bits leave three digits
        table = np.asarray(files.read(_POSITIONS), np.float32)
        fixed = np.allclose(table, sincos_2d(side, side, width)[None], atol=1e-2)
    if not fixed:
        raise InputError(
            f"{files.path}: {_POSITIONS} of shape {list(shape)} is not the fixed sines and cosines "
            "of DiT for a square image, which the network here computes by itself."
        )
    return {_POSITIONS: "fixed sines and cosines, which the network computes"}


def _positions(model: DiT, shape: Shape) -> Mapping[str, Any]:
    sizes = [size for size in shape if size is not None]
    if len(sizes) < len(shape):
        raise InputError(
            "the official layout of DiT stores positions for one size of image, and shape="
            f"{shape} has none: write (32, 32, 4), say, for the latents of 256-pixel images."
        )
    rows, columns = (size // model.patch_size for size in sizes[:2])
    return {_POSITIONS: sincos_2d(rows, columns, model.width)[None]}


# ----------------------------------------------------------------------------- diffusers' names

_BLOCK = "transformer_blocks.*"


def _diffusers(model: DiT) -> tuple[Rule, ...]:
    q, k, v = (f"{_BLOCK}.attn1.to_{part}" for part in "qkv")
    heads = model.heads
    copies: dict[str, Any] = {"copies": model.depth}
    embedder = f"{_BLOCK}.norm1.emb"
    return (
        *layer("pos_embed.proj", "patch", patches(model.patch_size)),
        *layer(f"{embedder}.timestep_embedder.linear_1", "condition/time/dense_0", **copies),
        *layer(f"{embedder}.timestep_embedder.linear_2", "condition/time/dense_1", **copies),
        Rule(
            f"{embedder}.class_embedder.embedding_table.weight",
            "condition/label/table",
            hint=_CLASSES,
            **copies,
        ),
        Rule(
            (f"{q}.weight", f"{k}.weight", f"{v}.weight"),
            "blocks/attention/qkv/kernel",
            joined(3, by_head(heads, DENSE)),
        ),
        Rule(
            (f"{q}.bias", f"{k}.bias", f"{v}.bias"),
            "blocks/attention/qkv/bias",
            joined(3, by_head(heads, SAME)),
        ),
        *layer(f"{_BLOCK}.attn1.to_out.0", "blocks/attention/out"),
        *layer(f"{_BLOCK}.ff.net.0.proj", "blocks/mlp/up"),
        *layer(f"{_BLOCK}.ff.net.2", "blocks/mlp/down"),
        *layer(f"{_BLOCK}.norm1.linear", "blocks/adaln/dense"),
        *layer("proj_out_1", "adaln/dense"),
        *layer("proj_out_2", "out"),
    )


def _fixed_of_diffusers(config: Config) -> Mapping[str, Any]:
    epsilon = config.get("norm_eps", 1e-5)
    return {"time_scale": 1.0, "max_period": DIFFUSERS_PERIOD, "mlp_epsilon": epsilon} | _ALONE


def _is_diffusers(shapes: Shapes, config: Config) -> bool:
    names = ("pos_embed.proj.weight", "proj_out_1.weight", "transformer_blocks.0.norm1.linear.bias")
    known = config.get("_class_name", "DiTTransformer2DModel")
    # Before diffusers had a class for each, DiT was a Transformer2DModel.
    return set(names) <= shapes.keys() and known in ("DiTTransformer2DModel", "Transformer2DModel")


def _build_diffusers(shapes: Shapes, config: Config) -> DiT:
    width, channels, patch, _ = shapes["pos_embed.proj.weight"]
    depth = count_blocks(shapes, r"transformer_blocks\.(\d+)\.")
    heads = config.get("num_attention_heads", _HEADS.get((depth, width)))
    if type(heads) is not int or heads < 1 or width % heads:
        raise InputError(
            f"how many heads a DiT of depth {depth} and width {width} has cannot be read from "
            "shapes: give the folder with its config.json, or model=DiT(...) with its heads."
        )
    table = shapes["transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"]
    return DiT(
        patch_size=patch,
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=shapes["transformer_blocks.0.ff.net.0.proj.weight"][0] / width,
        conditions=ClassIds(table[0] - 1),
        **_fixed_of_diffusers(config),
        variance=shapes["proj_out_2.weight"][0] == 2 * patch**2 * channels,
    )


# ------------------------------------------------------------------------------- what they are


def _shape(files: WeightFiles) -> Shape:
    """Of an example: from the table of positions or the configuration, where there is one."""
    shapes = files.shapes
    embedders = ("x_embedder.proj.weight", "pos_embed.proj.weight")
    _, channels, size, _ = next(shapes[name] for name in embedders if name in shapes)
    side = files.config.get("sample_size")
    if _POSITIONS in shapes:
        side = size * math.isqrt(shapes[_POSITIONS][1])
    return (side, side, channels)


def _inputs(model: DiT, shape: Shape) -> tuple:
    """Arrays of one example, of a single patch where the size of an image is not known."""
    height, width, channels = (size or model.patch_size for size in shape)
    return (
        jax.ShapeDtypeStruct((1, height, width, channels), np.float32),
        jax.ShapeDtypeStruct((1,), np.float32),
        jax.ShapeDtypeStruct((1,), np.int32),
    )


def _noise(
    family: Family, model: DiT, params: Params, report: Report, files: WeightFiles
) -> Network:
    apply_fn, shape = at_steps(from_linen(model), DIFFUSION), _shape(files)
    path = AffinePath(DIFFUSION)
    return Network(model, params, apply_fn, "x0", path, family.name, report, shape, True)


def _velocity(
    family: Family, model: DiT, params: Params, report: Report, files: WeightFiles
) -> Network:
    apply_fn, shape = from_linen(model), _shape(files)
    return Network(model, params, apply_fn, "velocity", AffinePath(), family.name, report, shape)


DIT = Family(
    name="dit",
    what="an official DiT",
    kind=DiT,
    accepts=_is_official,
    build=_build_official,
    shape=_shape,
    rules=_official,
    inputs=_inputs,
    finish=_noise,
    left_out=_left_out,
    added=_positions,
    fixed=_fixed,
)
SIT = dataclasses.replace(DIT, name="sit", what="an official SiT", finish=_velocity)
DIFFUSERS = dataclasses.replace(
    DIT,
    name="diffusers-dit",
    what="a DiT of diffusers",
    accepts=_is_diffusers,
    build=_build_diffusers,
    rules=_diffusers,
    left_out=nothing,
    added=nothing,
    fixed=_fixed_of_diffusers,
)
