"""The path of generation as an animation."""

from pathlib import Path

import jax
import numpy as np

from fmjax import plots
from fmjax.factory import Recipe, make_sampler
from fmjax.run.pictures import draw_picture, pictured, shown_classes, standardised
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request
from fmjax.samplers import check_solution
from fmjax.sources import draw_source

_FRAMES = 40  # of an adaptive solve, and at most
_IMAGES, _VECTORS = 50, 2000
_HOLD = 15  # frames for which the last one stands


def write_trajectory(flow: TrainedFlow, request: Request, recipe: Recipe, path: Path) -> None:
    """Draws the first samples of a request once more, step by step, and writes a GIF.

    Args:
        flow: a trained flow.
        request: which samples.
        recipe: how to draw them.
        path: where to.

    Raises:
        SolveError: a sample did not reach t = 1.
    """
    experiment = flow.experiment
    codec = experiment.spec.codec
    num = min(request.num, pictured(codec, _IMAGES, _VECTORS))
    request = request._replace(num=num)
    index, labels, w = request.rows(experiment.conditions, 0, request.num)
    times = _times(recipe)
    sampler = make_sampler(experiment, recipe)

    @jax.jit
    def sampled(params, key, index, labels, w, x0=None):
        if x0 is None:
            x0 = draw_source(experiment.source, key, index, experiment.spec.shape)
        solution = sampler(params, x0, key, index, labels, w, save_at=times)
        return solution._replace(trajectory=codec.decode(solution.trajectory))

    key, points = jax.random.key(request.seed), request.points(0, num)
    solution = check_solution(sampled(flow.params, key, index, labels, w, *points))
    states = np.asarray(solution.trajectory)
    window = {}
    if codec.kind == "vectors":  # one for all times
        reach = 1.05 * float(np.abs(standardised(codec, states)).max())
        window = {"limits": (-reach, reach, -reach, reach)}
    classes = shown_classes(experiment, request, num)
    frames = [draw_picture(codec, x, request.columns, classes, **window) for x in states]
    plots.save_animation(frames + [frames[-1]] * _HOLD, path)


def _times(recipe: Recipe) -> np.ndarray:
    """The nodes of a fixed solve, thinned out; equal times of an adaptive one."""
    times = recipe.solver.nodes(recipe.t0, recipe.t1)
    if times is None:
        return np.linspace(recipe.t0, recipe.t1, _FRAMES + 1)
    keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), _FRAMES + 1)).round())
    return times[keep.astype(int)]
