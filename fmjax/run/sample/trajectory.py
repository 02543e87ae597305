"""The path of generation as an animation."""

from pathlib import Path

import jax
import numpy as np

from fmjax import plots
from fmjax.draws import normal
from fmjax.factory import Recipe, Solver, make_sampler
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request
from fmjax.run.sample.sampler import as_data
from fmjax.samplers import check_solution

_FRAMES = 40  # of an adaptive solve, and at most
_IMAGES, _POINTS = 50, 2000
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
    limit = _IMAGES if experiment.spec.is_image else _POINTS
    request = request._replace(num=min(request.num, limit))
    index, labels, w = request.rows(experiment.null_label, 0, request.num)
    times = _times(recipe.solver)
    sampler = make_sampler(experiment, recipe)

    @jax.jit
    def sampled(params, key, index, labels, w):
        x0 = normal(key, index, experiment.spec.shape)
        solution = sampler(params, x0, key, index, labels, w, save_at=times)
        return solution._replace(trajectory=as_data(experiment, solution.trajectory))

    solution = check_solution(sampled(flow.params, jax.random.key(request.seed), index, labels, w))
    states = np.asarray(solution.trajectory)
    frames = [_frame(x, labels, request, np.abs(states).max()) for x in states]
    plots.save_animation(frames + [frames[-1]] * _HOLD, path)


def _times(solver: Solver) -> np.ndarray:
    """The nodes of a fixed solve, thinned out; equal times of an adaptive one."""
    times = solver.nodes()
    if times is None:
        return np.linspace(0, 1, _FRAMES + 1)
    keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), _FRAMES + 1)).round())
    return times[keep.astype(int)]


def _frame(x: np.ndarray, labels: np.ndarray, request: Request, reach: float) -> np.ndarray:
    if x.ndim == 4:
        return plots.image_grid(x, request.columns)
    shown = None if request.labels is None else labels
    low, high = -1.05 * float(reach), 1.05 * float(reach)  # one window for all times
    return plots.scatter(x, shown, limits=(low, high, low, high))
