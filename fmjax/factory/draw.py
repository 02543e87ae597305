"""The draw of a configuration: from a key and a batch of the pipeline to the loss's arguments."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from fmjax import couplings
from fmjax.axes import ROWS
from fmjax.config import ConfigDict
from fmjax.conventions import example_keys
from fmjax.data.codecs import States
from fmjax.data.points import space_of
from fmjax.draws import Draw, LossArgs
from fmjax.factory.data_spec import DataSpec, chosen_labels
from fmjax.factory.flow_map import make_span_distribution
from fmjax.factory.registry import is_flow_map, make_coupling, make_time_distribution
from fmjax.sources import Law, Source
from fmjax.training.mesh import row_shards

# `Draw` splits the step's key into its first few children; the pixels take one far from them.
_DEQUANTIZE = 2**31


class Layout(Protocol):
    """How a step is spread over devices: `fmjax.training.parallelism.Jit` or `Pmap`."""

    mesh: Mesh
    axis_name: str | None


def make_draw(
    config: ConfigDict,
    spec: DataSpec,
    conditions: Any,
    source: Source,
    noise: Mapping[str, Law],
) -> Callable[..., LossArgs]:
    """``draw(key, batch, layout=None) -> (x0, x1, t, labels)`` for batches of the pipeline.

    Without a layout the batch is whole and on one device, as in validation.

    Args:
        config: the configuration.
        spec: of the data.
        conditions: of the model.
        source: of x0, where the batch brings none.
        noise: what the loss takes beside the pair.

    Raises:
        InputError: a name is unknown, or a value does not fit.
    """
    coupling = make_coupling(config, conditions, space_of(spec.codec))
    groups, stratified = config.coupling.groups, config.time.stratified
    # Stored pairs are states, whatever the data are: a flow made them. So are snapshots.
    stored = config.coupling.name == "pairs" or spec.timeline is not None
    codec = States(spec.shape) if stored else spec.codec
    dequantized = config.data.dequantize and not stored
    law = make_span_distribution if is_flow_map(config) else make_time_distribution
    draw = Draw(
        time_distribution=law(config),
        conditions=conditions,
        drop_all=config.labels.drop_all,
        source=source,
        noise=noise,
    )

    def draw_batch(key: PRNGKeyArray, batch: dict, layout: Layout | None = None) -> LossArgs:
        index = batch["index"]
        devices = row_shards(layout.mesh) if layout and layout.axis_name else 1
        placed = dataclasses.replace(
            draw,
            coupling=place_coupling(coupling, groups, len(index), layout),
            stratify=len(index) * devices if stratified else None,
        )
        if dequantized:
            keys = example_keys(jax.random.fold_in(key, _DEQUANTIZE), index)
            x1 = codec.dequantize(keys, batch["x1"])
        else:
            x1 = codec.encode(batch["x1"])
        labels = batch.get("labels")
        if spec.timeline is None:  # else the labels are the interval of each pair
            labels = chosen_labels(labels, conditions)
        return placed(key, index, x1, labels, batch.get("x0"))

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
    if parts == 1 or layout is None:
        return coupling if groups == 1 else couplings.in_groups(coupling, groups)
    jit: dict[str, Any] = {"axis_name": ROWS, "mesh": layout.mesh}
    where = {"axis_name": layout.axis_name} if layout.axis_name else jit
    if groups % parts == 0:
        return couplings.in_groups(coupling, groups, **where)
    if groups > 1:
        coupling = couplings.in_groups(coupling, groups)
    return couplings.gathered(coupling, **where)
