"""A run's parameters in: what another run begins with."""

from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from fmjax.errors import InputError
from fmjax.factory import Experiment
from fmjax.factory.architecture import OF_FLOW_MAPS
from fmjax.factory.training import abstract_params, abstract_state
from fmjax.models.adapters import extend_params
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

_NEW = {"span", "guidance", "divergence", "diagonal"}
"""Modules that a network of two times may have beside those of one time; all add zero at first."""


def check_initial(source: Path, experiment: Experiment) -> None:
    """Checks that a model can begin with stored parameters; reads none of the numbers.

    Args:
        source: a run's folder, one that `fmjax.run.weights.export` wrote, or a ``.safetensors``
            file with the same dotted names.
        experiment: of the model.

    Raises:
        InputError: there is nothing to begin with, or it is of another model; the first leaf that
            differs is named. A network of two times may begin with the parameters of one of one
            time.
    """
    file = _file(source)
    # Stored pairs are learned along a path of their own, beginning with the flow that made them.
    free = () if experiment.pairs is None else ("path.",)
    if experiment.two_times:
        free += OF_FLOW_MAPS
    if file is not None:
        found = read_header(file).shapes
        check_meaning(file, experiment, free)
    else:
        trained = open_run(source)
        if not folder.has_checkpoints(source):
            raise InputError(f"{source} has no checkpoint yet; train it first.")
        found = shapes(abstract_params(trained))
        check_same_meaning(trained.architecture, experiment, source, free)
    expected = shapes(abstract_params(experiment))
    if experiment.two_times:
        new = {name for name in expected if _NEW & set(name.split("."))} - found.keys()
        expected = {name: shape for name, shape in expected.items() if name not in new}
    check_same(found, expected, source)


def initial_params(source: Path, experiment: Experiment, mesh: jax.sharding.Mesh) -> Any:
    """Stored parameters for a run to begin with: the averaged ones where there is a choice.

    Args:
        source: as in `check_initial`.
        experiment: of the model.
        mesh: of all devices; each leaf goes straight to its shards.

    Returns:
        The parameters, as arrays over all processes. What a network of two times has beside one of
        one time is fresh, and adds zero in the networks here; its second velocity head begins as
        the trained one.

    Raises:
        InputError: as in `check_initial`, or the file is damaged.
    """
    check_initial(source, experiment)
    file, target = _file(source), abstract_state(experiment, mesh).params
    if file is None:
        params = load_params(source, open_run(source), "latest", True, mesh)[1]
    else:
        stored = read_header(file).shapes
        named = flatten_dict(target, sep=".").items()
        known = {name: leaf for name, leaf in named if name in stored}
        params = read_exported(file, unflatten_dict(known, sep="."))
    if jax.tree.structure(params) == jax.tree.structure(target):
        return params
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    if "diagonal" in target and "diagonal" not in params:
        params = {**params, "diagonal": params["out"]}
    fresh = jax.jit(experiment.init_params, out_shardings=shardings)
    return extend_params(fresh(jax.random.key(experiment.train.seed)), params)


def _file(source: Path) -> Path | None:
    """The safetensors file that is meant, None for a run with checkpoints."""
    if source.suffix == ".safetensors":
        return source
    found = exported_files(source)
    return found[0] if found else None
