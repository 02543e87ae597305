"""The sample run: from a trained run's folder to images on disk."""

import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fmjax.build import Experiment, make_experiment
from fmjax.checkpoint import Checkpoints
from fmjax.errors import InputError
from fmjax.run import workdir as files
from fmjax.run.output import NpzWriter
from fmjax.run.ready import abstract_state
from fmjax.run.report import picture
from fmjax.run.sampling import (
    Request,
    SampleBatch,
    check_request,
    compile_for,
    fit_batch,
    make_sample_fn,
    sample_in_batches,
)
from fmjax.samplers.ode import SOLVERS, SolverSpec, solver_spec
from fmjax.training.parallel import make_mesh

__all__ = ["SOLVERS", "Request", "SampleResult", "sample", "solver_spec"]  # what sample.py needs

_PICTURED = 100  # samples in the grid; points need more to show their shape
_PICTURED_POINTS = 5000


class SampleResult(NamedTuple):
    """What a sample run made.

    Attributes:
        folder: where ``samples.npz`` and ``grid.png`` are.
        step: the step of the checkpoint.
        compile_seconds: time to compile the sampler.
        seconds: time from the first batch asked to the last one written.
        nfe: velocity evaluations per sample, on average.
        branches: network evaluations per velocity evaluation: 2 under guidance.
    """

    folder: Path
    step: int
    compile_seconds: float
    seconds: float
    nfe: float
    branches: int


def sample(
    workdir: Path,
    out: Path,
    request: Request,
    solver: SolverSpec,
    *,
    checkpoint: str = "latest",
    ema: bool = True,
    batch_size: int = 256,
    overwrite: bool = False,
) -> SampleResult:
    """Draws samples with a trained run's parameters and writes them.

    ``samples.npz`` gets ``samples`` (uint8 (num, H, W, C), or float32 (num, D) for points) and
    ``labels`` (int32 (num,), -1 where none was asked); ``grid.png`` shows the first of them.
    Sample i depends on the seed and i alone, whatever the batch size and the number of devices.

    Args:
        workdir: the run's folder; nothing else is needed.
        out: the folder to write to, made if missing.
        request: which samples; ``labels=()`` stands for all classes in turn.
        solver: how to solve.
        checkpoint: ``"latest"``, ``"best"``, or a step.
        ema: take the averaged parameters.
        batch_size: samples per call, over all devices.
        overwrite: replace samples that are already there.

    Returns:
        What was made.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
    """
    record = files.load_record(workdir)
    experiment = make_experiment(record.config, record.spec)
    if request.labels == ():
        classes = experiment.num_classes
        request = request._replace(labels=None if classes is None else tuple(range(classes)))
    check_request(request, experiment)
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1; got {batch_size}.")
    _check_out(out, request.num * math.prod(record.spec.shape), overwrite)
    mesh = make_mesh()
    step, params = load_params(workdir, experiment, checkpoint, ema, mesh)
    batch = fit_batch(request.num, batch_size, mesh.size)
    began = time.perf_counter()
    sample_fn = make_sample_fn(experiment, solver, mesh, request.guided)
    sample_fn = compile_for(sample_fn, params, batch)
    compiled = time.perf_counter()
    batches = sample_in_batches(sample_fn, params, experiment, request, batch)
    nfe = _write(batches, out, request, experiment)
    seconds = time.perf_counter() - compiled
    return SampleResult(out, step, compiled - began, seconds, nfe, 1 + request.guided)


def _check_out(out: Path, size: int, overwrite: bool) -> None:
    existing = [name for name in ("samples.npz", "grid.png") if (out / name).exists()]
    if existing and not overwrite:
        raise InputError(f"{out} already has {existing[0]}; give another --out, or --overwrite.")
    files.check_writable(out, "--out")
    free = shutil.disk_usage(out).free
    if free < size:
        raise InputError(
            f"{out} has {free / 1e6:.0f} MB free, and the samples need {size / 1e6:.0f} MB."
        )


def load_params(
    workdir: Path, experiment: Experiment, checkpoint: str, ema: bool, mesh: jax.sharding.Mesh
) -> tuple[int, Any]:
    """The step and the parameters of the checkpoint asked for.

    Raises:
        InputError: there is no such checkpoint.
    """
    checkpoints = Checkpoints(workdir / files.CHECKPOINTS, read_only=True, notify=print)
    try:
        if not checkpoints.steps():
            raise InputError(f"{workdir} has no checkpoint yet; train it first.")
        name = "ema_params" if ema else "params"
        target = {name: getattr(abstract_state(experiment, mesh), name)}
        if checkpoint == "latest":
            step, parts = checkpoints.restore_latest(target)
            return step, parts[name]
        step = checkpoints.best_step() if checkpoint == "best" else _as_step(checkpoint)
        return step, checkpoints.restore(step, target)[name]
    finally:
        checkpoints.close()


def _as_step(checkpoint: str) -> int:
    if not checkpoint.isdecimal():
        raise InputError(f"--checkpoint must be latest, best or a step; got {checkpoint!r}.")
    return int(checkpoint)


def _write(
    batches: Iterator[SampleBatch], out: Path, request: Request, experiment: Experiment
) -> float:
    """Streams the samples to disk, and gives the velocity evaluations per sample."""
    from tqdm import tqdm

    spec, num = experiment.spec, request.num
    dtype = np.uint8 if spec.is_image else np.float32
    pictured = min(num, _PICTURED if spec.is_image else _PICTURED_POINTS)
    labels, first, nfe, done = [], [], 0, 0
    writer = NpzWriter(out / "samples.npz", "samples", (num, *spec.shape), dtype)
    try:
        with tqdm(total=num, unit="sample", file=sys.stderr) as bar:
            for part in batches:
                writer.append(part.samples)
                if done < pictured:
                    first.append(part.samples[: pictured - done])
                labels.append(part.labels)
                nfe += int(part.nfe.sum())
                done += len(part.samples)
                bar.update(len(part.samples))
        asked = np.concatenate(labels) if request.labels else np.full(num, -1, np.int32)
        writer.finish(labels=asked)
    except BaseException:
        writer.abandon()
        raise
    columns = min(len(request.labels or ()) or 10, 20)
    shown = None if request.labels is None else asked[:pictured]
    picture(np.concatenate(first), columns, shown, out / "grid.png")
    return nfe / num
