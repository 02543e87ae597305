"""Pairs from a trained flow: noise, and where the flow carries it, stored to be learned again."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P

from fmjax.data.pairs.records import INFO, PairInfo, missing_shards, shard_path
from fmjax.data.pairs.writer import PairPart, begin_pairs, write_shard
from fmjax.factory import Experiment, make_experiment
from fmjax.run import workdir as files
from fmjax.run.restore import load_params, local_copy
from fmjax.run.sample.batches import (
    Request,
    SampleBatch,
    fit_batch,
    make_sample_fn,
    sample_in_batches,
)
from fmjax.run.sample.shards import by_shard, share_out
from fmjax.run.train.setup import on_first_process, say
from fmjax.samplers.spec import SolverSpec, described
from fmjax.storage.fingerprint import fingerprint
from fmjax.training.mesh import make_mesh

_SHARD = 1024  # pairs, at most: the work that a kill can lose


class Flow(NamedTuple):
    """A trained run's flow, on the devices of this process.

    Attributes:
        workdir: the run's folder.
        record: what the run is.
        experiment: what its configuration stands for.
        step: of the checkpoint.
        params: the averaged parameters.
        mesh: of this process's own devices, so that each process samples by itself.
        mark: a number that other parameters would not have.
    """

    workdir: Path
    record: files.Record
    experiment: Experiment
    step: int
    params: Any
    mesh: jax.sharding.Mesh
    mark: int

    def global_params(self) -> Any:
        """The parameters as arrays over all processes."""
        return multihost_utils.host_local_array_to_global_array(self.params, make_mesh(), P())

    def request(self, num: int, w: float, seed: int) -> Request:
        """Samples of all classes in turn, or without a class where the flow has none."""
        classes = self.experiment.num_classes
        return Request(num, None if classes is None else tuple(range(classes)), (w,), seed)


def load_flow(workdir: Path) -> Flow:
    """The flow of a run's newest checkpoint.

    Raises:
        InputError: the folder holds no run, or one without a checkpoint.
    """
    record = files.load_record(workdir)
    experiment = make_experiment(record.config, record.spec)
    mesh = make_mesh()
    step, params = load_params(workdir, experiment, "latest", True, mesh)
    mark = int(fingerprint(params))
    return Flow(workdir, record, experiment, step, *local_copy(params, mesh), mark)


def pair_info(flow: Flow, request: Request, solver: SolverSpec, resume: str) -> PairInfo:
    """What the pairs of a request will be."""
    spec = flow.experiment.spec
    conditional = request.labels is not None
    return PairInfo(
        shape=spec.shape,
        number=request.num,
        shards=-(-request.num // _SHARD),
        num_classes=spec.num_classes if conditional else None,
        class_names=spec.class_names if conditional else None,
        origin={
            "run": flow.workdir.name,
            "step": flow.step,
            "parameters": flow.mark,
            "solver": described(solver),
            "guidance": request.w[0],
            "seed": request.seed,
        },
        resume=resume,
    )


def generate(
    flow: Flow, folder: Path, request: Request, solver: SolverSpec, batch_size: int, resume: str
) -> None:
    """Stores the pairs of a request, every process the shards that are its own.

    Pair i is a function of the flow, the solver, the seed and i alone; what is there already is
    left as it is.

    Args:
        flow: what carries x0 to x1.
        folder: where the pairs go; made if missing.
        request: how many, of which classes, from which seed.
        solver: how to solve.
        batch_size: pairs per call, over the devices of a process.
        resume: the command that goes on where this was stopped.

    Raises:
        InputError: the folder holds other pairs, cannot be written, or is too full.
        FloatingPointError: the flow gave NaN or infinity.
    """
    info = pair_info(flow, request, solver, resume)
    on_first_process(lambda: _begin(folder, info))
    paths = [shard_path(folder, info, shard) for shard in range(info.shards)]
    missing, mine = share_out(paths, folder / INFO)
    if missing:
        say(f"{info.number} pairs of {flow.workdir}, {len(missing)} of {info.shards} shards to go")
    if mine:
        _write_shards(flow, folder, info, request, solver, batch_size, mine)
    multihost_utils.sync_global_devices(f"pairs in {folder}")


def _begin(folder: Path, info: PairInfo) -> None:
    files.check_writable(folder, "--workdir")
    needed = info.nbytes * len(missing_shards(folder, info)) // info.shards
    files.check_space(folder, needed, "the pairs", "free some space, or lower --num")
    begin_pairs(folder, info)


def _write_shards(
    flow: Flow,
    folder: Path,
    info: PairInfo,
    request: Request,
    solver: SolverSpec,
    batch_size: int,
    shards: list[int],
) -> None:
    """Draws and writes some shards, one being written while the next is computed."""
    batch = fit_batch(-(-info.number // info.shards), batch_size, flow.mesh.size)
    sample_fn = make_sample_fn(flow.experiment, request.recipe(solver), flow.mesh, pairs=True)
    spans = [info.rows(shard) for shard in shards]
    batches = sample_in_batches(sample_fn, flow.params, flow.experiment, request, batch, spans)
    drawn = by_shard(batches, spans, batch, "pair")
    for shard, parts in zip(shards, drawn, strict=True):
        write_shard(folder, info, shard, map(partial(_part, request), parts))


def _part(request: Request, drawn: SampleBatch) -> PairPart:
    labels = None if request.labels is None else drawn.labels
    return np.asarray(drawn.samples.x0), np.asarray(drawn.samples.x1), labels
