"""A network from a table of published sizes."""

from typing import Any, TypeVar

from flax import linen as nn

from fmjax.errors import unknown_name

Module = TypeVar("Module", bound=nn.Module)


def from_preset(
    module: type[Module],
    presets: dict[str, dict[str, Any]],
    name: str,
    overrides: dict[str, Any],
) -> Module:
    """The network of a name, with some fields changed.

    Args:
        module: its class.
        presets: the fields by name.
        name: one of them.
        overrides: fields to set or to change.

    Returns:
        The module.

    Raises:
        InputError: there is no such preset or no such field.
    """
    kind = module.__name__
    if name not in presets:
        raise unknown_name(f"{kind} preset", name, presets)
    fields = set(module.__dataclass_fields__) - {"parent", "name"}
    for field in overrides:
        if field not in fields:
            raise unknown_name(f"field of {kind}", field, fields)
    return module(**{**presets[name], **overrides})
