"""A trained flow, read from its folder and checked against what is asked of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P

from fmjax.config import ConfigDict
from fmjax.errors import InputError
from fmjax.factory import Experiment, Guidance, Recipe, bind, check_guidance_choice, make_experiment
from fmjax.run import workdir as files
from fmjax.run.sample.batches import Request, check_request
from fmjax.run.train.setup import abstract_state
from fmjax.samplers.sde import SDESpec
from fmjax.samplers.spec import SolverSpec
from fmjax.storage.checkpoints import Checkpoints
from fmjax.storage.fingerprint import fingerprint
from fmjax.storage.safetensors import read_header, read_weights
from fmjax.training.mesh import make_mesh

EXPORTED = {True: "ema.safetensors", False: "params.safetensors"}
"""The file of a folder without checkpoints, of the averaged parameters or of those themselves."""


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
    portable: bool = False,
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
        portable: whether the network must compile for any device, as one that is exported.

    Returns:
        The flow.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
    """
    record = files.load_record(workdir)
    experiment = make_experiment(record.config, record.spec, portable)
    guidance = (Guidance() if guidance is None else guidance)._replace(weak=weak is not None)
    request, recipe = plan(experiment, record.config, request, solver, guidance)
    check(experiment)
    mesh = make_mesh()
    step, params = load_params(workdir, experiment, checkpoint, ema, mesh)
    if recipe.guidance is not None and weak is not None:
        params = (params, load_params(workdir, experiment, weak, ema, mesh)[1])
    return Loaded(experiment, recipe, request, params, step, mesh)


def plan(
    experiment: Experiment,
    config: ConfigDict,
    request: Request,
    solver: SolverSpec | SDESpec,
    guidance: Guidance,
) -> tuple[Request, Recipe]:
    """What is asked of a model, with what was left open filled in, and how to draw it.

    Raises:
        InputError: something does not fit the model.
    """
    if request.labels == ():
        classes = experiment.num_classes
        request = request._replace(labels=None if classes is None else tuple(range(classes)))
    if request.w is None:
        w = 1.0 if request.labels is None else config.sample.guidance
        request = request._replace(w=(w,))
    recipe = request.recipe(solver, guidance)
    check_request(request, experiment)
    if request.labels is None and not guidance.weak and any(w != 1 for w in request.w):
        raise InputError(
            f"guidance ({request.w[0]:g}) needs labels to guide by, and there are none here: "
            "leave it out, or ask for labels of a conditional model."
        )
    if recipe.guidance is not None or guidance != Guidance():
        check_guidance_choice(guidance, experiment)
    return request, recipe._replace(solver=bind(solver, experiment.path))


def load_params(
    workdir: Path, experiment: Experiment, checkpoint: str, ema: bool, mesh: jax.sharding.Mesh
) -> tuple[int, Any]:
    """The step and the parameters of the checkpoint asked for, or of an exported folder.

    Raises:
        InputError: there is no such checkpoint.
    """
    name = "ema_params" if ema else "params"
    target = {name: getattr(abstract_state(experiment, mesh), name)}
    if not (workdir / files.CHECKPOINTS).exists():
        path = _exported(workdir, ema, checkpoint)
        return stored_step(path), read_exported(path, target[name])
    checkpoints = Checkpoints(workdir / files.CHECKPOINTS, read_only=True, notify=print)
    try:
        if not checkpoints.steps():
            raise InputError(f"{workdir} has no checkpoint yet; train it first.")
        if checkpoint == "latest":
            step, parts = checkpoints.restore_latest(target)
            return step, parts[name]
        step = checkpoints.best_step() if checkpoint == "best" else _as_step(checkpoint)
        return step, checkpoints.restore(step, target)[name]
    finally:
        checkpoints.close()


def exported_files(folder: Path) -> list[Path]:
    """The parameters that stand in the place of checkpoints, the averaged ones first."""
    if (folder / files.CHECKPOINTS).exists():
        return []
    return [folder / EXPORTED[ema] for ema in (True, False) if (folder / EXPORTED[ema]).exists()]


def stored_step(path: Path) -> int:
    """The step that a file of parameters is of, 0 where it does not say."""
    return int(read_header(path).metadata.get("step", 0))


def read_exported(path: Path, target: Any) -> Any:
    """Reads a file of parameters into the target's shardings, and checks its fingerprint.

    Raises:
        InputError: it cannot be read, is of another model, or is damaged.
    """
    params = read_weights(path, target)
    mark = read_header(path).metadata.get("fingerprint")  # files of other programs have none
    if mark is not None and int(mark) != int(fingerprint(params)):
        raise InputError(f"{path} is damaged: its fingerprint differs. Write it again.")
    return params


def _exported(folder: Path, ema: bool, checkpoint: str) -> Path:
    """The file of a folder that has no checkpoints."""
    found = exported_files(folder)
    if not found:
        raise InputError(f"{folder} has no checkpoint yet; train it first.")
    path = folder / EXPORTED[ema]
    if path not in found:
        raise InputError(
            f"{folder} holds {found[0].name} alone; write --ema={not ema} to take that."
        )
    if checkpoint not in ("latest", str(stored_step(path))):
        raise InputError(
            f"{folder} holds the parameters of step {stored_step(path)} alone, not those of "
            f"{checkpoint!r}; take the run that they come from, or leave the checkpoint out."
        )
    return path


def local_copy(params: Any, mesh: jax.sharding.Mesh) -> tuple[Any, jax.sharding.Mesh]:
    """Replicated parameters on the devices of this process alone, with the mesh of those.

    So each process samples by itself, at its own pace.
    """
    local = multihost_utils.global_array_to_host_local_array(params, mesh, P())
    return local, make_mesh(jax.local_devices())


def _as_step(checkpoint: str) -> int:
    if not checkpoint.isdecimal():
        raise InputError(f"--checkpoint must be latest, best or a step; got {checkpoint!r}.")
    return int(checkpoint)
