"""The sample run: from a trained run's folder to images on disk."""

import time
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils

from fmjax.errors import InputError
from fmjax.factory import RULES, Experiment, Guidance, Recipe
from fmjax.guidance import SCALE_SCHEDULES, network_calls
from fmjax.run.restore import Loaded, load, local_copy
from fmjax.run.sample.batches import (
    Request,
    fit_batch,
    lower_for,
    make_sample_fn,
    sample_in_batches,
)
from fmjax.run.sample.files import (
    MANIFEST,
    TRAJECTORY,
    SampleFiles,
    described_request,
    write_file,
    write_picture,
)
from fmjax.run.sample.shards import by_shard, share_out
from fmjax.run.sample.trajectory import write_trajectory
from fmjax.run.train.setup import on_first_process, say
from fmjax.samplers.diffusion_coefficients import DIFFUSIONS
from fmjax.samplers.ode import SOLVERS, SolverSpec, evaluation_times, solver_spec
from fmjax.samplers.sde import METHODS, SDESpec, sde_spec
from fmjax.samplers.time_grids import GRIDS
from fmjax.storage.checkpoints import fingerprint

__all__ = [  # what sample.py needs
    "DIFFUSIONS",
    "GRIDS",
    "METHODS",
    "RULES",
    "SCALE_SCHEDULES",
    "SOLVERS",
    "Guidance",
    "Request",
    "SampleResult",
    "sample",
    "sde_spec",
    "solver_spec",
]


class SampleResult(NamedTuple):
    """What a sample run made.

    Attributes:
        folder: where the samples and ``grid.png`` are.
        step: the step of the checkpoint.
        drawn: samples that this call drew, over all processes: those that were missing.
        compile_seconds: time to compile the sampler.
        seconds: time from the first batch asked to the last one written, by all processes.
        nfe: velocity evaluations per sample, on average over those of this process; 0 where it
            drew none, as is `calls`.
        calls: network evaluations per sample; at most so many where steps are adaptive.
    """

    folder: Path
    step: int
    drawn: int
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
    shard_size: int = 0,
    trajectory: bool = False,
    overwrite: bool = False,
) -> SampleResult:
    """Draws samples with a trained run's parameters and writes them.

    ``samples.npz`` gets ``samples`` (uint8 (num, H, W, C), or float32 (num, D) for points) and
    ``labels`` (int32 (num,), -1 where none was asked); ``grid.png`` shows the first of them, and
    ``trajectory.gif`` how they came about. Sample i depends on the seed and i alone, whatever the
    batch size, the shards, and the number of devices and processes: to float32 rounding, which may
    tip a grey level of 256, and to the bit where a device draws as many at a time.

    With a `shard_size` the same two arrays lie in files of so many samples, each whole or not
    there; every process writes its own, and the same call goes on where it was stopped. See
    `fmjax.run.sample.files`.

    Args:
        workdir: as in `fmjax.run.restore.load`, as are the arguments without a word of their own.
        out: the folder to write to, made if missing.
        request: which samples.
        solver: how to solve.
        guidance: which guidance.
        checkpoint: of which step.
        weak: the weaker checkpoint.
        ema: averaged or not.
        batch_size: samples per call, over the devices of a process.
        shard_size: samples in a file, at best a multiple of the batch size; 0 for one file.
        trajectory: also write the animation.
        overwrite: replace samples that are already there.

    Returns:
        What was made.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
        FloatingPointError: a sample did not reach t = 1; its file is not written.
    """
    _check_sizes(batch_size, shard_size)
    target = SampleFiles(out, request.num, shard_size)

    def check(experiment: Experiment) -> None:
        on_first_process(lambda: target.check(experiment.spec, overwrite))

    loaded = load(workdir, request, solver, guidance, checkpoint, weak, ema, check)
    params, mesh = local_copy(loaded.params, loaded.mesh)
    loaded = loaded._replace(params=params, mesh=mesh)
    missing, mine = _begin(target, workdir.name, loaded, overwrite)
    drawn = _draw(target, loaded, [target.spans[k] for k in mine], mine, batch_size)
    multihost_utils.sync_global_devices(f"samples in {out}")
    seconds = time.perf_counter() - drawn.compiled
    if jax.process_index() == 0:
        write_picture(target, loaded.experiment, loaded.request)
        if trajectory:
            write_trajectory(loaded, out / TRAJECTORY)
    count = sum(len(target.spans[k]) for k in missing)
    calls = _calls(loaded.recipe, drawn.nfe) if mine else 0.0
    return SampleResult(out, loaded.step, count, drawn.compile_seconds, seconds, drawn.nfe, calls)


def _check_sizes(batch_size: int, shard_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1; got {batch_size}.")
    if shard_size < 0:
        raise InputError(f"the shard size must be 0 (one file) or more; got {shard_size}.")
    if jax.process_count() > 1 and not shard_size:
        raise InputError(
            f"{jax.process_count()} processes cannot write into one file; write "
            f"--shard_size={4 * batch_size}, or take a single process."
        )


def _begin(
    target: SampleFiles, run: str, loaded: Loaded, overwrite: bool
) -> tuple[list[int], list[int]]:
    """Readies the folder; gives the files that are missing, and those that are this process's."""
    content = {}
    if target.shard_size:
        mark = int(fingerprint(loaded.params))
        content = described_request(
            run,
            loaded.step,
            mark,
            loaded.request,
            loaded.recipe,
            loaded.experiment.spec,
            target.shard_size,
        )
    on_first_process(lambda: target.begin(content, overwrite))
    if not target.shard_size:
        return [0], [0]
    missing, mine = share_out(target.paths, target.out / MANIFEST)
    say(f"{target.num} samples, {len(missing)} of {len(target.paths)} shards to go")
    return missing, mine


class _Drawn(NamedTuple):
    """What one process did: when it had compiled, how long that took, evaluations per sample."""

    compiled: float
    compile_seconds: float
    nfe: float


def _draw(
    target: SampleFiles, loaded: Loaded, spans: list[range], mine: list[int], batch_size: int
) -> _Drawn:
    """Draws and writes some of the files, one batch being written while the next is computed."""
    began = time.perf_counter()
    if not mine:
        return _Drawn(began, 0.0, 0.0)
    experiment, recipe, request, params, _, mesh = loaded
    batch = fit_batch(target.shard_size or target.num, batch_size, mesh.size)
    sample_fn = make_sample_fn(experiment, recipe, mesh)
    sample_fn = lower_for(sample_fn, params, jax.random.key(0), batch).compile()
    compiled = time.perf_counter()
    batches = sample_in_batches(sample_fn, params, experiment, request, batch, spans)
    nfe = 0
    drawn = by_shard(batches, spans, batch, "sample")
    for k, parts in zip(mine, drawn, strict=True):
        nfe += write_file(target.paths[k], target.spans[k], experiment, request, parts)
    return _Drawn(compiled, compiled - began, nfe / sum(map(len, spans)))


def _calls(recipe: Recipe, nfe: float) -> float:
    """Network evaluations per sample; exact for fixed steps of the ODE, else at most."""
    g = recipe.guidance
    if g is None:
        return nfe
    if isinstance(recipe.solver, SDESpec) or recipe.solver.control != "fixed":
        return 2 * nfe
    times = evaluation_times(recipe.solver)
    return network_calls(times, interval=g.interval, zero_until=g.zero_until)
