"""TAESD, TAESD3, TAEF1 and TAEF2: the official layout of two files, and that of diffusers.

The official names are positions in a sequence; diffusers' decoder counts from one less, because
its first element, a tanh without parameters, is written elsewhere.
"""

import dataclasses
import re
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from fmjax.errors import InputError
from fmjax.models.autoencoders import TinyAutoencoder
from fmjax.models.pretrained.changes import CONV, pointwise
from fmjax.models.pretrained.family import Config, Family, Shape
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.results import Autoencoder, autoencoder
from fmjax.models.pretrained.rules import Rule
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles


def _rules(half: str, there: str, i: str, ours: str) -> tuple[Rule, ...]:
    """The rules of one half, whose layer ``ours`` is called ``i`` there."""
    theirs, mine = f"{there}.{i}", f"{half}/layer_{ours}"
    return (
        Rule(f"{theirs}.weight", f"{mine}/kernel", CONV),
        Rule(f"{theirs}.bias", f"{mine}/bias"),
        Rule(f"{theirs}.conv.{{j}}.weight", f"{mine}/conv_{{j}}/kernel", CONV),
        Rule(f"{theirs}.conv.{{j}}.bias", f"{mine}/conv_{{j}}/bias"),
        Rule(f"{theirs}.pool.{{j}}.weight", f"{mine}/pool_{{j}}/kernel", pointwise()),
        Rule(f"{theirs}.pool.1.weight", f"{mine}/norm/scale"),
        Rule(f"{theirs}.pool.1.bias", f"{mine}/norm/bias"),
    )


def _official(model: TinyAutoencoder) -> tuple[Rule, ...]:
    del model
    return (
        *_rules("encoder", "encoder", "{i}", "{i}"),
        *_rules("decoder", "decoder", "{i}", "{i}"),
    )


def _diffusers(model: TinyAutoencoder) -> tuple[Rule, ...]:
    last = _last_layer(model)
    decoder = (
        rule
        for i in range(1, last + 1)
        for rule in _rules("decoder", "decoder.layers", str(i - 1), str(i))
    )
    return (*_rules("encoder", "encoder.layers", "{i}", "{i}"), *decoder)


def _last_layer(model: TinyAutoencoder) -> int:
    """The number of the decoder's last layer."""
    return 3 + sum(model.decoder_blocks) + 2 * (len(model.decoder_blocks) - 1)


def _is_official(shapes: Shapes, config: Config) -> bool:
    del config
    return {"encoder.0.weight", "encoder.1.conv.0.weight", "decoder.1.weight"} <= shapes.keys()


def _is_diffusers(shapes: Shapes, config: Config) -> bool:
    del config
    return {"encoder.layers.0.weight", "encoder.layers.1.conv.0.weight"} <= shapes.keys()


def _build(shapes: Shapes, infix: str) -> TinyAutoencoder:
    encoder, decoder = (_layers(shapes, f"{half}{infix}.") for half in ("encoder", "decoder"))
    first, last = (f"encoder{infix}.{end(encoder)}.weight" for end in (min, max))
    return TinyAutoencoder(
        latent_channels=shapes[last][0],
        channels=shapes[first][1],
        width=shapes[first][0],
        encoder_blocks=_runs(encoder),
        decoder_blocks=_runs(decoder),
        pooled=any(".pool." in name for name in shapes),
    )


def _layers(shapes: Shapes, prefix: str) -> dict[int, bool]:
    """The layers with parameters, in order: whether each is a block of several."""
    found: dict[int, bool] = {}
    for name in shapes:
        if match := re.match(rf"{re.escape(prefix)}(\d+)\.(conv\.)?", name):
            found[int(match[1])] = bool(match[2]) or found.get(int(match[1]), False)
    return dict(sorted(found.items()))


def _runs(layers: dict[int, bool]) -> tuple[int, ...]:
    """How many blocks lie between each convolution and the next."""
    places = [k for k, block in enumerate(layers.values()) if not block]
    return tuple(after - before - 1 for before, after in pairwise(places))


def _build_official(shapes: Shapes, config: Config) -> TinyAutoencoder:
    del config
    return _build(shapes, "")


def _build_diffusers(shapes: Shapes, config: Config) -> TinyAutoencoder:
    for key, value in {"act_fn": "relu", "upsample_fn": "nearest"}.items():
        if config.get(key, value) != value:
            raise InputError(
                f"a tiny autoencoder with {key}={config[key]!r} is not known here; it must have "
                f"{value!r}."
            )
    return _build(shapes, ".layers")


def _inputs(model: TinyAutoencoder, shape: Shape) -> tuple:
    del shape  # the parameters do not depend on it
    side = model.factor
    return (jax.ShapeDtypeStruct((1, side, side, model.channels), np.float32),)


def _finish(
    family: Family, model: TinyAutoencoder, params: Any, report: Report, files: WeightFiles
) -> Autoencoder:
    del files
    return autoencoder(family.name, model, params, report, scale=1.0, shift=0.0)


OFFICIAL = Family(
    name="taesd",
    what="an official TAESD, TAESD3, TAEF1 or TAEF2",
    kind=TinyAutoencoder,
    accepts=_is_official,
    build=_build_official,
    shape=lambda files: (),
    rules=_official,
    inputs=_inputs,
    finish=_finish,
    of_examples=False,
    halves=True,
)
DIFFUSERS = dataclasses.replace(
    OFFICIAL,
    name="diffusers-taesd",
    what="an AutoencoderTiny of diffusers",
    accepts=_is_diffusers,
    build=_build_diffusers,
    rules=_diffusers,
    halves=False,
)
