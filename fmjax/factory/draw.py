"""The draw of a configuration: from a key and a batch of the pipeline to the loss's arguments."""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fmjax import couplings
from fmjax.axes import ROWS
from fmjax.config import ConfigDict
from fmjax.data import pixels
from fmjax.draws import Draw, LossArgs, example_keys
from fmjax.factory.registry import make_coupling, make_time_distribution
from fmjax.training.mesh import row_shards

# `Draw` splits the step's key into its first few children; the pixels take one far from them.
_DEQUANTIZE = 2**31


class Layout(Protocol):
    """How a step is spread over devices: `fmjax.training.parallelism.Jit` or `Pmap`."""

    mesh: Mesh
    axis_name: str | None


def make_draw(config: ConfigDict, null_label: int | None, noisy: bool) -> Callable[..., LossArgs]:
    """``draw(key, batch, layout=None) -> (x0, x1, t, labels)`` for batches of the pipeline.

    Without a layout the batch is whole and on one device, as in validation.

    Raises:
        InputError: a name is unknown, or a value does not fit.
    """
    conditional = null_label is not None
    coupling = make_coupling(config, conditional)
    groups, stratified = config.coupling.groups, config.time.stratified
    dequantized = config.data.dequantize
    draw = Draw(
        time_distribution=make_time_distribution(config),
        null_labels=null_label,
        drop_rate=config.labels.drop_rate,
        noisy=noisy,
    )

    def draw_batch(key: jax.Array, batch: dict, layout: Layout | None = None) -> LossArgs:
        index = batch["index"]
        devices = row_shards(layout.mesh) if layout and layout.axis_name else 1
        placed = dataclasses.replace(
            draw,
            coupling=place_coupling(coupling, groups, len(index), layout),
            stratify=len(index) * devices if stratified else None,
        )
        labels = batch["labels"] if conditional else None
        x1 = batch["x1"]
        if dequantized and x1.dtype == jnp.uint8:  # stored pairs have no levels
            x1 = pixels.dequantize(example_keys(jax.random.fold_in(key, _DEQUANTIZE), index), x1)
        return placed(key, index, pixels.to_unit(x1), labels, batch.get("x0"))

    return draw_batch


def place_coupling(
    coupling: couplings.Coupling, groups: int, batch: int, layout: Layout | None
) -> couplings.Coupling:
    """The coupling over the global batch, in groups: on each device its own where they divide.

    Args:
        coupling: of one batch on one device.
        groups: equal parts of the global batch, each coupled by itself.
        batch: rows at hand: the global batch, or this device's part of it under pmap.
        layout: None for a batch that is not spread over devices.
    """
    if coupling is couplings.independent:
        return coupling
    parts = 1 if layout is None else row_shards(layout.mesh)
    groups = math.gcd(groups, batch * (parts if layout and layout.axis_name else 1))
    if parts == 1:
        return coupling if groups == 1 else couplings.in_groups(coupling, groups)
    jit = {"axis_name": ROWS, "mesh": layout.mesh}
    where = {"axis_name": layout.axis_name} if layout.axis_name else jit
    if groups % parts == 0:
        return couplings.in_groups(coupling, groups, **where)
    if groups > 1:
        coupling = couplings.in_groups(coupling, groups)
    return couplings.gathered(coupling, **where)
