"""Pictures and figures of a run: previews while it trains, the evaluation at its end."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from fmjax import plots
from fmjax.run import workdir as files
from fmjax.run.evaluation import describe, evaluate, load_reference
from fmjax.run.sample.batches import Request, fit_batch, make_sample_fn, sample_in_batches
from fmjax.run.train.setup import Run

_BATCH = 128  # the one shape of all reports, so that they share a program
_PREVIEW_ROWS = 10
_POINTS = 2000


def draw(run: Run, params: Any, request: Request) -> np.ndarray:
    """All the samples of a request, with the solver of the configuration."""
    mesh = run.layout.mesh
    sample_fn = make_sample_fn(run.experiment, request.recipe(run.experiment.solver), mesh)
    batch = fit_batch(_BATCH, _BATCH, mesh.size)
    batches = sample_in_batches(sample_fn, params, run.experiment, request, batch)
    return np.concatenate([b.samples for b in batches])


def _request(run: Run, num: int) -> Request:
    classes = run.experiment.num_classes
    labels = None if classes is None else tuple(range(classes))
    return Request(num, labels, (run.config.sample.guidance,), run.config.train.seed)


def picture(samples: np.ndarray, columns: int, labels: np.ndarray | None, path: Path) -> None:
    """Writes samples as a PNG: a grid of images, or a scatter plot of points."""
    if samples.ndim == 4:
        plots.save_png(plots.image_grid(samples, columns), path)
    else:
        plots.save_png(plots.scatter(samples, labels), path)


def write_picture(run: Run, params: Any, path: Path) -> None:
    """Samples of every class, one class a column, drawn and written."""
    columns = min(run.experiment.num_classes or _PREVIEW_ROWS, 20)
    num = columns * _PREVIEW_ROWS if run.experiment.spec.is_image else _POINTS
    request = _request(run, num)
    samples = draw(run, params, request)
    if jax.process_index() == 0:
        labels = None if request.labels is None else np.arange(num) % len(request.labels)
        if run.experiment.spec.is_image:
            picture(samples, columns, labels, path)
        else:  # real points on the left: a distribution has to be seen beside its model
            real, classes = run.dataset.arrays("test", num)
            drawn = plots.scatter(samples, labels, reference=real, reference_labels=classes)
            plots.save_png(drawn, path)


def final_report(run: Run, params: Any, step: int) -> str:
    """Draws, measures and writes what the trained flow gives; returns it in words."""
    path = run.workdir / files.SAMPLES / "final.png"
    write_picture(run, params, path)
    text = f"samples: {path}"
    if run.config.eval.num == 0:
        return text
    request = _request(run, run.config.eval.num)
    samples = draw(run, params, request)
    labels, unconditional = None, None
    if request.labels is not None:
        labels = np.arange(request.num, dtype=np.int32) % len(request.labels)
        # Another seed than the guided samples': the histogram is a second, independent draw.
        free = request._replace(labels=None, w=(1.0,), seed=(request.seed + 1) % 2**32)
        unconditional = draw(run, params, free)
    if jax.process_index() != 0:
        return text
    reference = load_reference(run.dataset, run.config.eval.reference)
    report = evaluate(reference, samples, labels, unconditional, run.experiment.num_classes)
    files.write_json(run.workdir / files.EVALUATION, {"step": step} | report)
    return f"{describe(report)}\n{text}"
