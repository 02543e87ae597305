"""JiT under its official names, those of LTH14/JiT: LightningDiT's blocks on patches of pixels.

It predicts the image x1 from x_t = t x1 + (1 - t) x0, where x0 is normal noise of standard
deviation 1 for images of 256 pixels, and 2 for those of 512.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from fmjax.conventions import Params
from fmjax.errors import InputError
from fmjax.models.adapters import from_linen
from fmjax.models.dit import PRESETS, DiT
from fmjax.models.pretrained import dit, lightningdit
from fmjax.models.pretrained.changes import Change, patches, pointwise
from fmjax.models.pretrained.family import Config, Family, Shape, count_blocks
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.results import Network
from fmjax.models.pretrained.rules import Rule, layer
from fmjax.paths import AffinePath
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles

_FIRST, _SECOND = "x_embedder.proj1.weight", "x_embedder.proj2"
_TOKENS, _TABLE = "in_context_posemb", "y_embedder.embedding_table.weight"
_FROM = {
    (size["depth"], size["width"]): size["label_tokens_from"]
    for size in PRESETS.values()
    if "label_tokens_from" in size
}
_BATCH_OF_ONE = Change(lambda theirs: theirs[0][0], lambda x: [x[None]])


def _rules(model: DiT) -> tuple[Rule, ...]:
    """Those of LightningDiT, behind the parts that it has not."""
    return (
        Rule(_FIRST, "bottleneck/kernel", patches(model.patch_size)),
        *layer(_SECOND, "patch", pointwise()),
        Rule(_TOKENS, "label_tokens", _BATCH_OF_ONE),
        *lightningdit.modern_blocks("later_blocks", model.heads, model.label_tokens_from),
        *lightningdit.LIGHTNING.rules(model),
    )


def _fixed(config: Config) -> Mapping[str, Any]:
    fields = {**lightningdit.fixed(config), "qk_norm": True}
    del fields["label_tokens"]  # shapes tell
    return fields


def _accepts(shapes: Shapes, config: Config) -> bool:
    del config
    return {_FIRST, f"{_SECOND}.weight", _TOKENS, _TABLE} <= shapes.keys()


def _build(shapes: Shapes, config: Config) -> nn.Module:
    width, narrow, *_ = shapes[f"{_SECOND}.weight"]
    depth = count_blocks(shapes, r"blocks\.(\d+)\.")
    if (depth, width) not in _FROM:
        raise InputError(
            f"how many heads a JiT of depth {depth} and width {width} has, and where its tokens of "
            "the class come in, cannot be read from shapes, and it is none of the published sizes: "
            "give model=DiT(...) with its heads and label_tokens_from."
        )
    _, channels, patch, _ = shapes[_FIRST]
    as_light = {**shapes, "x_embedder.proj.weight": (width, channels, patch, patch)}
    return lightningdit.LIGHTNING.build(as_light, config).clone(
        **_fixed(config),
        bottleneck=narrow,
        label_tokens=shapes[_TOKENS][1],
        label_tokens_from=_FROM[depth, width],
    )


def _shape(files: WeightFiles) -> Shape:
    _, channels, patch, _ = files.shapes[_FIRST]
    side = patch * math.isqrt(files.shapes["pos_embed"][1]) if "pos_embed" in files.shapes else None
    return (side, side, channels)


def _image(
    family: Family, model: DiT, params: Params, report: Report, files: WeightFiles
) -> Network:
    apply_fn, shape = from_linen(model), _shape(files)
    return Network(model, params, apply_fn, "x1", AffinePath(), family.name, report, shape)


JIT = dataclasses.replace(
    dit.SIT,
    name="jit",
    what="an official JiT",
    accepts=_accepts,
    build=_build,
    shape=_shape,
    rules=_rules,
    finish=_image,
    fixed=_fixed,
)
