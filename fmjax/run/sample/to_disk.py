"""The sample run: from a trained run's folder to samples on disk."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils

from fmjax.checks import check_at_least
from fmjax.errors import InputError
from fmjax.factory import DataSpec, Experiment, Recipe
from fmjax.first_process import on_first_process, say
from fmjax.run.pictures import check_shown
from fmjax.run.restore import LATEST, TrainedFlow, Weights, open_run, restore_flow
from fmjax.run.sample.files import (
    MANIFEST,
    SampleFiles,
    is_whole,
    manifest_of,
    write_file,
    write_picture,
)
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import compiled_for, draw_batches, fit_batch
from fmjax.run.sample.shards import by_shard, share_out
from fmjax.run.sample.trajectory import write_trajectory


class SampleResult(NamedTuple):
    """What a sample run made.

    Attributes:
        folder: where the samples and ``grid.png`` are.
        step: the step of the checkpoint.
        num: samples in the folder now.
        drawn: samples that this call drew, over all processes: those that were missing.
        compile_seconds: time to compile the sampler.
        seconds: time from the first batch asked to the last one written, by all processes.
        nfe: velocity evaluations per sample, on average over those of this process; 0 where it
            drew none, as is `calls`.
        calls: network evaluations per sample; at most so many where steps are adaptive.
    """

    folder: Path
    step: int
    num: int
    drawn: int
    compile_seconds: float
    seconds: float
    nfe: float
    calls: float


def sample(
    workdir: Path,
    out: Path,
    request: Request,
    recipe: Recipe,
    weights: Weights = LATEST,
    *,
    batch_size: int = 256,
    shard_size: int = 0,
    trajectory: bool = False,
    overwrite: bool = False,
) -> SampleResult:
    """Draws samples with a trained run's parameters and writes them.

    ``samples.npz`` gets ``samples`` (data: uint8 (num, H, W, C) for images, float32 (num, D) for
    vectors), ``labels`` (int32 (num,), -1 where none was asked; several conditions each under its
    own name), the guidance scales ``w`` (num,), and the ``seed`` and the ``solver``; ``grid.png``
    shows the first of them, and ``trajectory.gif`` how they came
    about, where there is a picture for such data. Sample i depends on the seed and i alone,
    whatever the batch size, the shards, and the number of devices and processes: to float32
    rounding, which may tip a grey level of 256, and to the bit where a device draws as many at a
    time.

    With a `shard_size` the same two arrays lie in files of so many samples, each whole or not
    there; every process writes its own, and the same call goes on where it was stopped. See
    `fmjax.run.sample.files`.

    Args:
        workdir: a trained run's folder, or one of exported parameters.
        out: the folder to write to, made if missing.
        request: what to draw.
        recipe: how to draw it.
        weights: with which parameters of the run.
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
    # Build and check: everything that can be refused before a parameter is read.
    _check_sizes(batch_size, shard_size)
    experiment = open_run(workdir)
    request, recipe = resolve(experiment, request, recipe, weak=weights.weak is not None)
    if trajectory:
        check_shown(experiment.spec.codec)
    target = SampleFiles(out, request.number, shard_size, overwrite)
    with _claimed(target, experiment.spec):
        flow = restore_flow(workdir, experiment, weights.needed(recipe), local=True)
        return _sample(target, flow, request, recipe, batch_size, trajectory)


@contextlib.contextmanager
def _claimed(target: SampleFiles, spec: DataSpec) -> Iterator[None]:
    """Keeps other processes out of the folder for as long as the context lasts."""
    lock = on_first_process(lambda: target.claim(spec))
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _sample(
    target: SampleFiles,
    flow: TrainedFlow,
    request: Request,
    recipe: Recipe,
    batch_size: int,
    trajectory: bool,
) -> SampleResult:
    """`sample`, when the folder is this run's own and the parameters are read."""
    # Share the files out among the processes.
    missing, mine = _begin_files(target, flow, request, recipe)

    # Draw and write, each process its own files.
    timing = _draw(target, flow, request, recipe, mine, batch_size)
    multihost_utils.sync_global_devices(f"samples in {target.out}")
    seconds = time.perf_counter() - timing["compiled"]
    if jax.process_index() == 0:
        write_picture(target, flow, request)
        if trajectory:
            write_trajectory(flow, request, recipe, target.out)
    return SampleResult(
        folder=target.out,
        step=flow.step,
        num=request.number,
        drawn=sum(len(target.spans[k]) for k in missing),
        compile_seconds=timing["compile_seconds"],
        seconds=seconds,
        nfe=timing["nfe"],
        calls=_calls(flow.experiment, recipe, timing["nfe"]) if mine else 0.0,
    )


def describe_result(result: SampleResult) -> str:
    """What a sample run made, in a sentence for a person."""
    done = f"{result.num} samples of step {result.step} in {result.folder}"
    if not result.drawn:
        return f"{done}: all there already"
    part = "" if result.drawn == result.num else f"{result.drawn} of them now, "
    return (
        f"{done}: {part}{result.seconds:.1f} s, after {result.compile_seconds:.1f} s of "
        f"compilation; {result.drawn / result.seconds:.1f} samples per second; {result.nfe:g} "
        f"velocity evaluations per sample ({result.calls:g} of the network)"
    )


def _check_sizes(batch_size: int, shard_size: int) -> None:
    check_at_least("the batch size", batch_size)
    check_at_least("the shard size", shard_size, 0, advice="For one file write 0.")
    if jax.process_count() > 1 and not shard_size:
        raise InputError(
            f"{jax.process_count()} processes cannot write into one file; write "
            f"--shard_size={4 * batch_size}, or take a single process."
        )


def _begin_files(
    target: SampleFiles, flow: TrainedFlow, request: Request, recipe: Recipe
) -> tuple[list[int], list[int]]:
    """Readies the folder; gives the files that are missing, and those that are this process's."""
    sharded = target.shard_size > 0
    content = manifest_of(flow, request, recipe, target.shard_size) if sharded else {}
    on_first_process(lambda: target.begin(content))
    if not sharded:
        return [0], [0]
    spec = flow.experiment.spec
    missing, mine = share_out(
        target.paths,
        target.out / MANIFEST,
        lambda k: is_whole(target.paths[k], target.spans[k], spec),
    )
    say(f"{target.num} samples, {len(missing)} of {len(target.paths)} shards to go")
    return missing, mine


def _draw(
    target: SampleFiles,
    flow: TrainedFlow,
    request: Request,
    recipe: Recipe,
    mine: list[int],
    batch_size: int,
) -> dict[str, float]:
    """Draws and writes some of the files, one batch being written while the next is computed.

    Returns:
        ``compiled``, when the program was ready; ``compile_seconds``, how long that took; and
        ``nfe``, evaluations per sample.
    """
    began = time.perf_counter()
    if not mine:
        return {"compiled": began, "compile_seconds": 0.0, "nfe": 0.0}
    spans = [target.spans[k] for k in mine]
    batch = fit_batch(target.shard_size or target.num, batch_size, flow.mesh.size)
    sample_fn = compiled_for(flow, recipe, request, batch)
    compiled = time.perf_counter()
    batches = draw_batches(sample_fn, flow, request, batch, spans)
    nfe = 0
    for k, parts in zip(mine, by_shard(batches, spans, batch, "sample"), strict=True):
        nfe += write_file(target.paths[k], target.spans[k], flow, request, recipe, parts)
    return {
        "compiled": compiled,
        "compile_seconds": compiled - began,
        "nfe": nfe / sum(map(len, spans)),
    }


def _calls(experiment: Experiment, recipe: Recipe, nfe: float) -> float:
    """Network evaluations per sample; at most, where the solver does not know their times."""
    guidance = recipe.guidance
    if guidance is None or experiment.scaled_fn is not None:
        return nfe
    times = recipe.solver.evaluation_times()
    if times is None:
        return guidance.network_calls([0.5]) * nfe
    return guidance.network_calls(times)
