"""The train run: from a configuration and a folder to a trained flow in that folder."""

import contextlib
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.config import ConfigDict
from fmjax.data import pipeline
from fmjax.data.dataset import Dataset
from fmjax.errors import InputError
from fmjax.run import workdir as files
from fmjax.run.pictures import final_report, write_picture
from fmjax.run.train.profile import Profiler
from fmjax.run.train.progress import Log
from fmjax.run.train.setup import (
    Run,
    abstract_state,
    make_init,
    no_check,
    prepare,
    say,
    state_from,
    train_step,
)
from fmjax.run.train.signals import Signals
from fmjax.run.train.step_metrics import Meter, not_finite
from fmjax.run.weights.files import check_initial, initial_params
from fmjax.training.mesh import by_rows, row_shards, within
from fmjax.training.state import TrainState, all_finite

_VALIDATION = 512  # examples, the same with the same noise at every checkpoint


def train(
    config: ConfigDict,
    workdir: Path,
    parallel: str = "jit",
    overwrite: bool = False,
    params: Any | None = None,
    init_from: Path | None = None,
    profile: bool = False,
) -> int:
    """Trains until ``train.steps``, from the newest checkpoint of the folder if it has one.

    Args:
        config: every key of `fmjax.config.default_config`.
        workdir: the run's folder.
        parallel: ``"jit"`` or ``"pmap"``.
        overwrite: deletes an earlier run in this folder first.
        params: where a run without a checkpoint begins, as arrays over all processes; None for
            fresh parameters.
        init_from: the same, read from a run's folder or a file; see
            `fmjax.run.weights.files.initial_params`.
        profile: also writes a trace of a few steps to the folder's ``profile/``.

    Returns:
        0 when the run is finished, else the signal that stopped it after its state was saved.

    Raises:
        InputError: something does not fit; nothing has been computed or overwritten then.
        FloatingPointError: the loss or its gradient became NaN or infinite; the step is named.
    """
    began = time.perf_counter()
    check = no_check if init_from is None else partial(check_initial, init_from)
    if overwrite and init_from is not None and init_from.absolute() == workdir.absolute():
        raise InputError(f"--overwrite would delete {init_from}, which the run is to begin with.")
    run = prepare(config, workdir, parallel, overwrite, check)
    try:
        start, state = _start(run, params, init_from)
        if _finished(run, start):
            say(_already(run, start))
            return 0
        log = Log(workdir, start, config.train.steps, active=jax.process_index() == 0)
        try:
            log.say(_opening(run, start, state))
            profiler = Profiler(workdir / files.PROFILE if profile else None)
            state, stopped = _loop(run, start, state, log, profiler)
        finally:
            log.close()
        run.checkpoints.wait()
        if stopped:
            return stopped
        say(f"trained {config.train.steps} steps in {time.perf_counter() - began:.0f} s")
        step = max(start, config.train.steps)
        say(final_report(run, run.ema_params(state), step))
        say(f"next: {_sample_command(run)}")
    finally:
        run.close()
    return 0


def _start(run: Run, params: Any | None, init_from: Path | None) -> tuple[int, TrainState]:
    """The step to start from and the state: the newest whole checkpoint, or a fresh one."""
    found = run.checkpoints.restore_latest(
        abstract_state(run.experiment, run.layout.mesh)._asdict()
    )
    if found is None and init_from is not None:
        params = initial_params(init_from, run.experiment, run.layout.mesh)
    if found is None and params is not None:
        state = state_from(run.experiment, params, run.layout.mesh)
        return 0, run.layout.from_global(state)
    if found is None:
        key = jax.random.key(run.config.train.seed)
        return 0, run.layout.init(make_init(run.experiment), key)
    step, state = found
    return step, run.layout.from_global(TrainState(**state))


def _finished(run: Run, start: int) -> bool:
    """Whether nothing is left to do, the evaluation included."""
    evaluated = run.config.eval.num == 0 or files.evaluated_step(run.workdir) == start
    return start >= run.config.train.steps and evaluated


def _compiled(run: Run, log: Log, *args: Any) -> tuple[Callable, float]:
    """The step compiled ahead of its first call where that can be, and the seconds it took."""
    began = time.perf_counter()
    step = run.layout.ahead(train_step(run.config, run.experiment, run.layout), *args)
    seconds = time.perf_counter() - began
    if isinstance(step, jax.stages.Compiled):
        log.say(f"compiled the step in {seconds:.1f} s")
    return step, seconds


def _loop(
    run: Run, step: int, state: TrainState, log: Log, profiler: Profiler
) -> tuple[TrainState, int]:
    """Steps until the last one; returns the state, and the signal that stopped it or 0."""
    c = run.config.train
    # Another stream than the parameters'; on every device once, not sent there at every step.
    key = run.layout.init(lambda k: jax.random.fold_in(k, 1), jax.random.key(c.seed))
    validate = _validation(run)
    stop = 0
    with (
        Signals() as signals,
        contextlib.closing(profiler),
        contextlib.closing(_data(run, step)) as batches,
    ):
        if step < c.steps:
            step_fn, seconds = _compiled(run, log, state, key, batches.peek())
            meter = Meter(c.batch_size, log, c.log_every, run.experiment.flops, seconds)
        while step < c.steps:
            state, metrics = step_fn(state, key, next(batches))
            step += c.steps_per_call
            log.moved(c.steps_per_call)
            meter.add(step, metrics, batches.waited)
            if profiler.called(metrics):
                log.say(f"traced a few steps: {run.workdir / files.PROFILE}")
            stop = signals.received(agree=step % c.log_every == 0)
            saving = stop or step % c.checkpoint_every == 0 or step == c.steps
            if saving:
                meter.drain()
            with meter.paused():
                if saving:
                    _save(run, step, state, validate, log)
                if stop:
                    log.say(f"stopped by signal {stop}: saved step {step}. Run it again to go on.")
                    break
                if c.sample_every and step % c.sample_every == 0 and step < c.steps:
                    path = run.workdir / files.SAMPLES / f"{step:08d}.png"
                    write_picture(run, run.ema_params(state), path)
    return state, stop


def _data(run: Run, start: int) -> pipeline.DevicePrefetch:
    """Batches from a step on, two of them waiting on the devices."""
    batches = pipeline.batches(
        run.training,
        global_batch=run.config.train.batch_size,
        seed=run.config.train.seed,
        start=start,
        process=jax.process_index(),
        processes=jax.process_count(),
        flip=run.config.data.flip,
        threads=run.config.data.threads,
        couple=run.experiment.couple,
    )
    calls = pipeline.in_rows(batches, run.config.train.steps_per_call)
    return pipeline.device_prefetch(calls, run.layout.place, size=2)


def _validation(run: Run) -> Callable[[Any], float]:
    """``validate(params) -> loss`` on fixed held-out examples with fixed noise and times."""
    mesh, experiment = run.layout.mesh, run.experiment
    batch = _held_out(run.training)
    whole = NamedSharding(mesh, P())
    rows = by_rows(mesh) if len(batch["x1"]) % row_shards(mesh) == 0 else whole

    @partial(jax.jit, out_shardings=whole)
    def loss(params, batch):
        batch = jax.lax.with_sharding_constraint(batch, rows)
        args = experiment.draw(jax.random.key(0), batch)
        with within(mesh):
            return experiment.loss_fn(params, *args)

    return lambda params: float(loss(params, batch))


def _held_out(dataset: Dataset) -> dict[str, np.ndarray]:
    """Test examples as the pipeline gives a batch; their number a power of two, for the mesh."""
    read_pairs = getattr(dataset.test, "read_pairs", None)
    if read_pairs is None:
        x1, labels = dataset.arrays("test", _VALIDATION)
        batch = {"x1": x1, "labels": labels}
    else:
        chosen = np.arange(min(_VALIDATION, len(dataset.test)))
        batch = dict(zip(("x0", "x1", "labels"), read_pairs(chosen), strict=True))
    n = 1 << (len(batch["x1"]).bit_length() - 1)
    batch["index"] = np.arange(len(batch["x1"]), dtype=np.int32)
    return {name: x[:n] for name, x in batch.items() if x is not None}


def _save(run: Run, step: int, state: TrainState, validate: Callable, log: Log) -> None:
    state = run.layout.to_global(state)
    val_loss = validate(state.ema_params)
    # The loss of this step was that of the parameters before its update.
    if not (math.isfinite(val_loss) and all_finite((state.params, state.ema_params))):
        raise not_finite("state", math.nan, step)
    log.metrics(step, {"val_loss": val_loss})
    run.checkpoints.save(step, state._asdict(), val_loss)


def _opening(run: Run, start: int, state: TrainState) -> str:
    params = sum(x.size for x in jax.tree.leaves(state.params))
    device = jax.devices()[0].device_kind
    mesh = "x".join(map(str, run.layout.mesh.devices.shape))
    kernel = run.experiment.attention
    return (
        f"{'resuming at step ' + str(start) if start else 'training'}: {run.config.model.name}, "
        f"{params / 1e6:.2f} M parameters, on {run.config.data.name}; "
        f"{jax.device_count()} x {device}"
        + (f" as data x fsdp x tensor = {mesh}" if jax.device_count() > 1 else "")
        + (f"; attention by {kernel}" if kernel else "")
        + f"; everything goes to {run.workdir}"
    )


def _sample_command(run: Run) -> str:
    return f"python sample.py --workdir={run.workdir} --num=100 --out=out"


def _already(run: Run, start: int) -> str:
    return (
        f"{run.workdir} is finished: {start} steps. Sample from it with: {_sample_command(run)} ; "
        f"train on with --config.train.steps={2 * start}, or start anew with --overwrite."
    )
