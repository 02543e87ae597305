"""A run made ready: everything checked that can be, before any device work."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from fmjax.config import ConfigDict
from fmjax.data.dataset import Dataset
from fmjax.data.load import load
from fmjax.data.pairs.records import open_pairs
from fmjax.errors import InputError
from fmjax.factory import DataSpec, Experiment, make_experiment
from fmjax.run import workdir as files
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.mesh import MeshSizes, row_shards
from fmjax.training.parallelism import Jit, Pmap, check_divides, make_layout
from fmjax.training.sharding import notes, state_shardings
from fmjax.training.state import TrainState, init_state
from fmjax.training.step import Step, make_step


class Run(NamedTuple):
    """What the parts of a run share."""

    config: ConfigDict
    workdir: Path
    dataset: Dataset
    training: Dataset  # the dataset, or the stored pairs that a flow of it made
    experiment: Experiment
    layout: Jit | Pmap
    checkpoints: Checkpoints
    lock: IO | None

    def close(self) -> None:
        """Frees the checkpoints' threads and the folder."""
        self.checkpoints.close()
        if self.lock is not None:
            self.lock.close()

    def ema_params(self, state: TrainState):
        """The averaged parameters as arrays over all processes."""
        return self.layout.to_global(state).ema_params


def state_from(experiment: Experiment, params: Any, mesh: jax.sharding.Mesh) -> TrainState:
    """The state before the first step of a run that begins with these parameters."""
    make_state = partial(init_state, optimizer=experiment.optimizer)
    shardings = state_shardings(jax.eval_shape(make_state, params), mesh)
    return jax.jit(make_state, out_shardings=shardings)(params)


def train_step(config: ConfigDict, experiment: Experiment, layout: Jit | Pmap) -> Step:
    """The step of a run, for its layout to compile."""
    return make_step(
        experiment.loss_fn,
        partial(experiment.draw, layout=layout),
        experiment.optimizer,
        ema=config.train.ema,
        accumulate=config.train.accumulate,
        axis_name=layout.axis_name,
        learning_rate=experiment.learning_rate,
    )


def make_init(experiment: Experiment) -> Callable[[jax.Array], TrainState]:
    """``init(key)``, the state before the first step."""
    return lambda key: init_state(experiment.init_params(key), experiment.optimizer)


def abstract_state(experiment: Experiment, mesh: jax.sharding.Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state, nothing allocated."""
    abstract = jax.eval_shape(make_init(experiment), jax.random.key(0))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        abstract,
        state_shardings(abstract, mesh),
    )


def no_check(_: Experiment) -> None:
    """Finds nothing wrong."""


def prepare(
    config: ConfigDict,
    workdir: Path,
    parallel: str,
    overwrite: bool,
    check: Callable[[Experiment], None] = no_check,
) -> Run:
    """Makes a run ready; the folder is touched last, when all else has been found right.

    Args:
        config: every key.
        workdir: the folder.
        parallel: the layout's name.
        overwrite: deletes an earlier run.
        check: what else is to be found right of the experiment.

    Raises:
        InputError: something does not fit, in one sentence.
    """
    _check_train(config)
    dataset = load(config.data.name, config.data.dir)
    spec = DataSpec(dataset.shape, dataset.num_classes, dataset.class_names)
    experiment = make_experiment(config, spec)
    check(experiment)
    training = _training_set(config, dataset, experiment)
    layout = make_layout(
        parallel, sizes=MeshSizes(**config.mesh), steps=config.train.steps_per_call
    )
    check_divides(config.train.batch_size, row_shards(layout.mesh), config.train.accumulate)
    state = abstract_state(experiment, layout.mesh)
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    record = files.Record(config, spec)
    lock = on_first_process(lambda: files.prepare(workdir, record, state_bytes, overwrite))
    for note in notes(state.params, layout.mesh):
        say(note)
    checkpoints = Checkpoints(workdir / files.CHECKPOINTS, config.train.keep, notify=say)
    return Run(config, workdir, dataset, training, experiment, layout, checkpoints, lock)


def _training_set(config: ConfigDict, dataset: Dataset, experiment: Experiment) -> Dataset:
    if config.coupling.name != "pairs":
        return dataset
    if config.data.flip:
        raise InputError(
            "stored pairs cannot be flipped, half of each alone; data.flip must be off."
        )
    return open_pairs(Path(config.coupling.dir), dataset.shape, experiment.num_classes)


def on_first_process(work: Callable[[], Any]) -> Any:
    """Does something on one process; its InputError is raised on all, so that none waits for ever.

    Returns:
        What the work returns, None on the other processes.
    """
    result, message = None, ""
    if jax.process_index() == 0:
        try:
            result = work()
        except InputError as error:
            message = str(error)
    failed = multihost_utils.broadcast_one_to_all(np.int32(bool(message)))
    if failed:
        raise InputError(message or "process 0 found something wrong; it says what.")
    return result


def say(text: str) -> None:
    """Prints on one process of all."""
    if jax.process_index() == 0:
        print(text, flush=True)


def _check_train(config: ConfigDict) -> None:
    c = config.train
    positive = ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "keep")
    for key in (*positive, "steps_per_call"):
        if c[key] < 1:
            raise InputError(f"train.{key} must be at least 1; got {c[key]}.")
    for key in ("steps", "log_every", "checkpoint_every", "sample_every"):
        if c[key] % c.steps_per_call:
            raise InputError(
                f"train.{key}={c[key]} must be a multiple of train.steps_per_call="
                f"{c.steps_per_call}: nothing happens inside a call."
            )
    if config.train.sample_every < 0:
        raise InputError(f"train.sample_every must be 0 or more; got {config.train.sample_every}.")
    if not 0 <= config.train.seed < 2**32:  # jax would take another seed modulo 2^32
        raise InputError(f"train.seed must lie between 0 and 2^32 - 1; got {config.train.seed}.")
    if config.eval.num < 0 or config.eval.num == 1:
        raise InputError(
            f"eval.num must be 0 (no evaluation) or at least 2; got {config.eval.num}."
        )
    if config.eval.reference < 4:
        raise InputError(f"eval.reference must be at least 4; got {config.eval.reference}.")
    if not 0 <= config.train.ema < 1:
        raise InputError(f"train.ema must lie in [0, 1); got {config.train.ema}.")
