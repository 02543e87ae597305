"""The network of a configuration, by name."""

from typing import Any

import jax
import jax.numpy as jnp

from fmjax.config import ConfigDict
from fmjax.errors import InputError, unknown_name
from fmjax.models import dit, mlp
from fmjax.models.attention import choose_attention

COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def make_model(config: ConfigDict, num_classes: int | None, portable: bool = False) -> Any:
    """The Linen module of ``config.model``.

    Args:
        config: the configuration.
        num_classes: None for an unconditional model.
        portable: whether it must compile for any device and have every derivative, whatever
            attention the configuration asks for.

    Raises:
        InputError: a name or the dtype is unknown, a field that the name needs is missing, or a
            field is set that it does not have.
    """
    c = config.model
    if c.dtype not in COMPUTE_DTYPES:
        raise unknown_name("dtype", c.dtype, COMPUTE_DTYPES)
    given = {k: c[k] for k in ("width", "depth", "heads", "patch_size") if c[k] is not None}
    if c.name == "mlp":
        return _make_mlp(c, given, num_classes)
    common = {
        "num_classes": num_classes,
        "dtype": COMPUTE_DTYPES[c.dtype],
        "scan": c.scan,
        "remat": c.remat,
    }
    if c.name == "dit":
        missing = {"width", "depth", "heads", "patch_size"} - given.keys()
        if missing:
            raise InputError(
                f"model.name='dit' needs model.{', model.'.join(sorted(missing))}; "
                f"or take a preset: {', '.join(sorted(dit.PRESETS))}."
            )
        model = dit.DiT(**given, **common)
    elif c.name in dit.PRESETS:
        model = dit.preset(c.name, **given, **common)
    else:
        raise unknown_name("model", c.name, ["mlp", "dit", *dit.PRESETS])
    if portable:
        return model
    head = model.width // max(model.heads, 1)
    kernel = choose_attention(c.attention, model.dtype, head, jax.default_backend())
    return model.clone(attention=kernel)


def _make_mlp(c: ConfigDict, given: dict[str, int], num_classes: int | None) -> mlp.MLP:
    unused = {"heads", "patch_size"} & given.keys()
    if unused or (c.dtype, c.attention, c.scan, c.remat) != ("float32", "auto", False, "none"):
        raise InputError(
            "the mlp is float32 and has no heads, patch_size, attention, scan or remat; "
            f"got {c.to_dict()}."
        )
    return mlp.MLP(**given, num_classes=num_classes)
