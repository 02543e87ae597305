"""The U-Net of torchcfm and of flow_matching's image examples, in the names of guided-diffusion.

Both predict the velocity of the straight path, with t = 1 at the data and unscaled. They differ in
the order of the channels of a head's queries, keys and values, and in the table of classes, which
in flow_matching has a last row for no class. Heads cannot be read from shapes: those of published
sizes are known.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.models.adapters import from_linen
from fmjax.models.pretrained.changes import CONV, DENSE, SAME, Change, by_head
from fmjax.models.pretrained.family import Config, Family, Shape
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.results import Network
from fmjax.models.pretrained.rules import Rule, layer
from fmjax.models.unet import PRESETS, UNet, places
from fmjax.models.unet_blocks import Place
from fmjax.paths import AffinePath
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles

_NAMES = ("time_embed.0", "input_blocks.0.0", "middle_block.1.qkv", "out.2")
_CLASSES = "the latter is how to fine-tune on other classes"
_POINT = Change(lambda theirs: theirs[0][..., 0].T, lambda x: [x.T[..., None]])
"""The weight of a dense layer of ours that is a convolution along one axis, of one place, there."""
_NO_CLASS = Change(
    lambda theirs: np.concatenate([theirs[0], np.zeros_like(theirs[0][:1])]), lambda x: [x[:-1]]
)
"""A table of classes that gains a row of zeros for no class, which does not go out again."""


def _norm(theirs: str, ours: str) -> tuple[Rule, Rule]:
    return Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")


def _residual(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        *_norm(f"{theirs}.in_layers.0", f"{ours}/norm_0"),
        *layer(f"{theirs}.in_layers.2", f"{ours}/conv_0", CONV),
        *layer(f"{theirs}.emb_layers.1", f"{ours}/condition", DENSE),
        *_norm(f"{theirs}.out_layers.0", f"{ours}/norm_1"),
        *layer(f"{theirs}.out_layers.3", f"{ours}/conv_1", CONV),
        *layer(f"{theirs}.skip_connection", f"{ours}/skip", CONV),
    )


def _attention(theirs: str, ours: str, heads: int, by_kind: bool) -> tuple[Rule, ...]:
    weight, bias = (by_head(heads, c) if by_kind else c for c in (_POINT, SAME))
    return (
        *_norm(f"{theirs}.norm", f"{ours}/norm"),
        Rule(f"{theirs}.qkv.weight", f"{ours}/attention/qkv/kernel", weight),
        Rule(f"{theirs}.qkv.bias", f"{ours}/attention/qkv/bias", bias),
        *layer(f"{theirs}.proj_out", f"{ours}/attention/out", _POINT),
    )


def _place(place: Place, theirs: str, resampling: str, by_kind: bool) -> tuple[Rule, ...]:
    """Of one place of ours, whose modules are numbered there."""
    ours, number = place.name, 0
    rules: list[Rule] = []
    if place.residual:
        rules += _residual(f"{theirs}.{number}", f"{ours}/residual")
        number += 1
    if place.heads:
        rules += _attention(f"{theirs}.{number}", f"{ours}/attention", place.heads, by_kind)
        number += 1
    if place.resample and resampling == "residual":
        rules += _residual(f"{theirs}.{number}", f"{ours}/resample")
    elif place.resample:
        inner = {"down": "op", "up": "conv"}[place.resample]
        rules += layer(f"{theirs}.{number}.{inner}", f"{ours}/resample", CONV)
    return tuple(rules)


def _rules(model: UNet, by_kind: bool, table: Change) -> tuple[Rule, ...]:
    """The table of names; `by_kind`: channels are first all queries, then all keys, all values."""
    down, middle, up = places(model)
    rules = [
        *layer("time_embed.0", "condition/time/dense_0"),
        *layer("time_embed.2", "condition/time/dense_1"),
        Rule("label_emb.weight", "condition/label/table", table, hint=_CLASSES),
        *layer("input_blocks.0.0", "in", CONV),
        *_residual("middle_block.0", "middle_0/residual"),
        *_attention("middle_block.1", "middle_0/attention", middle[0].heads, by_kind),
        *_residual("middle_block.2", "middle_1/residual"),
        *_norm("out.0", "norm"),
        *layer("out.2", "out", CONV),
    ]
    for name, way in (("input_blocks", down), ("output_blocks", up)):
        for place in way:
            number = place.name.partition("_")[2]
            rules += _place(place, f"{name}.{number}", model.resampling, by_kind)
    return tuple(rules)


def _accepts(shapes: Shapes, config: Config) -> bool:
    del config
    return {f"{name}.weight" for name in _NAMES} <= shapes.keys()


def _fixed(config: Config) -> Mapping[str, Any]:
    del config
    return {"time_scale": 1.0}


def _numbers(shapes: Shapes, blocks: str) -> set[int]:
    """The numbers of the blocks that have parameters."""
    return {int(found[1]) for name in shapes if (found := re.match(rf"{blocks}\.(\d+)\.", name))}


def _resampling(shapes: Shapes) -> tuple[str, int]:
    """How sides are doubled, and how often."""
    for name, inner in (("conv", "conv"), ("residual", r"in_layers\.0")):
        pattern = rf"output_blocks\.\d+\.[12]\.{inner}\.weight"
        if found := sum(re.fullmatch(pattern, key) is not None for key in shapes):
            return name, found
    inputs = _numbers(shapes, "input_blocks")  # a mean has no parameters: its number is left out
    return "pool", max(inputs) + 1 - len(inputs)


def _weight(shapes: Shapes, name: str) -> tuple[int, ...]:
    if f"{name}.weight" not in shapes:
        raise InputError(
            f"a U-Net of these names has {name}.weight, and it is missing: the file is of another "
            "network, or not whole."
        )
    return shapes[f"{name}.weight"]


def _sizes(shapes: Shapes) -> dict[str, Any]:
    """The fields of ours that shapes tell."""
    width = _weight(shapes, "time_embed.0")[1]
    resampling, doublings = _resampling(shapes)
    levels = doublings + 1
    depth = (max(_numbers(shapes, "output_blocks"), default=0) + 1) // levels - 1
    first = [f"input_blocks.{level * (depth + 1) + 1}" for level in range(levels)]
    channels = [_weight(shapes, f"{block}.0.out_layers.3")[0] for block in first]
    vectors = _weight(shapes, f"{first[0]}.0.emb_layers.1")[0]
    return {
        "width": width,
        "depth": depth,
        "channel_mult": tuple(n // width if n % width == 0 else n / width for n in channels),
        "attention_factors": tuple(
            2**level for level, block in enumerate(first) if f"{block}.1.qkv.weight" in shapes
        ),
        "scale_shift": vectors == 2 * channels[0],
        "resampling": resampling,
    }


def _build(shapes: Shapes, nulls: int) -> UNet:
    """The network of a published size; `nulls` rows of its table of classes are no class."""
    inputs, outputs = _weight(shapes, "input_blocks.0.0")[1], _weight(shapes, "out.2")[0]
    if inputs != outputs:
        raise InputError(
            f"this U-Net takes {inputs} channels and gives {outputs}: it learned a variance or "
            "takes images beside x, as ADM's do; only velocities shaped as x are read."
        )
    sizes = _sizes(shapes)
    rows = shapes.get("label_emb.weight", (0,))[0]
    conditions = ClassIds(rows - nulls) if rows else None
    for fields in PRESETS.values():
        model = UNet(**fields, conditions=conditions, **_fixed({}))
        if all(getattr(model, name) == value for name, value in sizes.items()):
            return model
    given = ", ".join(f"{name}={value!r}" for name, value in sizes.items())
    raise InputError(
        f"how many heads a U-Net of {given} has cannot be read from shapes, and it is none of the "
        "published sizes: give model=UNet(...) with its heads and time_scale=1.0."
    )


def _shape(files: WeightFiles) -> Shape:
    return None, None, _weight(files.shapes, "input_blocks.0.0")[1]


def _inputs(model: UNet, shape: Shape) -> tuple:
    """Arrays of one example, of the smallest sides where those of an image are not known."""
    smallest = 2 ** (len(model.channel_mult) - 1)
    height, width, channels = (size or smallest for size in shape)
    labels = None if model.conditions is None else jax.ShapeDtypeStruct((1,), np.int32)
    return (
        jax.ShapeDtypeStruct((1, height, width, channels), np.float32),
        jax.ShapeDtypeStruct((1,), np.float32),
        labels,
    )


def _finish(
    family: Family, model: UNet, params: Any, report: Report, files: WeightFiles
) -> Network:
    apply_fn, shape = from_linen(model), _shape(files)
    return Network(model, params, apply_fn, "velocity", AffinePath(), family.name, report, shape)


def _family(name: str, what: str, by_kind: bool, nulls: int) -> Family:
    table: Change = SAME if nulls else _NO_CLASS
    return Family(
        name=name,
        what=what,
        kind=UNet,
        accepts=_accepts,
        build=lambda shapes, config: _build(shapes, nulls),
        shape=_shape,
        rules=partial(_rules, by_kind=by_kind, table=table),
        inputs=_inputs,
        finish=_finish,
        fixed=_fixed,
    )


TORCHCFM = _family("torchcfm-unet", "a U-Net of torchcfm", by_kind=False, nulls=0)
FLOW_MATCHING = _family("flow-matching-unet", "a U-Net of flow_matching", by_kind=True, nulls=1)
