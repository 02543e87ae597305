"""Pictures of samples: a grid of images, or a scatter plot of points."""

from pathlib import Path

import jax
import numpy as np

from fmjax import plots
from fmjax.data.dataset import Dataset
from fmjax.factory import Recipe
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples

_ROWS = 10
_POINTS_IN_PICTURE = 2000


def save_samples(samples: np.ndarray, columns: int, labels: np.ndarray | None, path: Path) -> None:
    """Writes samples as a PNG: a grid of images, or a scatter plot of points."""
    if samples.ndim == 4:
        plots.save_png(plots.image_grid(samples, columns), path)
    else:
        plots.save_png(plots.scatter(samples, labels), path)


def save_overview(flow: TrainedFlow, dataset: Dataset, seed: int, path: Path) -> None:
    """Draws samples of every class and writes a picture of them.

    Images lie in a grid, a class a column; points beside real ones.

    Args:
        flow: a trained flow, on all processes; process 0 writes.
        dataset: the real examples.
        seed: of the samples.
        path: of the PNG.
    """
    experiment = flow.experiment
    columns = min(experiment.num_classes or _ROWS, 20)
    num = columns * _ROWS if experiment.spec.is_image else _POINTS_IN_PICTURE
    request, recipe = resolve(experiment, Request(num, seed=seed), Recipe(experiment.solver))
    samples = draw_samples(flow, request, recipe)
    if jax.process_index() != 0:
        return
    labels = None if request.labels is None else np.arange(num) % len(request.labels)
    if experiment.spec.is_image:
        save_samples(samples, columns, labels, path)
    else:  # real points on the left: a distribution has to be seen beside its model
        real, classes = dataset.arrays("test", num)
        drawn = plots.scatter(samples, labels, reference=real, reference_labels=classes)
        plots.save_png(drawn, path)
