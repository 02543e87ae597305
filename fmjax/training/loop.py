"""The training loop: what happens from one step to the next, whatever is trained."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fmjax.data.pipeline import DevicePrefetch
from fmjax.errors import InputError
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.parallelism import Jit, Pmap
from fmjax.training.profile import traced
from fmjax.training.progress import Progress
from fmjax.training.settings import Settings
from fmjax.training.signals import Signals
from fmjax.training.state import TrainState, all_finite
from fmjax.training.step import Step
from fmjax.training.step_metrics import StepMetrics, not_finite

Callback = Callable[[int, TrainState], Any]


class Training(NamedTuple):
    """What the loop turns on.

    Attributes:
        settings: the numbers of it.
        layout: how the step is spread over devices.
        step: the pure update, for the layout to compile.
        batches: ``batches(start)``, on the devices.
        validate: ``validate(params)``, the held-out loss; None where nothing is held out.
        callbacks: see `fmjax.training.fitting.fit`.
        checkpoints: where the state is saved; None saves nothing.
        flops: operations of training on one example, or None.
        trace: the folder of a trace of a few steps, or None.
    """

    settings: Settings
    layout: Jit | Pmap
    step: Step
    batches: Callable[[int], DevicePrefetch]
    validate: Callable[[Any], float] | None
    callbacks: tuple[Callback, ...]
    checkpoints: Checkpoints | None
    flops: int | None
    trace: Path | None


def run_steps(
    training: Training, progress: Progress, step: int, state: TrainState
) -> tuple[int, TrainState, int]:
    """Steps until the last one; returns step, state, and the signal that stopped it or 0."""
    settings, layout = training.settings, training.layout
    # Another stream than the parameters'; on every device once, not sent there at every step.
    key = layout.init(lambda k: jax.random.fold_in(k, 1), jax.random.key(settings.seed))
    watch, stop = Signals(training.checkpoints is not None), 0
    with watch as signals, contextlib.closing(training.batches(step)) as batches:
        first, began = batches.peek(), time.perf_counter()
        if first is None:
            raise _ended(step, settings.steps)
        step_fn = layout.ahead(training.step, state, key, first)
        seconds = time.perf_counter() - began
        if isinstance(step_fn, jax.stages.Compiled):  # else its first call compiles it
            progress.say(f"compiled the step in {seconds:.1f} s")
        metrics = StepMetrics(
            settings.batch_size, settings.log_every, progress, training.flops, seconds
        )
        saved = True  # as it was restored, or can be made again
        with traced(step_fn, training.trace, progress.say) as step_fn:
            while step < settings.steps and not stop:
                batch = next(batches, None)
                if batch is None:
                    metrics.drain()
                    if not saved:
                        _look(training, progress, step, state, save=True)
                    raise _ended(step, settings.steps)
                # One call of the compiled program. Nothing here waits for its result.
                state, values = step_fn(state, key, batch)
                step += settings.steps_per_call
                progress.advance(settings.steps_per_call)
                metrics.add(step, values, batches.waited)

                stop = signals.received(agree=step % settings.log_every == 0)
                saved = (
                    bool(stop) or step == settings.steps or step % settings.checkpoint_every == 0
                )
                if saved or (settings.val_every and step % settings.val_every == 0):
                    metrics.drain()
                    with metrics.paused():
                        _look(training, progress, step, state, save=saved)
                if training.callbacks and not stop:
                    with metrics.paused():
                        for callback in training.callbacks:
                            callback(step, layout.to_global(state))
    return step, state, stop


def _ended(step: int, steps: int) -> InputError:
    """The error of an iterator that has no batch left."""
    return InputError(
        f"data ended after step {step} of {steps}: give an iterator that goes on, or data that can "
        "be indexed."
    )


def _look(training: Training, progress: Progress, step: int, state: TrainState, save: bool) -> None:
    """Writes the held-out loss and, where asked, a checkpoint, unless the state is not finite."""
    state = training.layout.to_global(state)
    average = state.params if state.ema_params is None else state.ema_params
    val_loss = math.inf  # nothing held out: no checkpoint is better than another
    if training.validate is not None:
        val_loss = training.validate(average)
    # The loss of this step was that of the parameters before its update.
    wrong = training.validate is not None and not math.isfinite(val_loss)
    if wrong or not all_finite((state.params, state.ema_params)):
        raise not_finite("state", math.nan, step)
    if training.validate is not None:
        progress.write(step, {"val_loss": val_loss})
    if save and training.checkpoints is not None:
        training.checkpoints.save(step, state._asdict(), val_loss)
