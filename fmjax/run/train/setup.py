"""Before the first step: build everything, check it, claim the folder, restore the state."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fmjax.config import ConfigDict
from fmjax.data.dataset import Dataset
from fmjax.data.pairs.records import open_pairs
from fmjax.errors import InputError
from fmjax.factory import Experiment, make_experiment, spec_of
from fmjax.factory.lora import Lora, without_lora
from fmjax.factory.settings import DataSettings, check_settings
from fmjax.factory.training import abstract_state
from fmjax.first_process import on_first_process, say
from fmjax.run import workdir as folder
from fmjax.run.teacher import Teacher, check_teacher, keep_teacher, read_teacher
from fmjax.run.train.weights_and_biases import WandbLog
from fmjax.run.weights.initial import Initial, beginning, check_initial, initial_params
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.folder import Folder
from fmjax.training.mesh import row_shards
from fmjax.training.parallelism import Jit, Parallel, Pmap, check_divides, make_layout
from fmjax.training.state import TrainState


class Run(NamedTuple):
    """What the parts of a training run share.

    Attributes:
        config: every key.
        workdir: its folder.
        experiment: everything its configuration stands for.
        dataset: the real examples, which it is evaluated against.
        training: the examples it learns: the data set, or stored pairs that a flow of it made.
        layout: how its step is spread over devices.
        teacher: of a flow map that has one, once `with_teacher` has read it.
        log: where its scalars and pictures go beside its own files.
    """

    config: ConfigDict
    workdir: Path
    experiment: Experiment
    dataset: Dataset
    training: Dataset
    layout: Jit | Pmap
    teacher: Teacher | None = None
    log: WandbLog = WandbLog()

    @property
    def record(self) -> folder.Record:
        """What its folder says of it, as long as it has begun with nothing stored."""
        return folder.Record(self.config, self.experiment.spec, self.dataset.fingerprint)


def build(config: ConfigDict, workdir: Path, parallel: Parallel) -> Run:
    """Makes the objects of a run; no array is allocated and no file is written.

    Args:
        config: every key of `fmjax.config.default_config`.
        workdir: the run's folder.
        parallel: ``"jit"`` or ``"pmap"``.

    Raises:
        InputError: something does not fit, in one sentence.
    """
    check_settings(config)
    dataset = DataSettings(**config.data).load()
    experiment = make_experiment(config, spec_of(dataset), snapshots=dataset.snapshots)
    training = dataset
    if hasattr(dataset.train, "read_pairs") and experiment.pairs is None:
        _check_paired(config)
    if experiment.pairs is not None:
        classes = None if experiment.classes is None else experiment.classes.num_classes
        training = open_pairs(Path(experiment.pairs), dataset.shape, classes)
    layout = make_layout(
        parallel,
        sizes=experiment.mesh,
        steps=experiment.train.steps_per_call,
        rules=experiment.sharding_rules,
    )
    return Run(config, workdir, experiment, dataset, training, layout)


def _check_paired(config: ConfigDict) -> None:
    """Checks the configuration of a set whose examples come with the points they start from.

    Raises:
        InputError: samples would start elsewhere, or the pairs would be paired anew.
    """
    name, source, coupling = config.data.name, config.source, config.coupling
    if (source.name, source.data) != ("data", name) or coupling.name != "independent":
        raise InputError(
            f"data.name={name!r} holds pairs, and its flow starts from their x0: write "
            f"source.name=data source.data={name} coupling.name=independent; got "
            f"source.name={source.name} source.data={source.data} coupling.name={coupling.name}."
        )


def check(run: Run, overwrite: bool, initial: Initial | None) -> None:
    """Checks what `build` cannot see: the devices against the batch, and where the run begins.

    Raises:
        InputError: something does not fit, in one sentence.
    """
    train = run.experiment.train
    check_divides(train.batch_size, row_shards(run.layout.mesh), train.accumulate)
    if run.experiment.teacher is not None:
        teacher = Path(run.experiment.teacher)
        if teacher.absolute() == run.workdir.absolute():
            raise InputError(
                f"a run cannot be its own teacher: give another --workdir than {teacher}."
            )
        check_teacher(teacher, run.experiment)
    if initial is None:
        if run.experiment.lora and (overwrite or not folder.has_checkpoints(run.workdir)):
            raise InputError(
                f"lora.rank={run.experiment.lora.rank} trains adapters beside a trained network: "
                "give it by --init_from, or write lora.rank=0."
            )
        return
    if overwrite and initial.source.absolute() == run.workdir.absolute():
        raise InputError(
            f"--overwrite would delete {initial.source}, which the run is to begin with."
        )
    check_initial(initial, _network_of(run))


def with_teacher(run: Run) -> Run:
    """The run with what its teacher says, if it has one; reads the teacher's parameters."""
    if run.experiment.teacher is None:
        return run
    asked = run.config.flow_map
    w = asked.guidance if asked.guidance_max is None else None
    teacher = read_teacher(Path(run.experiment.teacher), run.experiment, w)
    experiment = make_experiment(run.config, run.experiment.spec, teacher=teacher.velocity)
    return run._replace(experiment=experiment, teacher=teacher)


@contextlib.contextmanager
def claimed(run: Run, overwrite: bool) -> Iterator[Folder]:
    """Makes the folder this run's own for as long as the context lasts.

    Args:
        run: from `build`; its configuration goes into the folder's record.
        overwrite: deletes an earlier run in the folder first.

    Yields:
        The folder and its checkpoints.

    Raises:
        InputError: the folder cannot be written, is too full, is in use, or holds another run.
    """
    state = abstract_state(run.experiment, run.layout.mesh)
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    lock = on_first_process(lambda: folder.claim(run.workdir, run.record, state_bytes, overwrite))
    try:
        keep = run.experiment.train.keep
        about = dict(run.experiment.architecture)
        checkpoints = Checkpoints(
            run.workdir / folder.CHECKPOINTS, keep, notify=say, architecture=about
        )
        try:
            yield Folder(run.workdir, checkpoints)
        finally:
            checkpoints.close()
    finally:
        if lock is not None:
            lock.close()


def restore(run: Run, checkpoints: Checkpoints, initial: Initial | None) -> tuple[int, Any]:
    """The step to start from, and what to start with, as `fmjax.training.fit` takes it.

    The newest whole checkpoint; without one stored parameters, if they are asked for;
    else how to make fresh ones.
    """
    experiment, mesh = run.experiment, run.layout.mesh
    found = checkpoints.restore_latest(abstract_state(experiment, mesh)._asdict())
    if run.teacher is not None:
        on_first_process(partial(keep_teacher, run.workdir, run.teacher, found is not None))
    if found is not None:
        step, state = found
        return step, TrainState(**state)
    if initial is None:
        return 0, experiment.init_params
    params = initial_params(initial, _network_of(run), mesh)
    record = run.record._replace(began=beginning(initial, params))
    on_first_process(lambda: folder.save_record(run.workdir, record))
    return 0, params if experiment.lora is None else _with_adapters(run, experiment.lora, params)


def _network_of(run: Run) -> Experiment:
    """The experiment whose parameters are the network's own, which stored ones are."""
    if run.experiment.lora is None:
        return run.experiment
    spec, snapshots = run.experiment.spec, run.experiment.snapshots
    return make_experiment(without_lora(run.config), spec, snapshots=snapshots)


def _with_adapters(run: Run, lora: Lora, params: Any) -> Any:
    """A network's parameters and the adapters that a run trains, each device its own part."""
    experiment = run.experiment
    key = lora.key(jax.random.key(experiment.train.seed))
    target = abstract_state(experiment, run.layout.mesh).params
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    return jax.jit(lora.beside, out_shardings=shardings)(params, key)
