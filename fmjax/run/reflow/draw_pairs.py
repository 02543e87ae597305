"""Pairs from a trained flow: noise, and where the flow carries it, stored to be learned again."""

from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from jax.experimental import multihost_utils

from fmjax.data.pairs.records import INFO, PairInfo, damage, missing_shards, shard_path
from fmjax.data.pairs.writer import PairPart, begin_pairs, write_shard
from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.files import check_space, check_writable
from fmjax.first_process import on_first_process, say
from fmjax.folders import check_no_links, lock_folder
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request
from fmjax.run.sample.sampler import SampleBatch, draw_batches, fit_batch, make_sample_fn
from fmjax.run.sample.shards import by_shard, share_out
from fmjax.storage.fingerprint import fingerprint

_SHARD = 1024  # pairs, at most: the work that a kill can lose
_MOST = 100_000  # shards


def pair_info(flow: TrainedFlow, request: Request, recipe: Recipe, resume: str) -> PairInfo:
    """What the pairs of a request will be."""
    spec = flow.experiment.spec
    classes = None if request.labels is None else flow.experiment.classes
    return PairInfo(
        shape=spec.shape,
        number=request.number,
        shards=-(-request.number // _SHARD),
        num_classes=None if classes is None else classes.num_classes,
        class_names=None if classes is None else classes.names,
        origin={
            "run": flow.workdir.name,
            "step": flow.step,
            "parameters": int(fingerprint(flow.params)),
            "solver": recipe.solver.describe(),
            "guidance": request.scales[0],
            "seed": request.seed,
        },
        resume=resume,
    )


def draw_pairs(
    flow: TrainedFlow, folder: Path, request: Request, recipe: Recipe, batch_size: int, resume: str
) -> None:
    """Stores the pairs of a request, every process the shards that are its own.

    Pair i is a function of the flow, the solver, the seed and i alone; what is there already is
    left as it is.

    Args:
        flow: what carries x0 to x1; each process has a copy of its own.
        folder: where the pairs go; made if missing.
        request: how many, of which classes, from which seed; from
            `fmjax.run.sample.request.resolve`, as is the recipe.
        recipe: how to draw them.
        batch_size: pairs per call, over the devices of a process.
        resume: the command that goes on where this was stopped.

    Raises:
        InputError: the folder holds other pairs, cannot be written, or is too full.
        FloatingPointError: the flow gave NaN or infinity.
    """
    info = pair_info(flow, request, recipe, resume)
    lock = on_first_process(lambda: _begin_pairs(folder, info))
    try:
        _draw_missing(flow, folder, info, request, recipe, batch_size)
    finally:
        if lock is not None:
            lock.close()


def _draw_missing(
    flow: TrainedFlow,
    folder: Path,
    info: PairInfo,
    request: Request,
    recipe: Recipe,
    batch_size: int,
) -> None:
    paths = [shard_path(folder, info, shard) for shard in range(info.shards)]
    missing, mine = share_out(paths, folder / INFO, lambda k: damage(folder, info, k) is None)
    if missing:
        say(f"{info.number} pairs of {flow.workdir}, {len(missing)} of {info.shards} shards to go")
    if mine:
        _write_shards(flow, folder, info, request, recipe, batch_size, mine)
    multihost_utils.sync_global_devices(f"pairs in {folder}")


def _begin_pairs(folder: Path, info: PairInfo) -> IO | None:
    if info.shards > _MOST:
        raise InputError(
            f"{info.number} pairs make more than {_MOST} files of {_SHARD}; write "
            f"--num={_MOST * _SHARD} or less."
        )
    check_writable(folder, "--workdir")
    lock = lock_folder(folder, "--workdir")
    try:
        check_no_links(folder, (".*",), "--workdir")
        needed = info.nbytes * len(missing_shards(folder, info)) // info.shards
        check_space(folder, needed, "the pairs", "free some space, or lower --num")
        begin_pairs(folder, info)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    return lock


def _write_shards(
    flow: TrainedFlow,
    folder: Path,
    info: PairInfo,
    request: Request,
    recipe: Recipe,
    batch_size: int,
    shards: list[int],
) -> None:
    """Draws and writes some shards, one being written while the next is computed."""
    batch = fit_batch(-(-info.number // info.shards), batch_size, flow.mesh.size)
    sample_fn = make_sample_fn(flow.experiment, recipe, flow.mesh, pairs=True)
    spans = [info.rows(shard) for shard in shards]
    batches = draw_batches(sample_fn, flow, request, batch, spans)
    drawn = by_shard(batches, spans, batch, "pair")
    for shard, parts in zip(shards, drawn, strict=True):
        write_shard(folder, info, shard, map(partial(_part, request), parts))


def _part(request: Request, drawn: SampleBatch) -> PairPart:
    labels = None if request.labels is None else drawn.labels
    x0, x1 = drawn.samples
    return np.asarray(x0), np.asarray(x1), labels
