"""LightningDiT under its official names, those of hustvl/LightningDiT.

The names are SiT's where the parts are, and so are time and output: a velocity at t in [0, 1].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from fmjax.errors import InputError
from fmjax.models.dit import DiT
from fmjax.models.pretrained import dit
from fmjax.models.pretrained.family import Config, Shape
from fmjax.models.pretrained.rules import Rule, layer
from fmjax.models.rope import axial_rotation, grid_positions
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles

_ROTATIONS = ("feat_rope.freqs_cos", "feat_rope.freqs_sin")


def _rules(model: DiT) -> tuple[Rule, ...]:
    """Those of SiT, behind the parts that it has not."""
    return (
        *modern_blocks("blocks", model.heads),
        Rule("final_layer.norm_final.weight", "norm/scale"),
        *dit.SIT.rules(model),
    )


def modern_blocks(ours: str, heads: int, first: int = 0) -> tuple[Rule, ...]:
    """A stack of blocks with RMSNorm and SwiGLU; arguments as of `dit.official_blocks`."""
    theirs = "blocks.*"
    at: dict[str, Any] = {"first": first}
    return (
        Rule(f"{theirs}.norm1.weight", f"{ours}/norm_1/scale", **at),
        Rule(f"{theirs}.norm2.weight", f"{ours}/norm_2/scale", **at),
        Rule(f"{theirs}.attn.q_norm.weight", f"{ours}/attention/q_norm/scale", **at),
        Rule(f"{theirs}.attn.k_norm.weight", f"{ours}/attention/k_norm/scale", **at),
        *layer(f"{theirs}.mlp.w12", f"{ours}/mlp/up", **at),
        *layer(f"{theirs}.mlp.w3", f"{ours}/mlp/down", **at),
        *dit.official_blocks(ours, heads, first),
    )


def fixed(config: Config) -> Mapping[str, Any]:
    """Fields that shapes do not tell."""
    return {**dit.SIT.fixed(config), "norm": "rms", "mlp": "swiglu", "rope": True}


def _accepts(shapes: Shapes, config: Config) -> bool:
    del config
    names = ("x_embedder.proj.weight", "blocks.0.norm1.weight", "blocks.0.mlp.w12.weight")
    return {*names, *_ROTATIONS, "y_embedder.embedding_table.weight"} <= shapes.keys()


def _build(shapes: Shapes, config: Config) -> nn.Module:
    hidden = shapes["blocks.0.mlp.w12.weight"][0] // 2
    as_sit = {**shapes, "blocks.0.mlp.fc1.weight": (hidden, 0)}
    return dit.SIT.build(as_sit, config).clone(
        **fixed(config), qk_norm="blocks.0.attn.q_norm.weight" in shapes
    )


def _rotations(model: DiT, rows: int, columns: int) -> dict[str, np.ndarray]:
    """Cosines and sines as they are stored, each twice, once for each number of a pair."""
    half = model.width // model.heads // 2
    rotation = axial_rotation(grid_positions(rows, columns), (half, half))
    return {name: np.repeat(x, 2, axis=1) for name, x in zip(_ROTATIONS, rotation, strict=True)}


def _left_out(files: WeightFiles, model: DiT) -> Mapping[str, str]:
    """The tables of positions, once they are those which the network computes."""
    side = int(files.shapes[_ROTATIONS[0]][0] ** 0.5)
    for name, x in _rotations(model, side, side).items():
        if files.shapes[name] != x.shape or not np.allclose(files.read(name), x, atol=1e-3):
            raise InputError(
                f"{files.path}: {name} is not the rotation by row and column of a square image, "
                "which the network here computes by itself."
            )
    why = "fixed cosines and sines, which the network computes"
    return {**dit.SIT.left_out(files, model), **dict.fromkeys(_ROTATIONS, why)}


def _added(model: DiT, shape: Shape) -> Mapping[str, Any]:
    positions = dit.SIT.added(model, shape)
    rows, columns = (int(size or 0) // model.patch_size for size in shape[:2])
    return {**positions, **_rotations(model, rows, columns)}


LIGHTNING = dataclasses.replace(
    dit.SIT,
    name="lightningdit",
    what="an official LightningDiT",
    accepts=_accepts,
    build=_build,
    rules=_rules,
    left_out=_left_out,
    added=_added,
    fixed=fixed,
)
