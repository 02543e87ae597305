"""A run's parameters in: what another run begins with."""

from pathlib import Path
from typing import Any

import jax

from fmjax.errors import InputError
from fmjax.factory import Experiment
from fmjax.factory.training import abstract_params, abstract_state
from fmjax.run import workdir as folder
from fmjax.run.restore import (
    check_meaning,
    check_same_meaning,
    exported_files,
    load_params,
    open_run,
    read_exported,
)
from fmjax.storage.safetensors import check_same, read_header, shapes


def check_initial(source: Path, experiment: Experiment) -> None:
    """Checks that a model can begin with stored parameters; reads none of the numbers.

    Args:
        source: a run's folder, one that `fmjax.run.weights.export` wrote, or a ``.safetensors``
            file with the same dotted names.
        experiment: of the model.

    Raises:
        InputError: there is nothing to begin with, or it is of another model; the first leaf that
            differs is named.
    """
    file = _file(source)
    # Stored pairs are learned along a path of their own, beginning with the flow that made them.
    free = () if experiment.pairs is None else ("path.",)
    if file is not None:
        found = read_header(file).shapes
        check_meaning(file, experiment, free)
    else:
        trained = open_run(source)
        if not folder.has_checkpoints(source):
            raise InputError(f"{source} has no checkpoint yet; train it first.")
        found = shapes(abstract_params(trained))
        check_same_meaning(trained.architecture, experiment, source, free)
    check_same(found, shapes(abstract_params(experiment)), source)


def initial_params(source: Path, experiment: Experiment, mesh: jax.sharding.Mesh) -> Any:
    """Stored parameters for a run to begin with: the averaged ones where there is a choice.

    Args:
        source: as in `check_initial`.
        experiment: of the model.
        mesh: of all devices; each leaf goes straight to its shards.

    Returns:
        The parameters, as arrays over all processes.

    Raises:
        InputError: as in `check_initial`, or the file is damaged.
    """
    check_initial(source, experiment)
    file = _file(source)
    if file is not None:
        return read_exported(file, abstract_state(experiment, mesh).params)
    return load_params(source, experiment, "latest", True, mesh)[1]


def _file(source: Path) -> Path | None:
    """The safetensors file that is meant, None for a run with checkpoints."""
    if source.suffix == ".safetensors":
        return source
    found = exported_files(source)
    return found[0] if found else None
