"""What is checked of a call of `fit` before any device works: by shapes alone."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fmjax.conventions import Output
from fmjax.data.streams import Stream
from fmjax.errors import InputError
from fmjax.names import named_leaves
from fmjax.training.frozen import split
from fmjax.training.settings import Settings
from fmjax.training.state import TrainState
from fmjax.training.step import Batch, Drawn, drawn_from, on_drawn

_BY = "params must be a pytree of floating-point arrays, as from_nnx and from_equinox give them"


def check_params(params: Any) -> None:
    """Checks that every leaf is an array of floats, or the shape of one.

    Raises:
        InputError: one is not.
    """
    leaves = named_leaves(params, "params")
    for name, leaf in leaves.items():
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(f"{_BY}; got {dtype or type(leaf).__name__} in {name}.")
    if not leaves:
        raise InputError(f"{_BY}; got none.")


def check_state(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    average: bool,
    frozen: Sequence[str] = (),
) -> None:
    """Checks that a state, or the shapes of one, is of this optimiser, with an average or without.

    Raises:
        InputError: it is not, or has not.
    """
    check_params(state.params)
    expected = jax.eval_shape(optimizer.init, split(state.params, frozen)[0])
    if jax.tree.structure(expected) != jax.tree.structure(state.opt_state):
        raise InputError(
            "the state is of another optimizer, or of other frozen parameters: give those that it "
            "was trained with, or its params alone to begin anew."
        )
    if (state.ema_params is not None) != average:
        raise InputError(
            f"the state has {'no' if average else 'an'} average of the parameters: write "
            f"{'ema=None' if average else 'ema=0.9999, say'}, or give its params to begin anew."
        )


def check_data(stream: Stream, held_out: Stream | None, settings: Settings) -> Batch:
    """Checks that a batch fits the data, and what is held out is built as they are.

    Returns:
        The shapes of a global batch.

    Raises:
        InputError: it does not, or is not.
    """
    if stream.number is not None and settings.batch_size > stream.number:
        raise InputError(
            f"batch_size={settings.batch_size} is more than the {stream.number} examples of data; "
            f"write batch_size={stream.number} or less."
        )
    n = settings.batch_size
    batch = _of_size(stream.take(1), n)
    if held_out is not None and _of_size(held_out.take(1), n) != batch:
        raise InputError(
            f"held_out must be built as data are, one example as {_listed(batch)}; got "
            f"{_listed(_of_size(held_out.take(1), n))}."
        )
    if settings.val_every and held_out is None:
        raise InputError(
            f"val_every={settings.val_every} asks for a held-out loss: give held_out as well."
        )
    return {**batch, "index": jax.ShapeDtypeStruct((n,), np.int32)}


def _of_size(batch: Batch, n: int) -> Batch:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), batch)


def _listed(batch: Batch) -> str:
    return ", ".join(
        f"{name} {leaf.dtype}{list(leaf.shape[1:])}" for name, leaf in named_leaves(batch).items()
    )


def check_functions(
    apply_fn: Callable, loss_fn: Callable, draw: Callable, params: Any, batch: Batch
) -> None:
    """Traces draw, network and loss for a batch; what they raise themselves comes up as it is.

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``.
        loss_fn: as in `fmjax.training.step.on_drawn`.
        draw: ``draw(key, batch)``.
        params: arrays or shapes.
        batch: shapes.

    Raises:
        InputError: x are pixels, or draw, network or loss give something of another kind.
    """
    drawn = jax.eval_shape(
        lambda seed, batch: drawn_from(draw(jax.random.key(seed), batch)), 0, batch
    )
    if len(drawn.args) != 4:
        raise InputError(f"draw must give x0, x1, t and labels; got {len(drawn.args)} of them.")
    for leaf in jax.tree.leaves(drawn.args[1]):
        if leaf.dtype == jnp.uint8:
            raise InputError(
                "x are pixels, uint8 from 0 to 255, and flows are learned of floats: give "
                "np.asarray(fmjax.data.pixels.to_unit(x)), or a draw that converts each batch."
            )
    _check_network(apply_fn, params, drawn)
    loss = jax.eval_shape(on_drawn(loss_fn), params, drawn, params)
    if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        found = f"{loss.dtype}{list(loss.shape)}" if hasattr(loss, "dtype") else type(loss).__name__
        raise InputError(f"the loss must be one number, float32[]; got {found}: take its mean.")


def _check_network(apply_fn: Callable, params: Any, drawn: Drawn) -> None:
    _, x, t, labels = drawn.args
    output = jax.eval_shape(apply_fn, params, x, t, labels)
    # Of tokens a network gives logits, and of a pytree its loss knows what.
    if not hasattr(x, "shape") or not jnp.issubdtype(x.dtype, jnp.floating):
        return
    if not isinstance(output, Output) and getattr(output, "shape", None) != x.shape:
        found = getattr(output, "shape", type(output).__name__)
        raise InputError(
            f"apply_fn must give a velocity shaped as x, {x.shape}, or an Output; got {found}."
        )
