"""Evaluates a flow through snapshots: where it carries the first one, against what was measured."""

import jax
import numpy as np
from jaxtyping import Shaped

from fmjax.data.dataset import Dataset
from fmjax.factory import Recipe
from fmjax.metrics.transport import wasserstein
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples

_MOST = 2000  # points of exact optimal transport
ORDERS = (1, 2)


def evaluate_snapshots(flow: TrainedFlow, dataset: Dataset, recipe: Recipe) -> dict | None:
    """Carries held-out examples of the first snapshot to every later time, and measures them.

    Args:
        flow: a trained flow, on all processes.
        dataset: with snapshots.
        recipe: how to solve.

    Returns:
        A dict that goes into JSON, under ``"snapshots"``: ``"from"``, the time of the first, and
        ``"to"``, by time ``"W1"`` and ``"W2"``, from the carried examples to as
        many held-out ones of that time, in the data's own unit; ``"between"``, the same between
        held-out and training examples, as many; ``"examples"``, and whether that snapshot was
        ``"held_out"`` itself. None on all processes but the first.
    """
    splits, codec = dataset.snapshots, flow.experiment.spec.codec
    first, *later = splits.test.times
    start = splits.test.points[first]
    found = {}
    for time in later:
        asked = Request(len(start), x0=start, start=first, end=time)
        carried = draw_samples(flow, *resolve(flow.experiment, asked, recipe))
        there, known = (
            np.asarray(codec.decode(part.points[time])) for part in (splits.test, splits.known)
        )
        size = min(len(carried), len(there), len(known), _MOST)
        carried, there, known = (_some(x, size) for x in (carried, there, known))
        found[f"{time:g}"] = {
            **{f"W{p}": wasserstein(carried, there, p) for p in ORDERS},
            "between": {f"W{p}": wasserstein(known, there, p) for p in ORDERS},
            "examples": size,
            "held_out": time == splits.held_out,
        }
    if jax.process_index() != 0:
        return None
    return {"snapshots": {"from": first, "to": found}}


def describe_snapshots(report: dict) -> str:
    """What is under ``"snapshots"`` in a line for each time, for a person."""
    lines = []
    for time, figures in report["to"].items():
        between = figures["between"]
        unseen = ", a snapshot that was not trained on" if figures["held_out"] else ""
        lines.append(
            f"carried from {report['from']:g} to {time}{unseen}: W1 {figures['W1']:.4g}, W2 "
            f"{figures['W2']:.4g} (between two measured sets of {figures['examples']}: "
            f"{between['W1']:.4g}, {between['W2']:.4g})"
        )
    return "\n".join(lines)


def _some(x: Shaped[np.ndarray, " n *shape"], size: int) -> Shaped[np.ndarray, " some *shape"]:
    """A fixed random choice of rows."""
    return x[np.random.default_rng(0).permutation(len(x))[:size]]
