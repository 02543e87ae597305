"""The network of a configuration, by name."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fmjax.conditions import Mask, Sequence, Vector
from fmjax.config import ConfigDict
from fmjax.errors import InputError, unknown_name
from fmjax.factory.flow_map import output_parts
from fmjax.factory.registry import is_flow_map
from fmjax.models import dit, flux, fourier_mlp, mlp, mmdit, token_transformer, unet
from fmjax.models.attention import choose_attention
from fmjax.models.text_to_image import MASK
from fmjax.names import load_maker

COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_DIT_SIZES = _MMDIT_SIZES = ("width", "depth", "heads", "patch_size")
_UNET_SIZES = _TRANSFORMER_SIZES = ("width", "depth", "heads")
_FLUX_SIZES = ("width", "depth", "single_depth", "heads", "patch_size")
_UNSET = 0  # a vocabulary, until the data say it
_OF_UNET = ("channel_mult", "attention_factors")
_OF_TEXT = ("single_depth", "grid")
_LATER = (
    *("norm", "mlp", "mlp_ratio", "qk_norm", "rope"),
    *("bottleneck", "label_tokens", "label_tokens_from"),
)
_OF_DIT = ("variance", *_LATER)
_OF_FOURIER = ("features", "frequency")


def make_model(
    config: ConfigDict, conditions: Any, portable: bool = False, vocabulary: int | None = None
) -> Any:
    """The Linen module of ``config.model``.

    Args:
        config: the configuration. Its ``model.name`` is one of `MODELS`, or ``my_module:build`` of
            a module of your own, which is called as ``build(config.model, conditions)``.
        conditions: what the labels are, as `fmjax.conditions` describes; None for an unconditional
            model.
        portable: whether it must compile for any device and have every derivative, whatever
            attention the configuration asks for.
        vocabulary: how many tokens the data have; None for data of numbers. A module of your own
            that takes tokens has a field of this name, which is set to it.

    Raises:
        InputError: the name is unknown, a field that the name needs is missing, or a
            field is set that it does not have; or ``config.flow_map`` needs a network of two times,
            and this is none; or the network is of tokens, and the data are not.
    """
    c = config.model
    own = ":" in c.name
    if not own and c.name not in MODELS:
        raise unknown_name("model", c.name, MODELS)
    model = _load(c, conditions) if own else MODELS[c.name](c, conditions)
    model = _of_vocabulary(model, c.name, vocabulary)
    if c.tied and not own and not hasattr(model, "tied"):
        raise InputError(f"model.tied is of token_transformer; got model.name={c.name!r}.")
    if c.guidance_scale is not None and not isinstance(model, flux.Flux):
        raise InputError(
            f"model.guidance_scale is an input of flux; got model.name={c.name!r}: leave it out."
        )
    if is_flow_map(config):
        model = _of_two_times(model, config)
    if own or portable or not hasattr(model, "attention"):
        return model
    platform = jax.default_backend()
    kernels = {
        choose_attention(c.attention, model.dtype, size, platform) for size in model.head_sizes()
    }
    return model.clone(attention="xla" if "xla" in kernels else "cudnn")


def _of_vocabulary(model: Any, name: str, vocabulary: int | None) -> Any:
    """The same module, its field ``vocabulary`` set where it has one."""
    if not hasattr(model, "vocabulary"):
        return model
    if vocabulary is None:
        raise InputError(
            f"model.name={name!r} takes tokens, and the data are numbers: take model.name=dit, "
            "unet or mlp, or a data set of tokens."
        )
    return model.clone(vocabulary=vocabulary)


def _of_two_times(model: Any, config: ConfigDict) -> Any:
    """The same module with its field ``span`` set, and those that ``config.flow_map`` asks for."""
    if not hasattr(model, "span"):
        raise InputError(
            "flow_map.name needs a network of two times, and model.name gives a "
            f"{type(model).__name__} without a field span: add span: bool = False, with which it "
            "takes Span(s, t) in the place of t."
        )
    if isinstance(model, flux.Flux) and config.flow_map.guidance_max is not None:
        raise InputError(
            "flow_map.guidance_max is no input of flux, whose own scale of guidance is of another "
            "kind: leave it out, or take model.name=dit."
        )
    if config.model.guidance_scale is not None:
        raise InputError(
            "model.guidance_scale is no input of a flow map: write flow_map.name=none, or leave it "
            "out."
        )
    asked = {"guidance": config.flow_map.guidance_max is not None, "parts": output_parts(config)}
    given = {name: value for name, value in asked.items() if value}
    for name, value in given.items():
        if not hasattr(model, name):
            raise InputError(
                f"config.flow_map asks for a network with {name}={value!r}, and model.name gives a "
                f"{type(model).__name__} without a field {name}: add it, or leave guidance_max, "
                "second_head and divergence out."
            )
    return model.clone(span=True, **given)


def _mlp(c: ConfigDict, conditions: Any) -> mlp.MLP:
    _check_plain(c)
    _check_unused(c, *_OF_FOURIER)
    return mlp.MLP(**_given(c, "width", "depth", "time_scale"), conditions=conditions)


def _fourier_mlp(c: ConfigDict, conditions: Any) -> fourier_mlp.FourierMLP:
    _check_plain(c)
    _check_unused(c, "time_scale")
    sizes = _given(c, "width", "depth", *_OF_FOURIER)
    return fourier_mlp.FourierMLP(**sizes, conditions=conditions)


def _check_plain(c: ConfigDict) -> None:
    """Checks that nothing is asked of an MLP which it has not."""
    _check_unused(c, "heads", "patch_size", "scan", *_OF_DIT, *_OF_UNET, *_OF_TEXT)
    if (c.dtype, c.attention, c.remat) != ("float32", "auto", "none"):
        raise InputError(
            f"the {c.name} is float32 and has no attention or remat; got "
            f"{ {name: c[name] for name in ('dtype', 'attention', 'remat')} }."
        )


def _dit_fields(c: ConfigDict, conditions: Any) -> dict[str, Any]:
    _check_unused(c, *_OF_UNET, *_OF_TEXT, *_OF_FOURIER)
    how = {"dtype": COMPUTE_DTYPES[c.dtype], "scan": c.scan, "remat": c.remat}
    how |= {"variance": c.variance}
    return _given(c, *_DIT_SIZES, *_LATER, "time_scale") | how | {"conditions": conditions}


def _unet_fields(c: ConfigDict, conditions: Any) -> dict[str, Any]:
    _check_unused(c, "patch_size", "scan", *_OF_DIT, *_OF_TEXT, *_OF_FOURIER)
    how = {"dtype": COMPUTE_DTYPES[c.dtype], "remat": c.remat, "conditions": conditions}
    lists = {name: _numbers(name, text) for name, text in _given(c, *_OF_UNET).items()}
    return _given(c, *_UNET_SIZES, "time_scale") | lists | how


def _transformer_fields(c: ConfigDict, conditions: Any) -> dict[str, Any]:
    _check_unused(c, "patch_size", *_OF_DIT, *_OF_UNET, *_OF_TEXT, *_OF_FOURIER)
    how = {"dtype": COMPUTE_DTYPES[c.dtype], "scan": c.scan, "remat": c.remat, "tied": c.tied}
    given = _given(c, *_TRANSFORMER_SIZES, "time_scale")
    return given | how | {"conditions": conditions, "vocabulary": _UNSET}


def _mmdit_fields(c: ConfigDict, conditions: Any) -> dict[str, Any]:
    others = (name for name in _OF_DIT if name != "qk_norm")
    _check_unused(c, "single_depth", "time_scale", *others, *_OF_UNET, *_OF_FOURIER)
    # As far apart as in the published networks, whose grids are of 192 and 384, or by one.
    table = {} if c.grid is None else {"grid": c.grid, "spacing": min(1.0, 64 / c.grid)}
    return _given(c, *_MMDIT_SIZES, "qk_norm") | table | _of_text(c, conditions)


def _sized_flux(**fields: Any) -> flux.Flux:
    """Of one's own sizes, which share a head among three positions as FLUX.1 does."""
    return flux.Flux(axes=flux.usual_axes(fields["width"] // fields["heads"]), **fields)


def _flux_fields(c: ConfigDict, conditions: Any) -> dict[str, Any]:
    _check_unused(c, "grid", "time_scale", *_OF_DIT, *_OF_UNET, *_OF_FOURIER)
    sizes = _given(c, *_FLUX_SIZES)
    if "depth" in sizes:
        sizes["joint_depth"] = sizes.pop("depth")
    published = flux.PRESETS.get(c.name, {})
    takes_scale = c.guidance_scale is not None
    if published and published.get("guidance", False) != takes_scale:
        raise InputError(
            f"model.name={c.name!r} takes no scale of guidance as an input: leave "
            "model.guidance_scale out."
            if takes_scale
            else f"model.name={c.name!r} takes a scale of guidance as an input: say at which it "
            "trains, e.g. model.guidance_scale=3.5."
        )
    return sizes | {"guidance": takes_scale} | _of_text(c, conditions)


def _of_text(c: ConfigDict, conditions: Any) -> dict[str, Any]:
    """How it is computed, and the sizes of the text that the labels describe."""
    kinds = {"text": Sequence, "pooled": Vector}
    found = conditions if isinstance(conditions, dict) else {}
    if {n: type(x) for n, x in found.items()} not in (kinds, kinds | {MASK: Mask}):
        raise InputError(
            f"model.name={c.name!r} takes the features of a text, conditions called text, a "
            "sequence, and pooled, a vector, and perhaps the text's mask, text_mask; got "
            f"{conditions!r:.200}: choose features of the data by data.conditions=text,pooled."
        )
    how = {"dtype": COMPUTE_DTYPES[c.dtype], "scan": c.scan, "remat": c.remat, "channels": None}
    text = {"text_size": found["text"].size, "text_length": found["text"].length}
    return how | text | {"pooled_size": found["pooled"].size}


def _numbers(name: str, text: str) -> tuple[float, ...]:
    """The numbers of a text such as "1,2,2,2"; those that are whole as such."""
    if text == "none":
        return ()
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"model.{name}={text!r}: expected numbers with commas between, e.g. 1,2,2,2."
        ) from None
    return tuple(int(number) if number.is_integer() else number for number in numbers)


def _check_sizes(c: ConfigDict, names: tuple[str, ...], presets: Iterable[str]) -> None:
    missing = set(names) - _given(c, *names).keys()
    if missing:
        raise InputError(
            f"model.name={c.name!r} needs model.{', model.'.join(sorted(missing))}; "
            f"or take a preset: {', '.join(sorted(presets))}."
        )


def _check_unused(c: ConfigDict, *names: str) -> None:
    unused = {name: c[name] for name in names if c[name] not in (None, False)}
    if unused:
        given = ", ".join(f"model.{name}={value!r}" for name, value in unused.items())
        raise InputError(f"model.name={c.name!r} has no such fields; leave out {given}.")


def _given(c: ConfigDict, *names: str) -> dict[str, Any]:
    """The fields that are set."""
    return {name: c[name] for name in names if c[name] is not None}


class _Family(NamedTuple):
    """A kind of network.

    Attributes:
        build: of sizes that the configuration names, ``build(**fields)``.
        preset: of published sizes, ``preset(name, **fields)``.
        presets: their names.
        sizes: the keys of the configuration that one's own sizes need.
        fields: ``fields(config.model, conditions)``, what the configuration sets.
    """

    build: Callable[..., Any]
    preset: Callable[..., Any]
    presets: Iterable[str]
    sizes: tuple[str, ...]
    fields: Callable[[ConfigDict, Any], dict[str, Any]]

    def of_sizes(self, c: ConfigDict, conditions: Any) -> Any:
        """The network of the sizes that the configuration names."""
        _check_sizes(c, self.sizes, self.presets)
        return self.build(**self.fields(c, conditions))

    def of_preset(self, c: ConfigDict, conditions: Any) -> Any:
        """The network of published sizes."""
        return self.preset(c.name, **self.fields(c, conditions))


_FAMILIES = {
    "dit": _Family(dit.DiT, dit.preset, dit.PRESETS, _DIT_SIZES, _dit_fields),
    "unet": _Family(unet.UNet, unet.preset, unet.PRESETS, _UNET_SIZES, _unet_fields),
    "token_transformer": _Family(
        token_transformer.TokenTransformer,
        token_transformer.preset,
        token_transformer.PRESETS,
        _TRANSFORMER_SIZES,
        _transformer_fields,
    ),
    "mmdit": _Family(mmdit.MMDiT, mmdit.preset, mmdit.PRESETS, _MMDIT_SIZES, _mmdit_fields),
    "flux": _Family(_sized_flux, flux.preset, flux.PRESETS, _FLUX_SIZES, _flux_fields),
}
MODELS: dict[str, Callable[[ConfigDict, Any], Any]] = {
    "mlp": _mlp,
    "fourier_mlp": _fourier_mlp,
    **{name: family.of_sizes for name, family in _FAMILIES.items()},
    **{name: family.of_preset for family in _FAMILIES.values() for name in family.presets},
}
"""``build(config.model, conditions)``, the module, by name."""


def _load(c: ConfigDict, conditions: Any) -> Any:
    """The module of ``my_module:build``."""
    model = load_maker("model.name", c.name)(c, conditions)
    if not (hasattr(model, "init") and hasattr(model, "apply")):
        raise InputError(
            f"model.name={c.name!r} must give a Linen module, with init and apply; it gave one of "
            f"type {type(model).__name__}."
        )
    return model
