"""The sample run: from a trained run's folder to images on disk."""

import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fmjax.build import RULES, Experiment, Guidance, Recipe
from fmjax.errors import InputError
from fmjax.guidance import SCHEDULES, network_calls
from fmjax.run import workdir as files
from fmjax.run.loaded import load
from fmjax.run.output import NpzWriter
from fmjax.run.report import picture
from fmjax.run.sampling import (
    Request,
    SampleBatch,
    compile_for,
    fit_batch,
    make_sample_fn,
    sample_in_batches,
)
from fmjax.run.trajectory import write_trajectory
from fmjax.samplers.diffusion import DIFFUSIONS
from fmjax.samplers.grids import GRIDS
from fmjax.samplers.ode import SOLVERS, SolverSpec, evaluation_times, solver_spec
from fmjax.samplers.sde import METHODS, SDESpec, sde_spec

__all__ = [  # what sample.py needs
    "DIFFUSIONS",
    "GRIDS",
    "METHODS",
    "RULES",
    "SCHEDULES",
    "SOLVERS",
    "Guidance",
    "Request",
    "SampleResult",
    "sample",
    "sde_spec",
    "solver_spec",
]

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
        calls: network evaluations per sample; at most so many where steps are adaptive.
    """

    folder: Path
    step: int
    compile_seconds: float
    seconds: float
    nfe: float
    calls: float


def sample(
    workdir: Path,
    out: Path,
    request: Request,
    solver: SolverSpec | SDESpec,
    guidance: Guidance | None = None,
    *,
    checkpoint: str = "latest",
    weak: str | None = None,
    ema: bool = True,
    batch_size: int = 256,
    trajectory: bool = False,
    overwrite: bool = False,
) -> SampleResult:
    """Draws samples with a trained run's parameters and writes them.

    ``samples.npz`` gets ``samples`` (uint8 (num, H, W, C), or float32 (num, D) for points) and
    ``labels`` (int32 (num,), -1 where none was asked); ``grid.png`` shows the first of them, and
    ``trajectory.gif`` how they came about. Sample i depends on the seed and i alone, whatever the
    batch size and the number of devices.

    Args:
        workdir: as in `fmjax.run.loaded.load`, as are the arguments without a word of their own.
        out: the folder to write to, made if missing.
        request: which samples.
        solver: how to solve.
        guidance: which guidance.
        checkpoint: of which step.
        weak: the weaker checkpoint.
        ema: averaged or not.
        batch_size: samples per call, over all devices.
        trajectory: also write the animation.
        overwrite: replace samples that are already there.

    Returns:
        What was made.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
        FloatingPointError: a sample did not reach t = 1; nothing is written.
    """
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1; got {batch_size}.")

    def check(experiment: Experiment) -> None:
        _check_out(out, request.num * math.prod(experiment.spec.shape), overwrite)

    loaded = load(workdir, request, solver, guidance, checkpoint, weak, ema, check)
    experiment, recipe, request, params, step, mesh = loaded
    batch = fit_batch(request.num, batch_size, mesh.size)
    began = time.perf_counter()
    sample_fn = make_sample_fn(experiment, recipe, mesh)
    sample_fn = compile_for(sample_fn, params, batch)
    compiled = time.perf_counter()
    batches = sample_in_batches(sample_fn, params, experiment, request, batch)
    nfe = _write(batches, out, request, experiment)
    seconds = time.perf_counter() - compiled
    if trajectory:
        write_trajectory(loaded, out / "trajectory.gif")
    return SampleResult(out, step, compiled - began, seconds, nfe, _calls(recipe, nfe))


def _calls(recipe: Recipe, nfe: float) -> float:
    """Network evaluations per sample; exact for fixed steps of the ODE, else at most."""
    g = recipe.guidance
    if g is None:
        return nfe
    if isinstance(recipe.solver, SDESpec) or recipe.solver.control != "fixed":
        return 2 * nfe
    times = evaluation_times(recipe.solver)
    return network_calls(times, interval=g.interval, zero_until=g.zero_until)


def _check_out(out: Path, size: int, overwrite: bool) -> None:
    existing = [
        name for name in ("samples.npz", "grid.png", "trajectory.gif") if (out / name).exists()
    ]
    if existing and not overwrite:
        raise InputError(f"{out} already has {existing[0]}; give another --out, or --overwrite.")
    files.check_writable(out, "--out")
    free = shutil.disk_usage(out).free
    if free < size:
        raise InputError(
            f"{out} has {free / 1e6:.0f} MB free, and the samples need {size / 1e6:.0f} MB."
        )


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
    shown = None if request.labels is None else asked[:pictured]
    picture(np.concatenate(first), request.columns, shown, out / "grid.png")
    return nfe / num
