"""Stable Diffusion 3 and 3.5, and FLUX.1, under the names of their official code.

Against diffusers', queries, keys and values are one product, as is in FLUX.1's single blocks the
first of the feed-forward layer with them, and where a modulation has two parts, shift and scale
stand in the other order. The networks are the same.

The names stand alone, or behind ``model.diffusion_model.`` in a file that holds an autoencoder or
text encoders too, as Stability AI publishes them: each layout here is there twice.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from fmjax.models.flux import Flux
from fmjax.models.mmdit import MMDiT
from fmjax.models.pretrained import text_to_image as of_diffusers
from fmjax.models.pretrained.changes import DENSE, SAME, patches, swapped_halves
from fmjax.models.pretrained.family import Config, Family, Shape
from fmjax.models.pretrained.rules import Rows, Rule, layer
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles

PREFIX = "model.diffusion_model."


# ------------------------------------------------------------------------------ the same in both


def _parts(theirs: str, ours: tuple[str, ...], first: int = 0) -> list[Rule]:
    """Dense layers of equal size that are one there, row after row."""
    rules: list[Rule] = []
    for i, path in enumerate(ours):
        rules += layer(theirs, path, first=first, rows=Rows(i, i + 1, len(ours)))
    return rules


def _heads(ours: str) -> tuple[str, ...]:
    return tuple(f"{ours}/{part}" for part in "qkv")


def _norms(query: str, key: str, ours: str, first: int = 0) -> list[Rule]:
    """The norms of queries and keys."""
    return [
        Rule(query, f"{ours}/q_norm/scale", first=first),
        Rule(key, f"{ours}/k_norm/scale", first=first),
    ]


def _shift_first(theirs: str, ours: str) -> tuple[Rule, ...]:
    """A modulation of two parts."""
    return (
        Rule(f"{theirs}.weight", f"{ours}/kernel", swapped_halves(DENSE)),
        Rule(f"{theirs}.bias", f"{ours}/bias", swapped_halves(SAME)),
    )


def _last() -> tuple[Rule, ...]:
    return (
        *_shift_first("final_layer.adaLN_modulation.1", "adaln/dense"),
        *layer("final_layer.linear", "out"),
    )


def _renamed(shapes: Shapes, names: Mapping[str, str]) -> Shapes:
    """The shapes by which diffusers' layout tells a network's sizes, under its names."""
    found = {}
    for name, shape in shapes.items():
        block = re.search(r"_blocks\.(\d+)\.", name)
        number = block[1] if block else ""
        key = name.replace(f"_blocks.{number}.", "_blocks.*.")
        if key in names:
            found[names[key].replace("*", number)] = shape
    return found


# --------------------------------------------------------------------------- Stable Diffusion 3

_SD3_SIZES = {
    "x_embedder.proj.weight": "pos_embed.proj.weight",
    "pos_embed": "pos_embed.pos_embed",
    "context_embedder.weight": "context_embedder.weight",
    "y_embedder.mlp.0.weight": "time_text_embed.text_embedder.linear_1.weight",
    "joint_blocks.*.x_block.mlp.fc1.weight": "transformer_blocks.*.ff.net.0.proj.weight",
    "joint_blocks.*.x_block.attn.ln_q.weight": "transformer_blocks.*.attn.norm_q.weight",
    "joint_blocks.*.x_block.attn2.qkv.weight": "transformer_blocks.*.attn2.to_q.weight",
}


def _sd3_stream(theirs: str, ours: tuple[str, str], first: int) -> list[Rule]:
    """The weights of image or text in joint blocks; `ours` are the block and the stream."""
    at, stream = ours
    norm = f"{theirs}.attn.ln_"
    heads = f"{at}/attention/{stream}"
    return [
        *_parts(f"{theirs}.attn.qkv", _heads(heads), first),
        *_norms(f"{norm}q.weight", f"{norm}k.weight", heads, first),
        *layer(f"{theirs}.attn.proj", f"{at}/attention/{stream}_out", first=first),
        *layer(f"{theirs}.mlp.fc1", f"{at}/{stream}_mlp/up", first=first),
        *layer(f"{theirs}.mlp.fc2", f"{at}/{stream}_mlp/down", first=first),
        *layer(f"{theirs}.adaLN_modulation.1", f"{at}/{stream}_adaln/dense", first=first),
    ]


def _sd3_blocks(theirs: str, ours: str, first: int = 0) -> list[Rule]:
    second = f"{theirs}.x_block.attn2"
    heads = f"{ours}/attention_2/image"
    return [
        *_sd3_stream(f"{theirs}.x_block", (ours, "image"), first),
        *_sd3_stream(f"{theirs}.context_block", (ours, "text"), first),
        *_parts(f"{second}.qkv", _heads(heads), first),
        *_norms(f"{second}.ln_q.weight", f"{second}.ln_k.weight", heads, first),
        *layer(f"{second}.proj", f"{ours}/attention_2/image_out", first=first),
    ]


def _sd3(model: MMDiT) -> tuple[Rule, ...]:
    last = f"joint_blocks.{model.depth - 1}"
    return (
        *layer("x_embedder.proj", "patch", patches(model.patch_size)),
        Rule("pos_embed", "positions", of_diffusers.square(model.grid)),
        *layer("t_embedder.mlp.0", "condition/time/dense_0"),
        *layer("t_embedder.mlp.2", "condition/time/dense_1"),
        *layer("y_embedder.mlp.0", "condition/label_pooled/dense_0"),
        *layer("y_embedder.mlp.2", "condition/label_pooled/dense_1"),
        *layer("context_embedder", "text"),
        *_sd3_blocks("joint_blocks.*", "dual_blocks"),
        *_sd3_blocks("joint_blocks.*", "blocks", first=model.dual),
        # The text's modulation of the last block has two parts, the others' six.
        *_shift_first(f"{last}.context_block.adaLN_modulation.1", "last_block/text_adaln/dense"),
        *_sd3_blocks(last, "last_block"),
        *_last(),
    )


def _is_sd3(shapes: Shapes, config: Config) -> bool:
    del config
    names = ("x_embedder.proj.weight", "pos_embed", "context_embedder.weight")
    return {*names, "joint_blocks.0.context_block.attn.qkv.weight"} <= shapes.keys()


def _build_sd3(shapes: Shapes, config: Config) -> nn.Module:
    return of_diffusers.SD3.build(_renamed(shapes, _SD3_SIZES), config)


def _sd3_shape(files: WeightFiles) -> Shape:
    return of_diffusers.SD3.shape(files._replace(shapes=_renamed(files.shapes, _SD3_SIZES)))


# ----------------------------------------------------------------------------------------- FLUX

_FLUX_SIZES = {
    "img_in.weight": "x_embedder.weight",
    "txt_in.weight": "context_embedder.weight",
    "vector_in.in_layer.weight": "time_text_embed.text_embedder.linear_1.weight",
    "guidance_in.in_layer.weight": "time_text_embed.guidance_embedder.linear_1.weight",
    "double_blocks.*.img_attn.norm.query_norm.scale": "transformer_blocks.*.attn.norm_q.weight",
    "single_blocks.*.linear1.weight": "single_transformer_blocks.*.proj_mlp.weight",
}


def _flux_stream(theirs: str, ours: str) -> list[Rule]:
    """The weights of image or text in double blocks."""
    at, block = f"double_blocks.*.{theirs}", "joint_blocks"
    heads, norm = f"{block}/attention/{ours}", f"{at}_attn.norm"
    return [
        *layer(f"{at}_mod.lin", f"{block}/{ours}_adaln/dense"),
        *_parts(f"{at}_attn.qkv", _heads(heads)),
        *_norms(f"{norm}.query_norm.scale", f"{norm}.key_norm.scale", heads),
        *layer(f"{at}_attn.proj", f"{block}/attention/{ours}_out"),
        *layer(f"{at}_mlp.0", f"{block}/{ours}_mlp/up"),
        *layer(f"{at}_mlp.2", f"{block}/{ours}_mlp/down"),
    ]


def _flux_single() -> list[Rule]:
    theirs, ours = "single_blocks.*", "single_blocks"
    heads, first = f"{ours}/attention", f"{theirs}.linear1"
    rules: list[Rule] = []
    for i, path in enumerate(_heads(heads)):  # rows of size D, and 4 D of the feed-forward layer
        rules += layer(first, path, rows=Rows(i, i + 1, of=7))
    return [
        *rules,
        *layer(first, f"{ours}/up", rows=Rows(3, 7, of=7)),
        *_norms(f"{theirs}.norm.query_norm.scale", f"{theirs}.norm.key_norm.scale", heads),
        *layer(f"{theirs}.modulation.lin", f"{ours}/adaln/dense"),
        *layer(f"{theirs}.linear2", f"{ours}/out"),
    ]


def _flux(model: Flux) -> tuple[Rule, ...]:
    del model
    ends = {"time_in": "time", "guidance_in": "guidance", "vector_in": "label_pooled"}
    rules: list[Rule] = []
    for theirs, ours in ends.items():
        rules += layer(f"{theirs}.in_layer", f"condition/{ours}/dense_0")
        rules += layer(f"{theirs}.out_layer", f"condition/{ours}/dense_1")
    return (
        *rules,
        *layer("img_in", "patch"),
        *layer("txt_in", "text"),
        *_flux_stream("img", "image"),
        *_flux_stream("txt", "text"),
        *_flux_single(),
        *_last(),
    )


def _is_flux(shapes: Shapes, config: Config) -> bool:
    del config
    names = ("img_in.weight", "txt_in.weight", "vector_in.in_layer.weight")
    blocks = ("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight")
    return {*names, *blocks} <= shapes.keys()


def _build_flux(shapes: Shapes, config: Config) -> nn.Module:
    return of_diffusers.FLUX.build(_renamed(shapes, _FLUX_SIZES), config)


def _flux_shape(files: WeightFiles) -> Shape:
    return of_diffusers.FLUX.shape(files._replace(shapes=_renamed(files.shapes, _FLUX_SIZES)))


# ------------------------------------------------------------- one file with an autoencoder, too


def _inside(shapes: Shapes) -> Shapes:
    """The network's own, without the prefix."""
    found = {name: shape for name, shape in shapes.items() if name.startswith(PREFIX)}
    return {name.removeprefix(PREFIX): shape for name, shape in found.items()}


def _in_single_file(family: Family) -> Family:
    """The same network under the same names, behind the prefix."""

    def left_out(files: WeightFiles, model: Any) -> Mapping[str, str]:
        del model
        others = (name for name in files.shapes if not name.startswith(PREFIX))
        return dict.fromkeys(others, "of another network in the same file")

    def rules(model: Any) -> tuple[Rule, ...]:
        return tuple(rule._replace(theirs=f"{PREFIX}{rule.theirs}") for rule in family.rules(model))

    return dataclasses.replace(
        family,
        name=f"{family.name}-single-file",
        what=f"{family.what} in a file with other networks",
        accepts=lambda shapes, config: family.accepts(_inside(shapes), config),
        build=lambda shapes, config: family.build(_inside(shapes), config),
        shape=lambda files: family.shape(files._replace(shapes=_inside(files.shapes))),
        rules=rules,
        left_out=left_out,
    )


SD3 = dataclasses.replace(
    of_diffusers.SD3,
    name="sd3",
    what="an official Stable Diffusion 3 or 3.5",
    accepts=_is_sd3,
    build=_build_sd3,
    shape=_sd3_shape,
    rules=_sd3,
)
FLUX = dataclasses.replace(
    of_diffusers.FLUX,
    name="flux",
    what="an official FLUX.1",
    accepts=_is_flux,
    build=_build_flux,
    shape=_flux_shape,
    rules=_flux,
)
SD3_SINGLE_FILE = _in_single_file(SD3)
FLUX_SINGLE_FILE = _in_single_file(FLUX)
