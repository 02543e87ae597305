"""Parameters in: what a run begins with, of another run or published ones."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from fmjax.errors import InputError
from fmjax.factory import Experiment
from fmjax.factory.architecture import OF_FLOW_MAPS
from fmjax.factory.training import abstract_params, abstract_state
from fmjax.models.adapters import extend_params
from fmjax.names import matching
from fmjax.run import workdir as folder
from fmjax.run.restore import (
    check_meaning,
    check_same_meaning,
    exported_files,
    load_params,
    open_run,
    read_exported,
)
from fmjax.run.weights.published import check_published, is_published, published_params
from fmjax.storage.fingerprint import fingerprint
from fmjax.storage.safetensors import check_same, read_header, shapes

_NEW = {"span", "guidance", "divergence", "diagonal"}
"""Modules that a network of two times may have beside those of one time; all add zero at first."""


class Initial(NamedTuple):
    """What a run begins with.

    Attributes:
        source: a run's folder, one that `fmjax.run.weights.export` wrote, a ``.safetensors`` file
            with the same dotted names, or published weights as `fmjax.models.pretrained.load` takes
            them.
        layout: of published weights, where it has to be told.
        fresh: patterns of the parameters that are not taken over and begin as ever.
    """

    source: Path
    layout: str | None = None
    fresh: tuple[str, ...] = ()


def check_initial(initial: Initial, experiment: Experiment) -> None:
    """Checks that a model can begin with stored parameters; reads none of the numbers.

    Args:
        initial: which parameters.
        experiment: of the model.

    Raises:
        InputError: there is nothing to begin with, or it is of another model; the first leaf that
            differs is named. A network of two times may begin with the parameters of one of one
            time.
    """
    source = initial.source
    expected = shapes(abstract_params(experiment))
    fresh = _fresh(initial, experiment)
    if is_published(source, initial.layout):
        return check_published(*initial, experiment)
    file = _file(source)
    # Stored pairs are learned along a path of their own, beginning with the flow that made them.
    free: tuple[str, ...] = () if experiment.pairs is None else ("path.",)
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
    if initial.layout is not None:
        raise InputError(
            f"{source} is of fmjax itself: leave --init_layout={initial.layout} out, which says "
            "what published weights are."
        )
    if experiment.two_times:
        fresh |= {name for name in expected if _NEW & set(name.split("."))} - found.keys()
    found, expected = (
        {name: shape for name, shape in one.items() if name not in fresh}
        for one in (found, expected)
    )
    return check_same(found, expected, source)


def _fresh(initial: Initial, experiment: Experiment) -> set[str]:
    """The dotted names of the parameters that are asked to begin anew."""
    names = matching(initial.fresh, abstract_params(experiment), "--init_fresh")
    return {name.replace("/", ".") for name in names}


def initial_params(initial: Initial, experiment: Experiment, mesh: jax.sharding.Mesh) -> Any:
    """Stored parameters for a run to begin with: the averaged ones where there is a choice.

    Args:
        initial: which parameters.
        experiment: of the model.
        mesh: of all devices; each leaf goes straight to its shards.

    Returns:
        The parameters, as arrays over all processes. What a network of two times has beside one of
        one time is fresh, and adds zero in the networks here; its second velocity head begins as
        the trained one.

    Raises:
        InputError: as in `check_initial`, or the file is damaged.
    """
    check_initial(initial, experiment)
    target = abstract_state(experiment, mesh).params
    params = _stored(initial, experiment, mesh, target)
    if jax.tree.structure(params) == jax.tree.structure(target):
        return params
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    if "diagonal" in target and "diagonal" not in params:
        params = {**params, "diagonal": params["out"]}
    fresh = jax.jit(experiment.init_params, out_shardings=shardings)
    return extend_params(fresh(jax.random.key(experiment.train.seed)), params)


def _stored(initial: Initial, experiment: Experiment, mesh: jax.sharding.Mesh, target: Any) -> Any:
    """What is taken over, where a file lacks some or begins some anew: less than the target."""
    if is_published(initial.source, initial.layout):
        return published_params(*initial, experiment, mesh)
    file, fresh = _file(initial.source), _fresh(initial, experiment)
    if file is None:
        params = load_params(initial.source, open_run(initial.source), "latest", True, mesh)[1]
        return _without(params, fresh)
    wanted = flatten_dict(target, sep=".")
    whole = NamedSharding(mesh, PartitionSpec())
    stored = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=whole)
        if name in fresh
        else wanted[name]
        for name, shape in read_header(file).shapes.items()
    }
    return _without(read_exported(file, unflatten_dict(stored, sep=".")), fresh)


def _without(params: Any, names: set[str]) -> Any:
    """A tree of parameters less those of some dotted names."""
    kept = flatten_dict(params, sep=".").items()
    return unflatten_dict({name: x for name, x in kept if name not in names}, sep=".")


def beginning(initial: Initial, params: Any) -> dict[str, Any]:
    """What the record of a run says of the parameters it began with.

    Args:
        initial: which they were.
        params: the same, as they were read.
    """
    return {
        "from": str(initial.source.absolute()),
        "layout": initial.layout,
        "fresh": list(initial.fresh),
        "parameters": int(fingerprint(params)),
    }


def _file(source: Path) -> Path | None:
    """The safetensors file that is meant, None for a run with checkpoints."""
    if source.suffix == ".safetensors":
        return source
    found = exported_files(source)
    return found[0] if found else None
