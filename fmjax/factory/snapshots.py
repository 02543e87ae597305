"""What a configuration with ``data.time`` stands for: a flow through snapshots."""

import numpy as np

from fmjax.config import ConfigDict
from fmjax.data.snapshots import SnapshotSplits
from fmjax.errors import InputError
from fmjax.factory.data_spec import DataSpec
from fmjax.factory.settings import changed_keys
from fmjax.sources import Empirical

_USUAL = (
    "source.name",
    "coupling.name",
    "flow_map.name",
    "loss.prediction",
    "loss.target",
    "loss.weight",
    "data.dequantize",
    "data.flip",
    "data.levels",
)


def check_snapshots(config: ConfigDict, spec: DataSpec) -> None:
    """Checks that nothing else is asked of a flow through snapshots.

    Raises:
        InputError: something is, or the configuration and the data do not agree.
    """
    if (spec.timeline is None) != (config.data.time is None):
        raise InputError(
            f"data.time={config.data.time} and the data, with "
            f"{'no' if spec.timeline is None else 'their'} times, do not go together."
        )
    if spec.timeline is None:
        return
    for key, value in changed_keys(config, _USUAL).items():
        raise InputError(
            f"a flow through snapshots (data.time={config.data.time}) starts from the first of "
            f"them and pairs neighbours itself: leave {key} out; got {value!r}."
        )


def check_one_distribution(spec: DataSpec, what: str) -> None:
    """Checks that a flow leads to one distribution of data.

    Args:
        spec: of its data.
        what: needs that, as the message names it.

    Raises:
        InputError: it goes through snapshots, each with a distribution of its own.
    """
    if spec.timeline is not None:
        raise InputError(
            f"{what} is of flows that lead to one distribution of data, and this one goes through "
            "snapshots; sample it with --from and --to."
        )


def snapshot_source(snapshots: SnapshotSplits, time: float | None = None) -> Empirical:
    """The states of the snapshot at a time, training and held-out ones, as a source.

    Args:
        snapshots: of the data set.
        time: of which snapshot; the first one if None.

    Raises:
        InputError: there is none at that time.
    """
    known = snapshots.test.times
    if time is None:
        time = known[0]
    if time not in known:
        raise InputError(
            f"there is no snapshot at {time:g}, of those at {', '.join(f'{t:g}' for t in known)}; "
            "give points to start from by --x0, or the time of one of these."
        )
    parts = (snapshots.known, snapshots.test)
    return Empirical(np.concatenate([part.points[time] for part in parts]))
