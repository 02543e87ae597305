"""A trained flow, read from its folder and checked against what is asked of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fmjax.build import (
    Experiment,
    Guidance,
    Recipe,
    bind,
    check_guidance_choice,
    make_experiment,
)
from fmjax.checkpoint import Checkpoints
from fmjax.errors import InputError
from fmjax.run import workdir as files
from fmjax.run.ready import abstract_state
from fmjax.run.sampling import Request, check_request
from fmjax.samplers.sde import SDESpec
from fmjax.samplers.spec import SolverSpec
from fmjax.training.parallel import make_mesh


class Loaded(NamedTuple):
    """A trained flow and how to sample it, on the devices of a mesh."""

    experiment: Experiment
    recipe: Recipe
    request: Request
    params: Any
    step: int
    mesh: jax.sharding.Mesh


def load(
    workdir: Path,
    request: Request,
    solver: SolverSpec | SDESpec,
    guidance: Guidance | None = None,
    checkpoint: str = "latest",
    weak: str | None = None,
    ema: bool = True,
    check: Callable[[Experiment], None] = lambda experiment: None,
) -> Loaded:
    """Reads a trained run and checks what is asked of it.

    Args:
        workdir: the run's folder; nothing else is needed.
        request: which samples; ``labels=()`` stands for all classes in turn, ``w=None`` for the
            scale of the run's configuration.
        solver: how to solve.
        guidance: which guidance; None is the classifier-free one.
        checkpoint: ``"latest"``, ``"best"``, or a step.
        weak: the checkpoint of the weaker network of autoguidance, or None.
        ema: take the averaged parameters.
        check: called with the experiment before anything is read from the checkpoint.

    Returns:
        The flow.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
    """
    record = files.load_record(workdir)
    experiment = make_experiment(record.config, record.spec)
    if request.labels == ():
        classes = experiment.num_classes
        request = request._replace(labels=None if classes is None else tuple(range(classes)))
    if request.w is None:
        w = 1.0 if request.labels is None else record.config.sample.guidance
        request = request._replace(w=(w,))
    guidance = (Guidance() if guidance is None else guidance)._replace(weak=weak is not None)
    recipe = request.recipe(solver, guidance)
    check_request(request, experiment)
    if request.labels is None and weak is None and any(w != 1 for w in request.w):
        raise InputError(
            f"guidance ({request.w[0]:g}) needs labels to guide by, and there are none here: "
            "leave it out, or ask for labels of a conditional model."
        )
    if recipe.guidance is not None or guidance != Guidance():
        check_guidance_choice(guidance, experiment)
    recipe = recipe._replace(solver=bind(solver, experiment.path))
    check(experiment)
    mesh = make_mesh()
    step, params = load_params(workdir, experiment, checkpoint, ema, mesh)
    if recipe.guidance is not None and weak is not None:
        params = (params, load_params(workdir, experiment, weak, ema, mesh)[1])
    return Loaded(experiment, recipe, request, params, step, mesh)


def load_params(
    workdir: Path, experiment: Experiment, checkpoint: str, ema: bool, mesh: jax.sharding.Mesh
) -> tuple[int, Any]:
    """The step and the parameters of the checkpoint asked for.

    Raises:
        InputError: there is no such checkpoint.
    """
    checkpoints = Checkpoints(workdir / files.CHECKPOINTS, read_only=True, notify=print)
    try:
        if not checkpoints.steps():
            raise InputError(f"{workdir} has no checkpoint yet; train it first.")
        name = "ema_params" if ema else "params"
        target = {name: getattr(abstract_state(experiment, mesh), name)}
        if checkpoint == "latest":
            step, parts = checkpoints.restore_latest(target)
            return step, parts[name]
        step = checkpoints.best_step() if checkpoint == "best" else _as_step(checkpoint)
        return step, checkpoints.restore(step, target)[name]
    finally:
        checkpoints.close()


def _as_step(checkpoint: str) -> int:
    if not checkpoint.isdecimal():
        raise InputError(f"--checkpoint must be latest, best or a step; got {checkpoint!r}.")
    return int(checkpoint)
