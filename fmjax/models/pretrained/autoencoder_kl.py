"""AutoencoderKL in the layouts of diffusers: Stable Diffusion, SD3 and FLUX.1.

SD3's and FLUX.1's have the same names and shapes, and latents of other scales: where there is no
``config.json`` that says the scale, the layout has to be named. Older files of Stable Diffusion
call the parts of the attention otherwise, and some have them as pointwise convolutions.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from fmjax.errors import InputError
from fmjax.models.autoencoders import AutoencoderKL
from fmjax.models.pretrained.changes import CONV, DENSE, Change, pointwise
from fmjax.models.pretrained.family import Config, Family, Shape, count_blocks
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.results import Autoencoder, autoencoder
from fmjax.models.pretrained.rules import Rule, layer
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles

_SCALES = {"sd-vae": (0.18215, 0.0), "sd3-vae": (1.5305, 0.0609), "flux-vae": (0.3611, 0.1159)}


_PARTS = ("to_q", "to_k", "to_v", "to_out.0")
_OLD_PARTS = ("query", "key", "value", "proj_attn")
_OLD = "encoder.mid_block.attentions.0.query.weight"


def _norm(theirs: str, ours: str) -> tuple[Rule, Rule]:
    return Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")


def _resnet(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        *_norm(f"{theirs}.norm1", f"{ours}/norm1"),
        *layer(f"{theirs}.conv1", f"{ours}/conv1", CONV),
        *_norm(f"{theirs}.norm2", f"{ours}/norm2"),
        *layer(f"{theirs}.conv2", f"{ours}/conv2", CONV),
        *layer(f"{theirs}.conv_shortcut", f"{ours}/shortcut", pointwise()),
    )


def _half(
    half: str, stages: str, stage: str, sampler: str, parts: tuple[str, ...], change: Change
) -> tuple[Rule, ...]:
    middle, attention = f"{half}.mid_block", f"{half}.mid_block.attentions.0"
    return (
        *layer(f"{half}.conv_in", f"{half}/conv_in", CONV),
        *_resnet(f"{half}.{stages}.{{i}}.resnets.{{j}}", f"{half}/{stage}_{{i}}/resnet_{{j}}"),
        *layer(f"{half}.{stages}.{{i}}.{sampler}.0.conv", f"{half}/{stage}_{{i}}/{stage}", CONV),
        *_resnet(f"{middle}.resnets.{{j}}", f"{half}/middle/resnet_{{j}}"),
        *_norm(f"{attention}.group_norm", f"{half}/middle/attention/norm"),
        *(
            rule
            for theirs, ours in zip(parts, ("q", "k", "v", "out"), strict=True)
            for rule in layer(f"{attention}.{theirs}", f"{half}/middle/attention/{ours}", change)
        ),
        *_norm(f"{half}.conv_norm_out", f"{half}/norm_out"),
        *layer(f"{half}.conv_out", f"{half}/conv_out", CONV),
    )


def _rules(
    model: AutoencoderKL, parts: tuple[str, ...] = _PARTS, change: Change = DENSE
) -> tuple[Rule, ...]:
    del model
    return (
        *_half("encoder", "down_blocks", "down", "downsamplers", parts, change),
        *_half("decoder", "up_blocks", "up", "upsamplers", parts, change),
        *layer("quant_conv", "quant_layer", pointwise()),
        *layer("post_quant_conv", "post_quant_layer", pointwise()),
    )


def _is_kl(shapes: Shapes, config: Config) -> bool:
    names = ("encoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight")
    known = config.get("_class_name", "AutoencoderKL") == "AutoencoderKL"
    return known and set(names) <= shapes.keys() and len(shapes[names[0]]) == 4


def _is_sd(shapes: Shapes, config: Config) -> bool:
    return _is_kl(shapes, config) and "quant_conv.weight" in shapes and _OLD not in shapes


def _is_old(shapes: Shapes, config: Config, axes: int) -> bool:
    return _is_kl(shapes, config) and len(shapes.get(_OLD, ())) == axes


def _is_sd3(shapes: Shapes, config: Config) -> bool:
    of_sd3 = config.get("shift_factor", _SCALES["sd3-vae"][1]) == _SCALES["sd3-vae"][1]
    return _is_kl(shapes, config) and "quant_conv.weight" not in shapes and of_sd3


def _is_flux(shapes: Shapes, config: Config) -> bool:
    other = not (config and _is_sd3(shapes, config))
    return _is_kl(shapes, config) and "quant_conv.weight" not in shapes and other


def _build(shapes: Shapes, config: Config) -> AutoencoderKL:
    if config.get("act_fn", "silu") != "silu":
        raise InputError(
            f"an AutoencoderKL with act_fn={config['act_fn']!r} is not known here; it must have "
            "'silu'."
        )
    stages = count_blocks(shapes, r"encoder\.down_blocks\.(\d+)\.")
    blocks = count_blocks(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")
    groups = config.get("norm_num_groups", 32)
    widths = tuple(
        shapes[f"encoder.down_blocks.{i}.resnets.0.conv2.weight"][0] for i in range(stages)
    )
    return AutoencoderKL(
        latent_channels=shapes["decoder.conv_in.weight"][1],
        channels=shapes["encoder.conv_in.weight"][1],
        widths=widths,
        blocks=blocks,
        quant="quant_conv.weight" in shapes,
        post_quant="post_quant_conv.weight" in shapes,
        attention=any(".attentions." in name for name in shapes),
        groups=groups,
    )


def _inputs(model: AutoencoderKL, shape: Shape) -> tuple:
    del shape  # the parameters do not depend on it
    side = model.factor
    return (jax.ShapeDtypeStruct((1, side, side, model.channels), np.float32),)


def _finish(
    family: Family, model: AutoencoderKL, params: Any, report: Report, files: WeightFiles
) -> Autoencoder:
    scale, shift = _SCALES.get(family.name, _SCALES["sd-vae"])
    scale = files.config.get("scaling_factor", scale)
    shift = files.config.get("shift_factor", shift) or 0.0  # null in Stable Diffusion's
    return autoencoder(family.name, model, params, report, scale, shift)


SD = Family(
    name="sd-vae",
    what="an AutoencoderKL of Stable Diffusion",
    kind=AutoencoderKL,
    accepts=_is_sd,
    build=_build,
    shape=lambda files: (),
    rules=_rules,
    inputs=_inputs,
    finish=_finish,
    of_examples=False,
)
OLD = dataclasses.replace(
    SD,
    name="sd-vae-old",
    what="an AutoencoderKL of Stable Diffusion from before 2023",
    accepts=partial(_is_old, axes=2),
    rules=partial(_rules, parts=_OLD_PARTS),
)
OLDEST = dataclasses.replace(
    OLD,
    name="sd-vae-oldest",
    what="an AutoencoderKL of Stable Diffusion whose attention is of convolutions",
    accepts=partial(_is_old, axes=4),
    rules=partial(_rules, parts=_OLD_PARTS, change=pointwise()),
)
SD3 = dataclasses.replace(SD, name="sd3-vae", what="the AutoencoderKL of SD3", accepts=_is_sd3)
FLUX = dataclasses.replace(
    SD, name="flux-vae", what="the AutoencoderKL of FLUX.1", accepts=_is_flux
)
