"""The same noise, carried by several solvers: what each costs, and how far apart they end."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from fmjax import plots
from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.files import check_writable, write_json
from fmjax.folders import check_no_links, lock_folder
from fmjax.run.pictures import captions_of, draw_picture, is_pictured, pictured, shown_classes
from fmjax.run.restore import LATEST, TrainedFlow, Weights, open_run, restore_flow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import compiled_for, draw_batches, fit_batch

FIGURES, PICTURE = "compare.json", "compare.png"
_IMAGES, _VECTORS = 20, 2000  # of each solver, at most, in the picture


class SolverFigures(NamedTuple):
    """What one solver made of the noise.

    Attributes:
        solver: its name, with its steps.
        nfe: velocity evaluations per sample, on average.
        seconds: for all samples, without compilation.
        distance: root mean square difference from the samples of the finest solver, which made the
            most evaluations, in the unit of the data.
    """

    solver: str
    nfe: float
    seconds: float
    distance: float


def compare(
    workdir: Path,
    out: Path,
    request: Request,
    recipes: Mapping[str, Recipe],
    weights: Weights = LATEST,
    *,
    batch_size: int = 256,
    overwrite: bool = False,
) -> list[SolverFigures]:
    """Draws the samples of a request by several solvers, and writes figures and a picture.

    Args:
        workdir: a trained run's folder.
        out: the folder of ``compare.json`` and ``compare.png``.
        request: which samples.
        recipes: how to draw them, by the name of the solver.
        weights: with which parameters of the run.
        batch_size: samples per call.
        overwrite: replace an earlier comparison.

    Returns:
        A row for each solver, in the order of the recipes.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
        FloatingPointError: a sample did not reach t = 1.
    """
    experiment = open_run(workdir)
    chosen, weak = {}, weights.weak is not None
    for name, recipe in recipes.items():
        resolved, chosen[name] = resolve(experiment, request, recipe, weak=weak)
    lock = _claim(out, overwrite)
    try:
        flow = restore_flow(workdir, experiment, weights.needed(next(iter(chosen.values()))))
        drawn = {name: _draw(flow, resolved, recipe, batch_size) for name, recipe in chosen.items()}
        rows = _compared(drawn)
        _write_picture(flow, resolved, [part[0] for part in drawn.values()], rows, out / PICTURE)
        write_json(out / FIGURES, {"solvers": [row._asdict() for row in rows]})
    finally:
        if lock is not None:
            lock.close()
    return rows


def describe_solvers(rows: Sequence[SolverFigures]) -> str:
    """The rows as a table for a terminal."""
    width = max(len(row.solver) for row in rows)
    lines = [f"{'solver':{width}}  evaluations  seconds  distance to the finest"]
    lines += [
        f"{row.solver:{width}}  {row.nfe:11g}  {row.seconds:7.2f}  {row.distance:.3g}"
        for row in rows
    ]
    return "\n".join(lines)


def _claim(out: Path, overwrite: bool) -> IO | None:
    if jax.process_count() > 1:
        raise InputError("--compare runs as one process; leave --distributed out.")
    check_writable(out, "--out")
    lock = lock_folder(out, "--out")
    check_no_links(out, (FIGURES, PICTURE), "--out")
    if (out / FIGURES).exists() and not overwrite:
        raise InputError(f"{out} already has {FIGURES}; give another --out, or --overwrite.")
    return lock


def _draw(
    flow: TrainedFlow, request: Request, recipe: Recipe, batch_size: int
) -> tuple[Shaped[np.ndarray, "n ..."], float, float]:
    """The samples, their evaluations and the seconds that they took."""
    batch = fit_batch(request.number, batch_size, flow.mesh.size)
    sample_fn = compiled_for(flow, recipe, request, batch)
    began = time.perf_counter()
    parts = list(draw_batches(sample_fn, flow, request, batch))
    seconds = time.perf_counter() - began
    nfe = sum(int(part.nfe.sum()) for part in parts) / request.number
    return np.concatenate([part.samples for part in parts]), nfe, seconds


def _compared(
    drawn: Mapping[str, tuple[Shaped[np.ndarray, "n ..."], float, float]],
) -> list[SolverFigures]:
    finest = max(drawn.values(), key=lambda part: part[1])[0].astype(np.float64)
    return [
        SolverFigures(name, nfe, seconds, float(np.sqrt(np.mean((samples - finest) ** 2))))
        for name, (samples, nfe, seconds) in drawn.items()
    ]


def _write_picture(
    flow: TrainedFlow,
    request: Request,
    samples: Sequence[Shaped[np.ndarray, "n ..."]],
    rows: Sequence[SolverFigures],
    path: Path,
) -> None:
    """A row of images for each solver; of vectors a plot for each, from left to right."""
    experiment = flow.experiment
    codec = experiment.spec.codec
    if not is_pictured(codec):
        return
    num = min(request.number, pictured(codec, min(request.columns, _IMAGES), _VECTORS))
    shown = [part[:num] for part in samples]
    if codec.kind == "pixels":
        captions = captions_of(experiment, request, num)
        names = [row.solver for row in rows]
        picture = draw_picture(codec, np.concatenate(shown), num, None, captions, names)
    else:
        classes = shown_classes(experiment, request, num)
        picture = np.hstack([draw_picture(codec, part, num, classes) for part in shown])
    plots.save_png(picture, path)
