"""The path of generation as an animation, of texts as a text."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Shaped

from fmjax import plots
from fmjax.data.codecs import Codec, vocabulary_of
from fmjax.data.token_codecs import Text
from fmjax.factory import Recipe, make_sampler
from fmjax.run.pictures import draw_states, pictured, shown_classes, standardised
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.files import TRAJECTORY, TRAJECTORY_OF_TEXTS
from fmjax.run.sample.request import Request
from fmjax.run.texts import write_steps
from fmjax.samplers import check_solution
from fmjax.sources import draw_source

_FRAMES = 40  # of an adaptive solve, and at most
_IMAGES, _VECTORS, _TEXTS = 50, 2000, 4
_HOLD = 15  # frames for which the last one stands


def write_trajectory(flow: TrainedFlow, request: Request, recipe: Recipe, out: Path) -> None:
    """Draws the first samples of a request once more, step by step, and writes how they came about.

    A GIF, ``trajectory.gif``; of texts ``trajectory.txt``, with fewer samples.

    Args:
        flow: a trained flow.
        request: which samples.
        recipe: how to draw them.
        out: the folder to write to.

    Raises:
        SolveError: a sample did not reach t = 1.
    """
    experiment = flow.experiment
    codec = experiment.spec.codec
    num = min(
        request.number, _TEXTS if codec.kind == "text" else pictured(codec, _IMAGES, _VECTORS)
    )
    request = request._replace(num=num)
    index, labels, w = request.rows(experiment.conditions, 0, num)
    times = _times(recipe)
    sampler = make_sampler(experiment, recipe)

    @jax.jit
    def sampled(params, key, index, labels, w, x0=None):
        if x0 is None:
            x0 = draw_source(experiment.source, key, index, experiment.spec.shape)
        return sampler(params, x0, key, index, labels, w, save_at=times)

    key, points = jax.random.key(request.seed), request.points(0, num)
    solution = check_solution(sampled(flow.params, key, index, labels, w, *points))
    states = np.asarray(solution.trajectory)
    if isinstance(codec, Text):
        write_steps(codec, states, times, out / TRAJECTORY_OF_TEXTS)
        return
    options = _window(codec, states) | {"classes": shown_classes(experiment, request, num)}
    frames = [draw_states(codec, x, request.columns, **options) for x in states]
    plots.save_animation(frames + [frames[-1]] * _HOLD, out / TRAJECTORY)


def _window(codec: Codec, states: Shaped[np.ndarray, "times n ..."]) -> dict[str, Any]:
    """The limits of a plot of points, one for all times."""
    if codec.kind == "pixels":
        return {}
    if codec.kind == "points":
        return {"window": states.reshape(-1, *codec.shape)}
    if codec.kind == "tokens":  # a masked one is the number after the last
        vocabulary = vocabulary_of(codec)
        return {"limits": (0, vocabulary, 0, vocabulary)}
    reach = 1.05 * float(np.abs(standardised(codec, np.asarray(codec.decode(states)))).max())
    return {"limits": (-reach, reach, -reach, reach)}


def _times(recipe: Recipe) -> Float[np.ndarray, " times"]:
    """The nodes of a fixed solve, thinned out; equal times of an adaptive one."""
    times = recipe.solver.nodes(recipe.t0, recipe.t1)
    if times is None:
        return np.linspace(recipe.t0, recipe.t1, _FRAMES + 1)
    keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), _FRAMES + 1)).round())
    return times[keep.astype(int)]
