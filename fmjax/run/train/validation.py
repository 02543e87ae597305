"""The validation loss: the same held-out examples, noise and times at every checkpoint."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.data.dataset import Dataset
from fmjax.run.train.setup import Run
from fmjax.training.mesh import by_rows, row_shards, within

_HELD_OUT = 512


def make_validation(run: Run) -> Callable[[Any], float]:
    """``validate(params) -> loss`` on fixed held-out examples with fixed noise and times."""
    mesh, experiment = run.layout.mesh, run.experiment
    batch = held_out(run.training)
    whole = NamedSharding(mesh, P())
    rows = by_rows(mesh) if len(batch["x1"]) % row_shards(mesh) == 0 else whole

    @partial(jax.jit, out_shardings=whole)
    def loss(params, batch):
        batch = jax.lax.with_sharding_constraint(batch, rows)
        args = experiment.draw(jax.random.key(0), batch)
        with within(mesh):
            return experiment.loss_fn(params, *args)

    return lambda params: float(loss(params, batch))


def held_out(dataset: Dataset) -> dict[str, np.ndarray]:
    """Test examples as the pipeline gives a batch; their number a power of two, for the mesh."""
    read_pairs = getattr(dataset.test, "read_pairs", None)
    if read_pairs is None:
        x1, labels = dataset.arrays("test", _HELD_OUT)
        batch = {"x1": x1, "labels": labels}
    else:
        chosen = np.arange(min(_HELD_OUT, len(dataset.test)))
        batch = dict(zip(("x0", "x1", "labels"), read_pairs(chosen), strict=True))
    n = 1 << (len(batch["x1"]).bit_length() - 1)
    batch["index"] = np.arange(len(batch["x1"]), dtype=np.int32)
    return {name: x[:n] for name, x in batch.items() if x is not None}
