"""The network of a configuration, by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fmjax.config import ConfigDict
from fmjax.errors import InputError, unknown_name
from fmjax.factory.flow_map import output_parts
from fmjax.factory.registry import is_flow_map
from fmjax.models import dit, mlp
from fmjax.models.attention import choose_attention
from fmjax.names import load_maker

COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_DIT_SIZES = ("width", "depth", "heads", "patch_size")


def make_model(config: ConfigDict, conditions: Any, portable: bool = False) -> Any:
    """The Linen module of ``config.model``.

    Args:
        config: the configuration. Its ``model.name`` is one of `MODELS`, or ``my_module:build`` of
            a module of your own, which is called as ``build(config.model, conditions)``.
        conditions: what the labels are, as `fmjax.conditions` describes; None for an unconditional
            model.
        portable: whether it must compile for any device and have every derivative, whatever
            attention the configuration asks for.

    Raises:
        InputError: the name is unknown, a field that the name needs is missing, or a
            field is set that it does not have; or ``config.flow_map`` needs a network of two times,
            and this is none.
    """
    c = config.model
    if ":" in c.name:
        model = _load(c, conditions)
        return _of_two_times(model, config) if is_flow_map(config) else model
    if c.name not in MODELS:
        raise unknown_name("model", c.name, MODELS)
    model = MODELS[c.name](c, conditions)
    if is_flow_map(config):
        model = _of_two_times(model, config)
    if portable or not hasattr(model, "attention"):
        return model
    head = model.width // max(model.heads, 1)
    kernel = choose_attention(c.attention, model.dtype, head, jax.default_backend())
    return model.clone(attention=kernel)


def _of_two_times(model: Any, config: ConfigDict) -> Any:
    """The same module with its field ``span`` set, and those that ``config.flow_map`` asks for."""
    if not hasattr(model, "span"):
        raise InputError(
            "flow_map.name needs a network of two times, and model.name gives a "
            f"{type(model).__name__} without a field span: add span: bool = False, with which it "
            "takes Span(s, t) in the place of t."
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
    unused = _given(c, "heads", "patch_size")
    if unused or (c.dtype, c.attention, c.scan, c.remat) != ("float32", "auto", False, "none"):
        raise InputError(
            "the mlp is float32 and has no heads, patch_size, attention, scan or remat; "
            f"got {c.to_dict()}."
        )
    return mlp.MLP(**_given(c, "width", "depth", "time_scale"), conditions=conditions)


def _dit(c: ConfigDict, conditions: Any) -> dit.DiT:
    missing = set(_DIT_SIZES) - _given(c, *_DIT_SIZES).keys()
    if missing:
        raise InputError(
            f"model.name='dit' needs model.{', model.'.join(sorted(missing))}; "
            f"or take a preset: {', '.join(sorted(dit.PRESETS))}."
        )
    return dit.DiT(**_dit_fields(c, conditions))


def _dit_preset(c: ConfigDict, conditions: Any) -> dit.DiT:
    return dit.preset(c.name, **_dit_fields(c, conditions))


def _dit_fields(c: ConfigDict, conditions: Any) -> dict[str, Any]:
    how = {"dtype": COMPUTE_DTYPES[c.dtype], "scan": c.scan, "remat": c.remat}
    return _given(c, *_DIT_SIZES, "time_scale") | how | {"conditions": conditions}


def _given(c: ConfigDict, *names: str) -> dict[str, Any]:
    """The fields that are set."""
    return {name: c[name] for name in names if c[name] is not None}


MODELS: dict[str, Callable[[ConfigDict, Any], Any]] = {
    "mlp": _mlp,
    "dit": _dit,
    **dict.fromkeys(dit.PRESETS, _dit_preset),
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
