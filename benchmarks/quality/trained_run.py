"""A trained run as these benchmarks need it: the network, its parameters and its data set."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fmjax.data.dataset import Dataset
from fmjax.data.load import load
from fmjax.factory import Recipe, make_sampler
from fmjax.run import restore
from fmjax.run.restore import TrainedFlow
from fmjax.samplers import Solver


class TrainedRun(NamedTuple):
    """What `open_run` reads; the parameters are the averaged ones of the newest checkpoint."""

    flow: TrainedFlow
    dataset: Dataset

    def velocity(self, x: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        """The velocity of the trained network."""
        return self.flow.experiment.apply_fn(self.flow.params, x, t, labels)

    def training_set(self) -> tuple[np.ndarray, np.ndarray]:
        """All training images, uint8 (n, H, W, C), and their classes (n,)."""
        return self.dataset.arrays("train", 10**9)

    def guided_sampler(self, solver: Solver):
        """``sample(x0, key, index, labels, w) -> Solution``, compiled, classifier-free guided."""
        sampler = jax.jit(make_sampler(self.flow.experiment, Recipe(solver)))
        return partial(sampler, self.flow.params)


def open_run(workdir: Path) -> TrainedRun:
    """Reads the folder of a run that ``python train.py --config=configs/digits.py`` left."""
    experiment = restore.open_run(workdir)
    return TrainedRun(
        restore.restore_flow(workdir, experiment),
        load(experiment.data.name, experiment.data.dir),
    )
