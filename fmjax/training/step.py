"""One training step: a pure function from (state, key, batch) to (state, metrics)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from optax.microbatching import AccumulationType, microbatch

from fmjax.checks import check_multiple
from fmjax.training.ema import update_ema
from fmjax.training.outliers import OutlierState
from fmjax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, jax.Array, Batch], tuple[TrainState, Metrics]]


def in_parts(value_and_grad: Callable, parts: int) -> Callable:
    """A function of ``jax.value_and_grad`` that takes the batch in equal parts, one after another.

    The mean over equal parts is the mean over the batch, so the result is the same but for
    rounding, with the activations of one part in memory at a time.

    Raises:
        InputError: calling the result raises it when the batch does not divide.
    """

    def accumulated(params, *args):
        batch = args[0].shape[0]
        check_multiple("the batch", batch, parts, "equal parts")
        return microbatch(
            value_and_grad,
            argnums=tuple(range(1, 1 + len(args))),
            microbatch_size=batch // parts,
            accumulator=AccumulationType.MEAN,
        )(params, *args)

    return accumulated


def make_step(
    loss_fn: Callable,
    draw: Callable[[jax.Array, Batch], tuple],
    optimizer: optax.GradientTransformation,
    *,
    ema: float = 0.9999,
    accumulate: int = 1,
    axis_name: str | None = None,
    learning_rate: Callable[[jax.Array], jax.Array] | None = None,
) -> Step:
    """Makes the pure update that both jit and pmap compile.

    Args:
        loss_fn: ``loss_fn(params, *args) -> scalar``.
        draw: ``draw(key, batch) -> args``, all the randomness of the step.
        optimizer: the optax transformation.
        ema: decay of the moving average, reached after a warm-up.
        accumulate: into how many parts the batch is split to save memory.
        axis_name: the pmap axis to average over; None under jit, where the batch is global.
        learning_rate: the optimiser's schedule, to be told among the metrics.

    Returns:
        ``step(state, key, batch) -> (state, metrics)`` with the run's key (the same at every step:
        the step folds in its own number) and metrics ``loss``, ``grad_norm`` and, where they are
        given, ``learning_rate`` and ``skipped`` (of `skip_outliers`), float32 scalars.
    """
    value_and_grad = jax.value_and_grad(loss_fn)
    if accumulate > 1:
        value_and_grad = in_parts(value_and_grad, accumulate)

    def step(state: TrainState, key: jax.Array, batch: Batch) -> tuple[TrainState, Metrics]:
        args = draw(jax.random.fold_in(key, state.step), batch)
        loss, grads = value_and_grad(state.params, *args)
        if axis_name is not None:
            loss, grads = jax.lax.pmean((loss, grads), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            ema_params=update_ema(state.ema_params, params, state.step, ema),
            opt_state=opt_state,
        )
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        if learning_rate is not None:
            metrics["learning_rate"] = jnp.asarray(learning_rate(state.step), jnp.float32)
        if isinstance(opt_state, OutlierState):
            metrics["skipped"] = opt_state.skipped
        return new_state, metrics

    return step
