"""Compiles a training step or a sampler for a TPU slice, on a machine without TPUs, and reports.

Nothing is allocated and nothing runs: state and batch are shapes with shardings over the devices of
the topology. The compiler is the one that the slice would use, and the report is its plan, not a
measurement.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.conditions import abstract_labels
from fmjax.config import ConfigDict
from fmjax.data.codecs import States
from fmjax.errors import InputError
from fmjax.factory import DataSpec, Experiment, Recipe, make_experiment, spec_of
from fmjax.factory.settings import DataSettings, check_settings
from fmjax.factory.training import abstract_state, train_step
from fmjax.intervals import INTERVAL
from fmjax.run import workdir as files
from fmjax.run.compile.report import Report, compile_and_report
from fmjax.run.compile.topology import devices_of, parse_topology
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import fit_batch, lower_for, make_sample_fn
from fmjax.training.mesh import by_rows, make_mesh, row_shards
from fmjax.training.parallelism import Parallel, check_divides, make_layout


def data_spec(config: ConfigDict) -> DataSpec:
    """The shape of the configuration's data and its classes.

    Raises:
        InputError: a number does not fit, or the data set is not prepared; a stand-in is named.
    """
    check_settings(config)
    try:
        dataset = DataSettings(**config.data).load()
    except InputError as error:
        raise InputError(
            f"{error} To compile only, random data of the same shape will do, "
            "e.g. --config.data.name=random/32x32x3/10."
        ) from error
    return spec_of(dataset)


def compile_training(config: ConfigDict, topology: str, parallel: Parallel = "jit") -> Report:
    """Compiles one training step.

    Args:
        config: every key of `fmjax.config.default_config`.
        topology: e.g. ``"v5e:16x16"``; see `fmjax.run.compile.topology`.
        parallel: ``"jit"``.

    Returns:
        See `fmjax.run.compile.report.compile_and_report`.

    Raises:
        InputError: something does not fit together, in one sentence; a program too large for the
            chip is no error, but a report with ``fits`` False.
    """
    if parallel != "jit":
        raise InputError(f"only --parallel=jit compiles for a topology; got {parallel!r}.")
    parse_topology(topology)
    spec, batch_size = data_spec(config), config.train.batch_size
    experiment = make_experiment(config, spec, portable=True)
    layout = make_layout(
        parallel, devices_of(topology), experiment.mesh, rules=experiment.sharding_rules
    )
    check_divides(batch_size, row_shards(layout.mesh), experiment.train.accumulate)
    step = train_step(experiment, layout)
    state = abstract_state(experiment, layout.mesh)
    arguments = state, _abstract_key(layout.mesh), _abstract_batch(experiment, layout.mesh)
    lowered = layout.compile(step).lower(*arguments)
    flops = None if experiment.flops is None else batch_size * experiment.flops
    report = compile_and_report(lowered, layout.mesh, batch_size, flops)
    return {"program": f"training step of {config.model.name}", "topology": topology} | report


def compile_sampling(
    record: files.Record,
    topology: str,
    request: Request,
    recipe: Recipe,
    batch_size: int = 256,
) -> Report:
    """Compiles the sampler of one batch; the parameters are whole on every device.

    Args:
        record: of a run's folder, or a configuration with its `data_spec`.
        topology: as in `compile_training`.
        request: which samples.
        recipe: how to draw them.
        batch_size: samples per call, over all devices.

    Returns:
        See `compile_training`.

    Raises:
        InputError: something does not fit together, in one sentence.
    """
    mesh = make_mesh(devices_of(topology))
    experiment = make_experiment(record.config, record.spec, portable=True)
    _, recipe = resolve(experiment, request, recipe)
    batch = fit_batch(batch_size, batch_size, mesh.size)
    params = abstract_state(experiment, mesh).ema_params
    sample_fn = make_sample_fn(experiment, recipe, mesh)
    lowered = lower_for(sample_fn, experiment.conditions, params, _abstract_key(mesh), batch)
    flops = _sampling_flops(experiment, recipe, batch)
    report = compile_and_report(lowered, mesh, batch, flops)
    name = f"sampler of {record.config.model.name}"
    return {"program": name, "topology": topology} | report


def record_of(config: ConfigDict | None, workdir: Path | None) -> files.Record:
    """What to sample from: a run's folder, or a configuration without one.

    Raises:
        InputError: neither or both are given.
    """
    if (config is None) == (workdir is None):
        raise InputError("say what to compile: either --workdir=runs/NAME or --config=FILE.")
    if workdir is not None:
        return files.load_record(workdir)
    return files.Record(config, data_spec(config))


def _sampling_flops(experiment: Experiment, recipe: Recipe, batch: int) -> float | None:
    """Operations of the network for a batch; None where the evaluations are not known."""
    times, guidance = recipe.solver.evaluation_times(), recipe.guidance
    if experiment.flops is None or times is None:
        return None
    calls = len(times)
    if guidance is not None and experiment.scaled_fn is None:
        calls = guidance.network_calls(times)
    return batch * calls * experiment.flops / 3  # a forward pass is a third of a training example


def _abstract_key(mesh: Mesh) -> jax.ShapeDtypeStruct:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=NamedSharding(mesh, P()))


def _abstract_batch(experiment: Experiment, mesh: Mesh) -> dict[str, Any]:
    """A global batch as the pipeline gives it."""
    spec, n = experiment.spec, experiment.train.batch_size
    stored = experiment.pairs is not None or spec.timeline is not None
    codec = States(spec.shape) if stored else spec.codec
    batch = {
        "x1": jax.ShapeDtypeStruct((n, *codec.data_shape), codec.data_dtype),
        "index": jax.ShapeDtypeStruct((n,), jnp.int32),
        "labels": abstract_labels(spec.conditions, n),
    }
    if spec.timeline is not None:
        batch["labels"] = {INTERVAL: jax.ShapeDtypeStruct((n, 2), jnp.float32)}
    if stored or experiment.couple is not None:
        batch["x0"] = jax.ShapeDtypeStruct((n, *spec.shape), jnp.float32)
    rows = by_rows(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch)
