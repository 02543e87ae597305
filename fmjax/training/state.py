"""The train state: everything that a step changes, and nothing else."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Int

from fmjax.conventions import Array
from fmjax.training.frozen import split


class TrainState(NamedTuple):
    """One state for jit and for pmap, with no device axis.

    Attributes:
        step: updates made so far, int32 scalar.
        params: the parameters, float32.
        ema_params: their exponential moving average, float32; None where none is kept.
        opt_state: the optimiser's state.
    """

    step: Int[Any, ""]
    params: Any
    ema_params: Any
    opt_state: Any


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    average: bool = True,
    frozen: Sequence[str] = (),
) -> TrainState:
    """The state before the first step; the average starts as a copy of the parameters.

    A copy, because the state is donated and one buffer cannot be donated twice; in float32, because
    an average of decay 0.9999 held in bfloat16 never moves.

    Args:
        params: the parameters.
        optimizer: the optax transformation.
        average: whether an average is kept.
        frozen: patterns of the parameters that are not trained; see `fmjax.training.frozen`.
    """
    copied = jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=copied if average else None,
        opt_state=optimizer.init(split(params, frozen)[0]),
    )


@jax.jit
def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number of a tree is finite, a bool scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
