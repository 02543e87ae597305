"""The teacher of a flow map: a trained run, whose velocity it learns."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import Float

from fmjax.conditions import null_labels
from fmjax.conventions import Array, Labels, Velocity
from fmjax.errors import InputError
from fmjax.factory import Experiment
from fmjax.files import write_json
from fmjax.guidance import Guided, classifier_free
from fmjax.json_files import read_json
from fmjax.names import describe
from fmjax.paths import schedule_of
from fmjax.predictions import change_path
from fmjax.run import workdir as folder
from fmjax.run.restore import open_run, restore_flow
from fmjax.storage.fingerprint import fingerprint


class Teacher(NamedTuple):
    """A frozen trained flow.

    Attributes:
        velocity: ``velocity(x, t, labels)``, guided, on the path of the student.
        origin: which parameters of which run it is, for JSON.
    """

    velocity: Velocity
    origin: dict[str, Any]


def check_teacher(workdir: Path, experiment: Experiment) -> Experiment:
    """Checks that a run can teach a model; reads no parameters.

    Args:
        workdir: the run's folder.
        experiment: of the model that is to learn.

    Returns:
        What the run's configuration stands for.

    Raises:
        InputError: it holds no trained run, or one of other data, another shape, other conditions,
            another source, or a path that does not lead to that of the model.
    """
    taught = open_run(workdir)
    if not (folder.has_checkpoints(workdir) or any(workdir.glob("*.safetensors"))):
        raise InputError(f"the teacher {workdir} has no checkpoint yet; train it first.")
    if taught.spec.shape != experiment.spec.shape:
        raise InputError(
            f"the teacher {workdir} is a flow of shape {taught.spec.shape}, and the data are of "
            f"shape {experiment.spec.shape}; take one that was trained on such data."
        )
    if taught.spec.codec != experiment.spec.codec:
        raise InputError(
            f"the teacher {workdir} was trained on {taught.spec.codec}, and the data are "
            f"{experiment.spec.codec}; take one that was trained on the same data."
        )
    _check_same("conditions", workdir, _kinds(taught.conditions), _kinds(experiment.conditions))
    _check_same("source", workdir, *(type(e.source).__name__ for e in (taught, experiment)))
    schedules = [schedule_of(e.path) for e in (taught, experiment)]
    if taught.path != experiment.path and None in schedules:
        raise InputError(
            f"the teacher {workdir} was trained on {taught.path}, from which no change of the "
            f"schedule leads to {experiment.path}; give the same path.* keys."
        )
    return taught


def read_teacher(workdir: Path, experiment: Experiment, w: float | None) -> Teacher:
    """Reads the averaged parameters of a run that can teach a model.

    On another affine path than the model's it is carried over by `fmjax.predictions.change_path`.

    Args:
        workdir: the run's folder.
        experiment: of the model that is to learn.
        w: the scale that the teacher is guided at, 1 for none; None for a student that takes the
            scale, whose teacher is asked with ``Guided(labels, w)``.

    Raises:
        InputError: as in `check_teacher`.
    """
    taught = check_teacher(workdir, experiment)
    flow = restore_flow(workdir, taught, local=True)
    # Numbers of the host are constants of the step on whatever devices it runs.
    params = jax.device_get(flow.params)
    velocity: Velocity = partial(taught.apply_fn, params)
    if w is None:
        velocity = classifier_free(velocity, null_labels(taught.conditions))
    elif w != 1:
        velocity = _guided(velocity, null_labels(taught.conditions), w)
    theirs, ours = schedule_of(taught.path), schedule_of(experiment.path)
    if taught.path != experiment.path and theirs is not None and ours is not None:
        velocity = change_path(velocity, theirs, ours)
    origin = {"step": flow.step, "parameters": int(fingerprint(flow.params))}
    return Teacher(velocity, origin)


def keep_teacher(workdir: Path, teacher: Teacher, resumed: bool) -> None:
    """Writes which teacher a run has; one that goes on must have the same.

    Raises:
        InputError: the parameters of the teacher are others than when the run began.
    """
    path = workdir / folder.TEACHER
    if resumed and path.exists():
        before = read_json(path)
        if before != teacher.origin:
            raise InputError(
                f"the teacher of {workdir} was at step {before.get('step')} when the run began, "
                f"and has other parameters now, of step {teacher.origin['step']}; give another "
                "--workdir, or --overwrite to begin anew."
            )
    else:
        write_json(path, teacher.origin)


def _guided(velocity: Velocity, null: Any, w: float) -> Velocity:
    guided = classifier_free(velocity, null)

    def at_scale(x: Any, t: Float[Array, "batch ..."], labels: Labels) -> Any:
        return guided(x, t, Guided(labels, w))

    return at_scale


def _kinds(conditions: Any) -> Any:
    """The conditions as they go into JSON, whatever their drop rates."""
    return describe(jax.tree.map(lambda c: dataclasses.replace(c, drop_rate=0.0), conditions))


def _check_same(what: str, workdir: Path, theirs: Any, ours: Any) -> None:
    if theirs != ours:
        raise InputError(
            f"the teacher {workdir} has the {what} {theirs}, and this run {ours}; give the same "
            "data.*, labels.* and source.* keys."
        )
