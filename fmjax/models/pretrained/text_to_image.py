"""Stable Diffusion 3 and 3.5, and FLUX.1, under the names of diffusers.

Their networks count time the other way round and predict noise minus data; `MMDiT` and `Flux` know
it (`fmjax.models.text_to_image`), so that the weights stay as they are.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from fmjax.errors import InputError
from fmjax.models.adapters import from_linen
from fmjax.models.flux import Flux
from fmjax.models.mmdit import PRESETS, MMDiT
from fmjax.models.pretrained.changes import Change, patches
from fmjax.models.pretrained.family import Config, Family, Shape, count_blocks
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.results import Network
from fmjax.models.pretrained.rules import Rule, layer
from fmjax.paths import AffinePath
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles

_HEADS = {(size["depth"], size["width"]): size["heads"] for size in PRESETS.values()}
_FLUX_PATCH = 2  # of the packed images; diffusers' patch_size, 1, is that of the packed tokens


# ------------------------------------------------------------------------------ the same in both


def _ends() -> tuple[Rule, ...]:
    """What comes before the blocks and after them, but for the embedding of patches."""
    embed, condition = "time_text_embed", "condition"
    return (
        *layer(f"{embed}.timestep_embedder.linear_1", f"{condition}/time/dense_0"),
        *layer(f"{embed}.timestep_embedder.linear_2", f"{condition}/time/dense_1"),
        *layer(f"{embed}.guidance_embedder.linear_1", f"{condition}/guidance/dense_0"),
        *layer(f"{embed}.guidance_embedder.linear_2", f"{condition}/guidance/dense_1"),
        *layer(f"{embed}.text_embedder.linear_1", f"{condition}/label_pooled/dense_0"),
        *layer(f"{embed}.text_embedder.linear_2", f"{condition}/label_pooled/dense_1"),
        *layer("context_embedder", "text"),
        *layer("norm_out.linear", "adaln/dense"),
        *layer("proj_out", "out"),
    )


def _heads(theirs: str, ours: str, first: int, names: str = "to_{}", norm: str = "") -> list[Rule]:
    """Queries, keys and values of one stream, and the norms of the first two."""
    rules: list[Rule] = []
    for part in "qkv":
        rules += layer(f"{theirs}.{names.format(part)}", f"{ours}/{part}", first=first)
    for part in "qk":
        where = f"{theirs}.norm_{norm}{part}.weight"
        rules.append(Rule(where, f"{ours}/{part}_norm/scale", first=first))
    return rules


def _joint(theirs: str, ours: str, first: int = 0) -> tuple[Rule, ...]:
    """A `JointBlock` of any kind, or a stack of them; `first` as in `Rule`."""
    names = {
        "norm1.linear": "image_adaln/dense",
        "norm1_context.linear": "text_adaln/dense",
        "attn.to_out.0": "attention/image_out",
        "attn.to_add_out": "attention/text_out",
        "attn2.to_out.0": "attention_2/image_out",
        "ff.net.0.proj": "image_mlp/up",
        "ff.net.2": "image_mlp/down",
        "ff_context.net.0.proj": "text_mlp/up",
        "ff_context.net.2": "text_mlp/down",
    }
    rules: list[Rule] = []
    for name, path in names.items():
        rules += layer(f"{theirs}.{name}", f"{ours}/{path}", first=first)
    added = {"names": "add_{}_proj", "norm": "added_"}
    rules += _heads(f"{theirs}.attn", f"{ours}/attention/image", first)
    rules += _heads(f"{theirs}.attn", f"{ours}/attention/text", first, **added)
    rules += _heads(f"{theirs}.attn2", f"{ours}/attention_2/image", first)
    return tuple(rules)


def _accepts(shapes: Shapes, config: Config, kind: str, names: tuple[str, ...]) -> bool:
    both = ("context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight")
    known = config.get("_class_name", kind) == kind
    return known and {*names, *both, "transformer_blocks.0.attn.add_q_proj.weight"} <= shapes.keys()


def _inputs(model: Any, shape: Shape) -> tuple:
    """Arrays of one example with one place of text, of a single patch where no size is known."""

    def floats(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *sizes), np.float32)

    labels = {"text": floats(1, model.text_size), "pooled": floats(model.pooled_size)}
    if getattr(model, "guidance", False):
        labels["guidance"] = floats()
    height, width = (size or model.patch_size for size in shape[:2])
    channels: Any = model.channels or shape[2]  # a data set's are known
    return floats(height, width, channels), floats(), labels


def _fixed(config: Config) -> Mapping[str, Any]:
    del config
    return {"span": False}


def _fixed_of_flux(config: Config) -> Mapping[str, Any]:
    axes = config.get("axes_dims_rope")
    return {**_fixed(config), **({"axes": tuple(axes)} if axes else {})}


def _network(
    family: Family, model: nn.Module, params: Any, report: Report, files: WeightFiles
) -> Network:
    apply_fn, shape = from_linen(model), family.shape(files)
    return Network(model, params, apply_fn, "velocity", AffinePath(), family.name, report, shape)


# --------------------------------------------------------------------------- Stable Diffusion 3


def square(side: int) -> Change:
    """The table of positions, (1, side^2, width) there and (side, side, width) here."""
    return Change(
        lambda theirs: theirs[0].reshape(side, side, -1), lambda x: [x.reshape(1, side**2, -1)]
    )


def _sd3(model: MMDiT) -> tuple[Rule, ...]:
    last = model.depth - 1
    return (
        *_ends(),
        *layer("pos_embed.proj", "patch", patches(model.patch_size)),
        Rule("pos_embed.pos_embed", "positions", square(model.grid)),
        *_joint("transformer_blocks.*", "dual_blocks"),
        *_joint("transformer_blocks.*", "blocks", first=model.dual),
        *_joint(f"transformer_blocks.{last}", "last_block"),
    )


def _is_sd3(shapes: Shapes, config: Config) -> bool:
    names = ("pos_embed.proj.weight", "pos_embed.pos_embed")
    return _accepts(shapes, config, "SD3Transformer2DModel", names)


def _build_sd3(shapes: Shapes, config: Config) -> MMDiT:
    width, channels, patch, _ = shapes["pos_embed.proj.weight"]
    depth = count_blocks(shapes, r"transformer_blocks\.(\d+)\.")
    grid = math.isqrt(shapes["pos_embed.pos_embed"][1])
    norm = shapes.get("transformer_blocks.0.attn.norm_q.weight")
    return MMDiT(
        width=width,
        depth=depth,
        heads=width // norm[0] if norm else _sd3_heads(width, depth, config),
        dual=_dual(shapes, depth),
        qk_norm=norm is not None,
        text_size=shapes["context_embedder.weight"][1],
        pooled_size=shapes["time_text_embed.text_embedder.linear_1.weight"][1],
        channels=channels,
        patch_size=patch,
        grid=grid,
        spacing=config.get("sample_size", 64 * patch) // patch / grid,
    )


def _sd3_heads(width: int, depth: int, config: Config) -> int:
    heads = config.get("num_attention_heads", _HEADS.get((depth, width)))
    if type(heads) is not int or heads < 1 or width % heads:
        raise InputError(
            f"how many heads an MM-DiT of depth {depth} and width {width} has cannot be read from "
            "shapes: give model=MMDiT(...) with its heads, or the folder of diffusers with its "
            "config.json."
        )
    return heads


def _dual(shapes: Shapes, depth: int) -> int:
    """How many of the first blocks have a second attention."""
    found = [i for i in range(depth) if f"transformer_blocks.{i}.attn2.to_q.weight" in shapes]
    if found != list(range(len(found))):
        raise InputError(
            f"the blocks {found} have a second attention, and in the network here the first ones "
            "have, 0, 1 and so on: such weights cannot be loaded."
        )
    return len(found)


def _sd3_shape(files: WeightFiles) -> Shape:
    side = files.config.get("sample_size")
    return (side, side, files.shapes["pos_embed.proj.weight"][1])


# ----------------------------------------------------------------------------------------- FLUX


def _flux(model: Flux) -> tuple[Rule, ...]:
    del model
    single = "single_transformer_blocks.*"
    return (
        *_ends(),
        *layer("x_embedder", "patch"),
        *_joint("transformer_blocks.*", "joint_blocks"),
        *_heads(f"{single}.attn", "single_blocks/attention", 0),
        *layer(f"{single}.norm.linear", "single_blocks/adaln/dense"),
        *layer(f"{single}.proj_mlp", "single_blocks/up"),
        *layer(f"{single}.proj_out", "single_blocks/out"),
    )


def _is_flux(shapes: Shapes, config: Config) -> bool:
    names = ("x_embedder.weight", "single_transformer_blocks.0.proj_mlp.weight")
    return _accepts(shapes, config, "FluxTransformer2DModel", names)


def _build_flux(shapes: Shapes, config: Config) -> Flux:
    width, packed = shapes["x_embedder.weight"]
    head = shapes["transformer_blocks.0.attn.norm_q.weight"][0]
    if sum(config.get("axes_dims_rope", Flux.axes)) != head:
        raise InputError(
            f"how the {head} numbers of a head are turned by three positions cannot be read from "
            "shapes: give model=Flux(...) with its axes, or the folder of diffusers with its "
            "config.json."
        )
    return Flux(
        width=width,
        joint_depth=count_blocks(shapes, r"transformer_blocks\.(\d+)\."),
        single_depth=count_blocks(shapes, r"single_transformer_blocks\.(\d+)\."),
        heads=width // head,
        guidance="time_text_embed.guidance_embedder.linear_1.weight" in shapes,
        **_fixed_of_flux(config),
        text_size=shapes["context_embedder.weight"][1],
        pooled_size=shapes["time_text_embed.text_embedder.linear_1.weight"][1],
        channels=packed // _FLUX_PATCH**2,
        patch_size=_FLUX_PATCH,
    )


def _flux_shape(files: WeightFiles) -> Shape:
    return (None, None, files.shapes["x_embedder.weight"][1] // _FLUX_PATCH**2)


SD3 = Family(
    name="diffusers-sd3",
    what="a Stable Diffusion 3 or 3.5 of diffusers",
    kind=MMDiT,
    accepts=_is_sd3,
    build=_build_sd3,
    shape=_sd3_shape,
    rules=_sd3,
    inputs=_inputs,
    finish=_network,
    fixed=_fixed,
)
FLUX = Family(
    name="diffusers-flux",
    what="a FLUX.1 of diffusers",
    kind=Flux,
    accepts=_is_flux,
    build=_build_flux,
    shape=_flux_shape,
    rules=_flux,
    inputs=_inputs,
    finish=_network,
    fixed=_fixed_of_flux,
)
