"""A trained flow, read from its folder: from a run's checkpoints, or from exported parameters."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P

from fmjax.errors import InputError
from fmjax.factory import Experiment, Recipe, make_experiment
from fmjax.factory.architecture import Architecture, architecture_changes
from fmjax.factory.lora import without_lora
from fmjax.factory.training import abstract_state
from fmjax.first_process import say
from fmjax.json_files import parse_json
from fmjax.run import workdir as folder
from fmjax.storage.checkpoints import Checkpoints
from fmjax.storage.fingerprint import fingerprint
from fmjax.storage.safetensors import read_header, read_weights
from fmjax.training import lora
from fmjax.training.mesh import make_mesh

ARCHITECTURE = "architecture"
"""The key of the metadata under which a file of parameters says what they are of, in JSON."""
EXPORTED = {True: "ema.safetensors", False: "params.safetensors"}
"""The file of a folder without checkpoints, of the averaged parameters or of those themselves."""


_DIGITS = 10  # of the number of a step


class Weights(NamedTuple):
    """Which parameters of a run.

    Attributes:
        checkpoint: ``"latest"``, ``"best"``, or a step.
        ema: the averaged ones.
        weak: the checkpoint of the weaker network of autoguidance, or None.
    """

    checkpoint: str = "latest"
    ema: bool = True
    weak: str | None = None

    def needed(self, recipe: Recipe) -> "Weights":
        """The same without the weaker network where the recipe is not guided."""
        return self if recipe.guidance is not None else self._replace(weak=None)


def check_weights(weights: Weights) -> Weights:
    """Checks which parameters are asked for, whatever the run.

    Returns:
        The same.

    Raises:
        InputError: a checkpoint is neither ``"latest"`` nor ``"best"`` nor the number of a step.
    """
    for flag, name in (("--checkpoint", weights.checkpoint), ("--weak", weights.weak)):
        step = name is not None and name.isdecimal() and len(name) <= _DIGITS
        if name not in (None, "latest", "best") and not step:
            raise InputError(f"{flag} must be latest, best or a step; got {name!r}.")
    return weights


LATEST = Weights()


class TrainedFlow(NamedTuple):
    """A run's flow, on the devices of a mesh.

    Attributes:
        workdir: the run's folder.
        experiment: what its configuration stands for.
        step: of the checkpoint.
        params: the parameters; under autoguidance the pair (params, weak params).
        mesh: of all devices, or of this process's own.
    """

    workdir: Path
    experiment: Experiment
    step: int
    params: Any
    mesh: jax.sharding.Mesh


def open_run(workdir: Path, portable: bool = False) -> Experiment:
    """What the configuration of a run stands for; no parameters are read.

    A run of LoRA is opened as the network that its parameters are when they are merged.

    Args:
        workdir: the run's folder; nothing else is needed.
        portable: as in `fmjax.factory.make_experiment`.

    Raises:
        InputError: the folder holds no run that can be read.
    """
    record = folder.load_record(workdir)
    experiment = make_experiment(without_lora(record.config), record.spec, portable)
    if record.config.lora.rank == 0:
        return experiment
    snapshots = experiment.snapshots
    trained = make_experiment(record.config, record.spec, portable, snapshots=snapshots)
    return dataclasses.replace(experiment, adapted=trained)


def restore_flow(
    workdir: Path, experiment: Experiment, weights: Weights = LATEST, local: bool = False
) -> TrainedFlow:
    """Reads the parameters of a run.

    Args:
        workdir: the run's folder.
        experiment: from `open_run`.
        weights: which parameters.
        local: whether each process holds a copy of its own, and so works at its own pace.

    Raises:
        InputError: there is no such checkpoint.
    """
    check_weights(weights)
    mesh = make_mesh()
    step, params = load_params(workdir, experiment, weights.checkpoint, weights.ema, mesh)
    if weights.weak is not None:
        params = (params, load_params(workdir, experiment, weights.weak, weights.ema, mesh)[1])
    if local:
        params = multihost_utils.global_array_to_host_local_array(params, mesh, P())
        mesh = make_mesh(jax.local_devices())
    return TrainedFlow(workdir, experiment, step, params, mesh)


def load_params(
    workdir: Path, experiment: Experiment, checkpoint: str, ema: bool, mesh: jax.sharding.Mesh
) -> tuple[int, Any]:
    """The step and the parameters of the checkpoint asked for, or of an exported folder.

    Those of a run of LoRA are merged.

    Raises:
        InputError: there is no such checkpoint.
    """
    if experiment.adapted is None or not (workdir / folder.CHECKPOINTS).exists():
        return read_parameters(workdir, experiment, checkpoint, ema, mesh)
    step, both = read_parameters(workdir, experiment.adapted, checkpoint, ema, mesh)
    target = abstract_state(experiment, mesh).params
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    merged = jax.jit(lora.merge, out_shardings=shardings)(both["base"], both["adapters"])
    return step, merged


def read_parameters(
    workdir: Path, experiment: Experiment, checkpoint: str, ema: bool, mesh: jax.sharding.Mesh
) -> tuple[int, Any]:
    """As `load_params`, of a run of LoRA base and adapters by themselves.

    Raises:
        InputError: there is no such checkpoint.
    """
    name = "ema_params" if ema else "params"
    target = {name: getattr(abstract_state(experiment, mesh), name)}
    if not (workdir / folder.CHECKPOINTS).exists():
        path = _exported(workdir, ema, checkpoint)
        check_meaning(path, experiment)
        return stored_step(path), read_exported(path, target[name])
    about = dict(experiment.architecture)
    checkpoints = Checkpoints(
        workdir / folder.CHECKPOINTS, read_only=True, notify=print, architecture=about
    )
    try:
        if not checkpoints.steps():
            raise InputError(f"{workdir} has no checkpoint yet; train it first.")
        if checkpoint == "latest":
            found = checkpoints.restore_latest(target)
            assert found is not None, "it has checkpoints"
            return found[0], found[1][name]
        step = checkpoints.best_step() if checkpoint == "best" else int(checkpoint)
        assert step is not None, "it has checkpoints"
        return step, checkpoints.restore(step, target)[name]
    finally:
        checkpoints.close()


def exported_files(workdir: Path) -> list[Path]:
    """The parameters that stand in the place of checkpoints, the averaged ones first."""
    if (workdir / folder.CHECKPOINTS).exists():
        return []
    return [workdir / EXPORTED[ema] for ema in (True, False) if (workdir / EXPORTED[ema]).exists()]


def stored_step(path: Path) -> int:
    """The step that a file of parameters is of, 0 where it does not say.

    Raises:
        InputError: it says no number.
    """
    return _number(path, "step") or 0


def _number(path: Path, key: str) -> int | None:
    """A number in the metadata of a file of parameters, None where it is not there."""
    text = read_header(path).metadata.get(key)  # files of other programs have none
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InputError(
            f"{path} is damaged: its {key} must be a whole number; got {text[:60]!r}. Write it "
            "again."
        )
    return int(text)


def check_meaning(path: Path, experiment: Experiment, free: tuple[str, ...] = ()) -> None:
    """Checks that a file of parameters is of the network of an experiment, whatever their shapes.

    A file that does not say what it is of is taken, with a sentence.

    Args:
        path: of the file.
        experiment: whose network.
        free: beginnings of the keys that may differ.

    Raises:
        InputError: it is of another network; the keys that differ are named.
    """
    text = read_header(path).metadata.get(ARCHITECTURE)
    if text is None:
        say(f"{path} does not say of what network it is: it is taken by its shapes.", sys.stderr)
        return
    stored = parse_json(text, f"the architecture in {path}")
    check_same_meaning(tuple(stored.items()), experiment, path, free)


def check_same_meaning(
    stored: Architecture, experiment: Experiment, source: Path, free: tuple[str, ...] = ()
) -> None:
    """Checks that stored parameters are of the network of an experiment, whatever their shapes.

    Raises:
        InputError: as in `check_meaning`.
    """
    compared = tuple((key, value) for key, value in stored if not key.startswith(free))
    if changed := architecture_changes(compared, experiment.architecture):
        raise InputError(
            f"{source} holds the parameters of another network, with {', '.join(changed)}; give "
            "the same keys."
        )


def read_exported(path: Path, target: Any) -> Any:
    """Reads a file of parameters into the target's shardings, and checks its fingerprint.

    Raises:
        InputError: it cannot be read, is of another model, or is damaged.
    """
    params = read_weights(path, target)
    stored = _number(path, "fingerprint")
    if stored is not None and stored != int(fingerprint(params)):
        raise InputError(f"{path} is damaged: its fingerprint differs. Write it again.")
    return params


def _exported(workdir: Path, ema: bool, checkpoint: str) -> Path:
    """The file of a folder that has no checkpoints."""
    found = exported_files(workdir)
    if not found:
        raise InputError(f"{workdir} has no checkpoint yet; train it first.")
    path = workdir / EXPORTED[ema]
    if path not in found:
        raise InputError(
            f"{workdir} holds {found[0].name} alone; write --ema={not ema} to take that."
        )
    if checkpoint not in ("latest", str(stored_step(path))):
        raise InputError(
            f"{workdir} holds the parameters of step {stored_step(path)} alone, not those of "
            f"{checkpoint!r}; take the run that they come from, or leave the checkpoint out."
        )
    return path
