"""Training, from a configuration and a folder to a trained flow in that folder."""

import sys
import time
from pathlib import Path
from typing import Any

from fmjax.config import ConfigDict
from fmjax.errors import InputError
from fmjax.first_process import on_first_process, say
from fmjax.intervals import on_intervals
from fmjax.run.train import report
from fmjax.run.train.batches import RunStream, held_out
from fmjax.run.train.draw import RunDraw
from fmjax.run.train.setup import Run, build, check, claimed, restore, with_teacher
from fmjax.run.train.weights_and_biases import check_installed, logged
from fmjax.run.weights.initial import Initial
from fmjax.training import fit
from fmjax.training.folder import Folder
from fmjax.training.parallelism import Parallel
from fmjax.training.signals import Stopped
from fmjax.training.state import TrainState


def train(
    config: ConfigDict,
    workdir: Path,
    parallel: Parallel = "jit",
    overwrite: bool = False,
    init_from: Path | None = None,
    profile: bool = False,
    init_layout: str | None = None,
    init_fresh: tuple[str, ...] = (),
    wandb: str | None = None,
) -> int:
    """Trains until ``train.steps``, from the newest checkpoint of the folder if it has one.

    Args:
        config: every key of `fmjax.config.default_config`.
        workdir: the run's folder.
        parallel: ``"jit"`` or ``"pmap"``.
        overwrite: deletes an earlier run in this folder first.
        init_from: a run's folder, a file of parameters or published weights, with which a run
            without a checkpoint begins; see `fmjax.run.weights.initial`. None for fresh parameters.
        profile: also writes a trace of a few steps to the folder's ``profile/``.
        init_layout: of published weights, where names and shapes leave it open.
        init_fresh: patterns of the parameters that are not taken from `init_from`.
        wandb: the project at Weights & Biases to which its log goes as well; None for none.

    Returns:
        0 when the run is finished, else the signal that stopped it after its state was saved.

    Raises:
        InputError: something does not fit; nothing has been computed or overwritten then.
        FloatingPointError: the loss or its gradient became NaN or infinite; the step is named.
    """
    began = time.perf_counter()
    check_installed(wandb)
    run = build(config, workdir, parallel)
    initial = _initial(init_from, init_layout, init_fresh)
    check(run, overwrite, initial)
    run = with_teacher(run)
    with claimed(run, overwrite) as own:
        start, begin = restore(run, own.checkpoints, initial)
        if report.is_finished(run, start):
            say(report.already_finished(run, start))
            return 0
        say(report.opening(run, start), file=sys.stderr)
        on_first_process(lambda: report.write_configuration(run, start))
        with logged(wandb, run.workdir, run.config.to_dict(), start) as log:
            run = run._replace(log=log)
            try:
                state = _fit(run, own, begin, parallel, profile)
            except Stopped as stopped:
                what = f"stopped by signal {stopped.signal}: saved step {stopped.step}."
                say(f"{what} Run it again to go on.", file=sys.stderr)
                return stopped.signal
            step = int(state.step)
            say(f"trained {step} steps in {time.perf_counter() - began:.0f} s")
            say(report.final_report(run, state.ema_params, step))
            say(f"next: {report.sample_command(run)}")
    return 0


def _initial(init_from: Path | None, layout: str | None, fresh: tuple[str, ...]) -> Initial | None:
    if init_from is not None:
        return Initial(init_from, layout, fresh)
    if layout is not None or fresh:
        raise InputError(
            "--init_layout and --init_fresh say how to begin with --init_from, and it is not there."
        )
    return None


def _fit(run: Run, own: Folder, begin: Any, parallel: Parallel, profile: bool) -> TrainState:
    """`fmjax.training.fit` with everything that the configuration stands for."""
    experiment, settings = run.experiment, run.experiment.train
    every = settings.sample_every or settings.steps
    previews = range(every, settings.steps, every)  # the last step has the final report's

    def preview(step: int, state: TrainState) -> None:
        if step in previews:
            report.write_preview(run, state.ema_params, step)

    apply_fn = experiment.apply_fn
    if experiment.spec.timeline is not None:
        apply_fn = on_intervals(apply_fn)
    return fit(
        apply_fn,
        begin,
        RunStream(run.training, experiment),
        loss_fn=experiment.loss_fn,
        draw=RunDraw(experiment),
        optimizer=experiment.optimizer,
        frozen=experiment.frozen,
        learning_rate=experiment.learning_rate,
        held_out=held_out(run.training),
        workdir=own,
        mesh=run.layout.mesh,
        parallel=parallel,
        rules=run.layout.rules,
        callbacks=[preview],
        log=run.log.scalars,
        flops=experiment.flops,
        profile=profile,
        **settings.of_fit(),
    )
