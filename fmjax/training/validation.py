"""The held-out loss: of the same examples, noise and times whenever it is asked for."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PRNGKeyArray

from fmjax.data.streams import Stream
from fmjax.training.mesh import by_rows, row_shards, within
from fmjax.training.step import Batch, drawn_from, on_drawn

_HELD_OUT = 512


def held_out_batch(stream: Stream) -> Batch:
    """Held-out examples as the pipeline gives a batch; their number a power of two, for a mesh."""
    batch = stream.take(_HELD_OUT)
    found = len(jax.tree.leaves(batch)[0])
    n = 1 << (found.bit_length() - 1)
    return {**jax.tree.map(lambda x: x[:n], batch), "index": np.arange(n, dtype=np.int32)}


def make_validation(
    loss_fn: Callable, draw: Callable[[PRNGKeyArray, Batch], Any], batch: Batch, mesh: Mesh
) -> Callable[[Any], float]:
    """``validate(params) -> loss`` on fixed examples with fixed noise and times.

    Args:
        loss_fn: as in `fmjax.training.step.on_drawn`; the parameters are their own target.
        draw: of a batch that is whole.
        batch: from `held_out_batch`.
        mesh: of the parameters.
    """
    whole = NamedSharding(mesh, P())
    rows = by_rows(mesh) if len(batch["index"]) % row_shards(mesh) == 0 else whole

    @partial(jax.jit, out_shardings=whole)
    def loss(params, batch):
        batch = jax.lax.with_sharding_constraint(batch, rows)
        drawn = drawn_from(draw(jax.random.key(0), batch))
        with within(mesh):
            return on_drawn(loss_fn)(params, drawn, params)

    return lambda params: float(loss(params, batch))
