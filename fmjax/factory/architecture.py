"""What parameters mean beyond their shapes: networks of equal shapes may differ in all of these."""

from typing import Any

from fmjax.config import ConfigDict
from fmjax.models.embedders import SPAN_SCALE

Architecture = tuple[tuple[str, str], ...]
"""Configuration keys and their values as texts."""

OF_FLOW_MAPS = ("model.span", "model.guidance", "model.parts")
"""No keys of the configuration: what only a network of two times has."""


def architecture(config: ConfigDict, model: Any) -> Architecture:
    """The keys that decide what function the parameters of a network are, with their values.

    Where a key is left to a preset, it is the network's own. How the function is computed (the
    dtype of matrix products, the kernel of attention, loops) is left out: it changes rounding only.

    Args:
        config: every key.
        model: the network that was made of it.
    """
    fields = ("heads", "patch_size", "time_scale", "frequency")
    values = {f"model.{name}": getattr(model, name, config.model[name]) for name in fields}
    if hasattr(model, "head_size"):  # heads by number or by size: the same where sizes are
        sizes = ", ".join(map(str, sorted(model.head_sizes())))
        values["model.heads"] = f"of {sizes} channels"
    # Of the fields of a DiT's blocks the one that no shape tells.
    unseen = ("model.rope", *OF_FLOW_MAPS)
    values |= {key: getattr(model, key.removeprefix("model."), None) for key in unseen}
    if values["model.span"]:
        values["model.span"] = f"t - s times {SPAN_SCALE:g}"
    values |= {"loss.prediction": config.loss.prediction, "model.time": config.model.time}
    values |= {"model.at_steps": config.model.at_steps}
    values |= {f"path.{name}": value for name, value in sorted(config.path.items())}
    return tuple((key, str(value)) for key, value in values.items() if value is not None)


def architecture_changes(stored: Architecture, here: Architecture) -> list[str]:
    """How two architectures differ: ``"key=stored (here: ...)"`` for each key that both have."""
    ours = dict(here)
    return [
        f"{key}={value} (here: {ours[key]})"
        for key, value in stored
        if key in ours and ours[key] != value
    ]
