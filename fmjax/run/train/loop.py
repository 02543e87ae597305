"""Training, from a configuration and a folder to a trained flow in that folder."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from fmjax.config import ConfigDict
from fmjax.factory.training import train_step
from fmjax.run import workdir as folder
from fmjax.run.distributed.first_process import say
from fmjax.run.train import report
from fmjax.run.train.batches import training_batches
from fmjax.run.train.profile import traced
from fmjax.run.train.progress import Progress
from fmjax.run.train.setup import Run, build, check, claimed, restore
from fmjax.run.train.signals import Signals
from fmjax.run.train.step_metrics import StepMetrics, not_finite
from fmjax.run.train.validation import make_validation
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.state import TrainState, all_finite


def train(
    config: ConfigDict,
    workdir: Path,
    parallel: str = "jit",
    overwrite: bool = False,
    init_from: Path | None = None,
    profile: bool = False,
) -> int:
    """Trains until ``train.steps``, from the newest checkpoint of the folder if it has one.

    Args:
        config: every key of `fmjax.config.default_config`.
        workdir: the run's folder.
        parallel: ``"jit"`` or ``"pmap"``.
        overwrite: deletes an earlier run in this folder first.
        init_from: a run's folder or a file of parameters, with which a run without a checkpoint
            begins; see `fmjax.run.weights.initial`. None for fresh parameters.
        profile: also writes a trace of a few steps to the folder's ``profile/``.

    Returns:
        0 when the run is finished, else the signal that stopped it after its state was saved.

    Raises:
        InputError: something does not fit; nothing has been computed or overwritten then.
        FloatingPointError: the loss or its gradient became NaN or infinite; the step is named.
    """
    began = time.perf_counter()
    run = build(config, workdir, parallel)
    check(run, overwrite, init_from)
    with claimed(run, config, overwrite) as checkpoints:
        step, state = restore(run, checkpoints, init_from)
        if report.is_finished(run, step):
            say(report.already_finished(run, step))
            return 0
        with Progress(workdir, step, run.experiment.train.steps) as progress:
            progress.say(report.opening(run, step, state))
            stopped = 0
            if step < run.experiment.train.steps:
                step, state, stopped = _steps(run, checkpoints, progress, step, state, profile)
        checkpoints.wait()
        if stopped:
            return stopped
        say(f"trained {step} steps in {time.perf_counter() - began:.0f} s")
        say(report.final_report(run, run.ema_params(state), step))
        say(f"next: {report.sample_command(run)}")
    return 0


def _steps(
    run: Run,
    checkpoints: Checkpoints,
    progress: Progress,
    step: int,
    state: TrainState,
    profile: bool,
) -> tuple[int, TrainState, int]:
    """Steps until the last one; returns step, state, and the signal that stopped it or 0."""
    settings = run.experiment.train
    # Another stream than the parameters'; on every device once, not sent there at every step.
    key = run.layout.init(lambda k: jax.random.fold_in(k, 1), jax.random.key(settings.seed))
    validate, stop = make_validation(run), 0
    every = settings.sample_every or settings.steps
    previews = range(every, settings.steps, every)  # the last step has the final report's
    with Signals() as signals, contextlib.closing(training_batches(run, step)) as batches:
        began = time.perf_counter()
        step_fn = run.layout.ahead(
            train_step(run.experiment, run.layout), state, key, batches.peek()
        )
        seconds = time.perf_counter() - began
        if isinstance(step_fn, jax.stages.Compiled):  # else its first call compiles it
            progress.say(f"compiled the step in {seconds:.1f} s")
        metrics = StepMetrics(settings, progress, run.experiment.flops, seconds)
        trace = run.workdir / folder.PROFILE if profile else None
        with traced(step_fn, trace, progress.say) as step_fn:
            while step < settings.steps and not stop:
                # One call of the compiled program. Nothing here waits for its result.
                state, values = step_fn(state, key, next(batches))
                step += settings.steps_per_call
                progress.advance(settings.steps_per_call)
                metrics.add(step, values, batches.waited)

                stop = signals.received(agree=step % settings.log_every == 0)
                if stop or step % settings.checkpoint_every == 0 or step == settings.steps:
                    metrics.drain()
                    with metrics.paused():
                        _save(run, checkpoints, progress, step, state, validate)
                if step in previews and not stop:
                    with metrics.paused():
                        report.write_preview(run, run.ema_params(state), step)
    if stop:
        progress.say(f"stopped by signal {stop}: saved step {step}. Run it again to go on.")
    return step, state, stop


def _save(
    run: Run,
    checkpoints: Checkpoints,
    progress: Progress,
    step: int,
    state: TrainState,
    validate: Callable[[Any], float],
) -> None:
    """Writes a checkpoint with its validation loss, unless the state is not finite."""
    state = run.layout.to_global(state)
    val_loss = validate(state.ema_params)
    # The loss of this step was that of the parameters before its update.
    if not (math.isfinite(val_loss) and all_finite((state.params, state.ema_params))):
        raise not_finite("state", math.nan, step)
    progress.write(step, {"val_loss": val_loss})
    checkpoints.save(step, state._asdict(), val_loss)
