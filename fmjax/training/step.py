"""One training step: a pure function from (state, key, batch) to (state, metrics)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, PRNGKeyArray
from optax.microbatching import AccumulationType, microbatch

from fmjax.checks import check_multiple
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.training.ema import update_ema
from fmjax.training.frozen import joined, keep_equal, split
from fmjax.training.outliers import OutlierState
from fmjax.training.state import TrainState

Batch = dict[str, Any]
Metrics = dict[str, Float[Array, "..."]]
Step = Callable[[TrainState, PRNGKeyArray, Batch], tuple[TrainState, Metrics]]


class Drawn(NamedTuple):
    """What a loss takes beside parameters, each array with a leading batch axis.

    Attributes:
        args: x0, x1, t and labels, or whatever else the loss takes by position.
        noise: by name, of a loss that has an attribute ``noise``; else None.
    """

    args: tuple
    noise: dict[str, Any] | None = None


def uses_target(loss_fn: Callable) -> bool:
    """Whether a loss asks for a second set of parameters, ``target_params=``."""
    return bool(getattr(loss_fn, "uses_target", False))


def on_drawn(loss_fn: Callable) -> Callable[..., Any]:
    """A loss as ``loss(params, drawn, target_params, step=None)``, of what a draw gave.

    Args:
        loss_fn: ``loss_fn(params, *args) -> scalar``. With a non-empty attribute ``noise`` it also
            takes ``noise=``, a dictionary of arrays with these names; with a true attribute
            ``uses_target`` it also takes ``target_params=``, and with ``uses_step`` the number of
            the step, ``step=``, None for what training ends with.

    Raises:
        InputError: calling the result raises it where the draw lacks a noise that the loss needs.
    """
    names = set(getattr(loss_fn, "noise", None) or ())
    wants_target, wants_step = uses_target(loss_fn), bool(getattr(loss_fn, "uses_step", False))

    def loss(params: Any, drawn: Drawn, target_params: Any, step: Any = None) -> Any:
        given = {} if drawn.noise is None else drawn.noise
        if missing := sorted(names - set(given)):
            raise InputError(
                f"the loss needs the noise {', '.join(missing)}, and the draw gives "
                f"{', '.join(sorted(given)) or 'none'}; write Draw(noise=loss_fn.noise)."
            )
        more = {"noise": given} if names else {}
        if wants_target:
            more["target_params"] = target_params
        if wants_step:
            more["step"] = step
        return loss_fn(params, *drawn.args, **more)

    return loss


def drawn_from(drawn: Any) -> Drawn:
    """What a draw returned: an iterable of the arguments, perhaps with an attribute ``noise``."""
    return Drawn(tuple(drawn), getattr(drawn, "noise", None))


def in_parts(value_and_grad: Callable, parts: int) -> Callable:
    """A function of ``jax.value_and_grad`` that takes the batch in equal parts, one after another.

    The mean over equal parts is the mean over the batch, so the result is the same but for
    rounding, with the activations of one part in memory at a time.

    Args:
        value_and_grad: ``value_and_grad(params, drawn, *whole)``.
        parts: into how many ``drawn``, a pytree of arrays with a leading batch axis, is split; what
            comes after it is not.

    Raises:
        InputError: calling the result raises it when the batch does not divide.
    """

    def accumulated(params, drawn, *whole):
        batch = jax.tree.leaves(drawn)[0].shape[0]
        check_multiple("the batch", batch, parts, "equal parts")
        return microbatch(
            value_and_grad,
            argnums=1,
            microbatch_size=batch // parts,
            accumulator=AccumulationType.MEAN,
        )(params, drawn, *whole)

    return accumulated


def make_step(
    loss_fn: Callable,
    draw: Callable[[PRNGKeyArray, Batch], Any],
    optimizer: optax.GradientTransformation,
    *,
    ema: float | None = 0.9999,
    accumulate: int = 1,
    axis_name: str | None = None,
    learning_rate: Callable[[Int[Array, ""]], Float[Array, ""]] | None = None,
    frozen: Sequence[str] = (),
) -> Step:
    """Makes the pure update that both jit and pmap compile.

    Args:
        loss_fn: ``loss_fn(params, *args) -> scalar``, as in `on_drawn`; the target parameters are
            the average before the update, and no gradient flows into them.
        draw: ``draw(key, batch) -> args``, all the randomness of the step: an iterable, with an
            attribute ``noise`` where the loss needs any.
        optimizer: the optax transformation.
        ema: decay of the moving average, reached after a warm-up; None keeps no average.
        accumulate: into how many parts the batch is split to save memory.
        axis_name: the pmap axis to average over; None under jit, where the batch is global.
        learning_rate: the optimiser's schedule, to be told among the metrics.
        frozen: patterns of the parameters that stay as they are; see `fmjax.training.frozen`.

    Returns:
        ``step(state, key, batch) -> (state, metrics)`` with the run's key (the same at every step:
        the step folds in its own number) and metrics ``loss``, ``grad_norm`` and, where they are
        given, ``learning_rate`` and ``skipped`` (of `skip_outliers`), float32 scalars.

    Raises:
        InputError: the loss asks for target parameters, and no average is kept.
    """
    if uses_target(loss_fn) and ema is None:
        raise InputError(
            "the loss takes the averaged parameters as its target_params, and ema=None keeps no "
            "average; write ema=0.999, say."
        )
    loss_of = on_drawn(loss_fn)

    def loss_of_trained(trained, drawn, kept, target_params, number):
        return loss_of(joined(trained, kept), drawn, target_params, number)

    value_and_grad = jax.value_and_grad(loss_of_trained)
    if accumulate > 1:
        value_and_grad = in_parts(value_and_grad, accumulate)

    def step(state: TrainState, key: PRNGKeyArray, batch: Batch) -> tuple[TrainState, Metrics]:
        drawn = drawn_from(draw(jax.random.fold_in(key, state.step), batch))
        trained, kept = split(state.params, frozen)
        loss, grads = value_and_grad(trained, drawn, kept, state.ema_params, state.step)
        if axis_name is not None:
            loss, grads = jax.lax.pmean((loss, grads), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = joined(optax.apply_updates(trained, updates), kept)
        average = None
        if ema is not None:
            average = update_ema(state.ema_params, params, state.step, ema)
            average = keep_equal(average, state.ema_params, kept)
        new_state = TrainState(state.step + 1, params, average, opt_state)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        if learning_rate is not None:
            metrics["learning_rate"] = jnp.asarray(learning_rate(state.step), jnp.float32)
        if isinstance(opt_state, OutlierState):
            metrics["skipped"] = opt_state.skipped
        return new_state, metrics

    return step
