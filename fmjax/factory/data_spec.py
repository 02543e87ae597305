"""What a model has to know of its data: what they are, and what their labels are."""

import dataclasses
from typing import Any, NamedTuple

import jax

from fmjax.conditions import ClassIds, Mask, check_conditions
from fmjax.config import ConfigDict
from fmjax.data.codecs import Codec
from fmjax.data.dataset import Dataset
from fmjax.data.snapshots import Timeline
from fmjax.errors import InputError, unknown_name


class DataSpec(NamedTuple):
    """What a model has to know of its data; goes into a run's record.

    Attributes:
        codec: what the data are, and how they become states.
        conditions: what the labels are, built as they are; None for data without labels.
        timeline: the times of the snapshots that the flow goes through; None for one from a source
            to the data.
    """

    codec: Codec
    conditions: Any = None
    timeline: Timeline | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example as a state."""
        return self.codec.shape


def spec_of(dataset: Dataset) -> DataSpec:
    """What a model has to know of a data set."""
    snapshots = dataset.snapshots
    timeline = None if snapshots is None else Timeline(snapshots.train.times)
    return DataSpec(dataset.codec, dataset.conditions, timeline)


def model_conditions(config: ConfigDict, spec: DataSpec) -> Any:
    """The conditions of the model: those of the data that ``config.labels`` chooses, with rates.

    A condition that the data set gives no drop rate has that of the configuration.

    Raises:
        InputError: the data have no labels, or not the condition that is chosen; or a value of
            ``config.labels`` does not fit.
    """
    c = config.labels
    if not c.conditional or spec.timeline is not None:
        return None
    if spec.conditions is None:
        raise InputError(
            f"data.name={config.data.name!r} has no labels; write labels.conditional=False."
        )
    check_conditions(spec.conditions)  # a record of a run may say anything
    chosen = _chosen(config, spec)
    check_conditions(chosen)
    if c.null is not None and not isinstance(chosen, ClassIds):
        raise InputError(
            f"labels.null={c.null} is a class, and the labels are not one array of class ids; "
            "leave it out."
        )

    def fill_in(condition: Any) -> Any:
        changes = {"null": c.null} if c.null is not None else {}
        if condition.drop_rate == 0 and not isinstance(condition, Mask):
            changes["drop_rate"] = c.drop_rate
        return dataclasses.replace(condition, **changes)

    return jax.tree.map(fill_in, chosen)


def chosen_labels(labels: Any, conditions: Any) -> Any:
    """Those of the labels that the conditions describe."""
    if conditions is None:
        return None
    if isinstance(conditions, dict) and isinstance(labels, dict):
        return {name: labels[name] for name in conditions if name in labels}
    return labels


def _chosen(config: ConfigDict, spec: DataSpec) -> Any:
    only = config.labels.only
    if only is None:
        return spec.conditions
    known = spec.conditions if isinstance(spec.conditions, dict) else {}
    for name in only.split(","):
        if name not in known:
            raise unknown_name(f"condition of {config.data.name} (labels.only)", name, known)
    chosen = set(only.split(","))
    # A mask goes with its sequence: without it, what fills a sequence up would be read as content.
    masks = {n for n, one in known.items() if isinstance(one, Mask) and one.of in chosen}
    return {name: one for name, one in known.items() if name in chosen | masks}
