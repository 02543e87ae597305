"""A trained run as these benchmarks need it: the network, its parameters and its data set."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fmjax.data.dataset import Dataset
from fmjax.data.tfds.builders import load as load_dataset
from fmjax.factory import Experiment, Guidance, Recipe, flow
from fmjax.run.restore import load
from fmjax.run.sample.batches import Request
from fmjax.run.workdir import load_record
from fmjax.samplers.ode import solver_spec
from fmjax.samplers.spec import SolverSpec


class TrainedRun(NamedTuple):
    """What `open_run` reads; the parameters are the averaged ones of the newest checkpoint."""

    experiment: Experiment
    params: Any
    dataset: Dataset

    def velocity(self, x: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        """The velocity of the trained network."""
        return self.experiment.apply_fn(self.params, x, t, labels)

    def training_set(self) -> tuple[np.ndarray, np.ndarray]:
        """All training images, uint8 (n, H, W, C), and their classes (n,)."""
        return self.dataset.arrays("train", 10**9)

    def guided_sampler(self, solver: SolverSpec):
        """``sample(x0, key, index, labels, w) -> Solution``, compiled, classifier-free guided."""
        return partial(jax.jit(flow(self.experiment, Recipe(solver, Guidance()))), self.params)


def open_run(workdir: Path) -> TrainedRun:
    """Reads the folder of a run that ``python train.py --config=configs/digits.py`` left."""
    loaded = load(workdir, Request(1, (0,)), solver_spec())
    dataset = load_dataset(load_record(workdir).config.data.name)
    return TrainedRun(loaded.experiment, loaded.params, dataset)
