"""Drawing samples in batches: one compiled program, any number of samples, bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int, PRNGKeyArray, Shaped

from fmjax.conditions import abstract_labels
from fmjax.conventions import Labels
from fmjax.factory import Experiment, Recipe, make_sampler
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request
from fmjax.samplers.solution import Solution, check_solution
from fmjax.sources import draw_source
from fmjax.training.mesh import by_rows, within

_BATCH = 128  # of `draw_samples`: one shape for all, so that they share a program


class SampleBatch(NamedTuple):
    """A piece of the answer: samples (n, ...), labels (n, ...) or None, nfe int32 (n,).

    Samples are what the compiled function gives: an array, or a pair (x0, x1) of arrays.
    """

    samples: Any
    labels: Labels
    nfe: Int[np.ndarray, " n"]


@lru_cache(maxsize=8)
def make_sample_fn(
    experiment: Experiment, recipe: Recipe, mesh: Mesh, pairs: bool = False
) -> jax.stages.Wrapped:
    """Compiles ``sample(params, key, index, labels, w, x0=None) -> Solution``, its x1 the samples.

    Everything but the recipe and the batch size is traced, so no other labels, scale or seed
    compiles anything; and the function for the same arguments is the same function, so that the
    second picture of a run compiles nothing. Sample i starts from noise keyed by its index alone,
    or from row i of x0, states (batch, ...), where that is given.

    Args:
        experiment: what the configuration stands for.
        recipe: how to sample.
        mesh: the batch is split over its devices, and must divide by their number.
        pairs: whether to give each sample with the noise that it started from.

    Returns:
        The compiled function; labels are built as the conditions of the model, nulls included, and
        None without conditions. Samples are data, as the codec decodes them; with `pairs` the tuple
        (x0, x1) of states, float32 (batch, ...).
    """
    sampler = make_sampler(experiment, recipe)

    @partial(jax.jit, out_shardings=NamedSharding(mesh, P()))
    def sample(params, key, index, labels, w, x0=None):
        index, labels, w = jax.lax.with_sharding_constraint((index, labels, w), by_rows(mesh))
        if x0 is None:
            x0 = draw_source(experiment.source, key, index, experiment.spec.shape)
        x0 = jax.lax.with_sharding_constraint(x0, by_rows(mesh))
        with within(mesh):
            solution = sampler(params, x0, key, index, labels, w)
        samples = (x0, solution.x1) if pairs else experiment.spec.codec.decode(solution.x1)
        return solution._replace(x1=samples)

    return sample


def lower_for(
    sample_fn: jax.stages.Wrapped,
    conditions: Any,
    params: Any,
    key: PRNGKeyArray | jax.ShapeDtypeStruct,
    batch: int,
    start: Shaped[np.ndarray, "n ..."] | None = None,
) -> jax.stages.Lowered:
    """The sample function lowered for a batch size, to be compiled ahead of its first call.

    So that a run can tell the time of compilation from that of sampling.

    Args:
        sample_fn: from `make_sample_fn`.
        conditions: of the model.
        params: of the model, or their shapes.
        key: of the samples, or its shape.
        batch: how many samples.
        start: points to start from, where these are given; one of them or more.
    """
    integers = jax.ShapeDtypeStruct((batch,), jnp.int32)
    floats = jax.ShapeDtypeStruct((batch,), jnp.float32)
    labels = abstract_labels(conditions, batch)
    x0 = () if start is None else (jax.ShapeDtypeStruct((batch, *start.shape[1:]), start.dtype),)
    return sample_fn.lower(params, key, integers, labels, floats, *x0)


def compiled_for(
    flow: TrainedFlow, recipe: Recipe, request: Request, batch: int
) -> jax.stages.Compiled:
    """The sample function of a flow, compiled for a batch size.

    Args:
        flow: a trained flow.
        recipe: how to sample.
        request: which samples, resolved.
        batch: how many at a time.
    """
    sample_fn = make_sample_fn(flow.experiment, recipe, flow.mesh)
    key, conditions = jax.random.key(0), flow.experiment.conditions
    return lower_for(sample_fn, conditions, flow.params, key, batch, request.x0).compile()


def fit_batch(num: int, batch_size: int, devices: int) -> int:
    """The batch to compile for: at most batch_size, at least one each, divisible by the devices."""
    return -(-min(num, batch_size) // devices) * devices


def draw_batches(
    sample_fn: Callable,
    flow: TrainedFlow,
    request: Request,
    batch: int,
    spans: Sequence[range] | None = None,
) -> Iterator[SampleBatch]:
    """Draws the samples of a request batch by batch, the next one computed while one is used.

    Args:
        sample_fn: from `make_sample_fn`, compiled or not.
        flow: whose parameters.
        request: which samples, from `fmjax.run.sample.request.resolve`.
        batch: how many at a time.
        spans: the numbers of the samples to draw instead of all of the request's, in pieces. A
            batch begins where a piece does, so that its samples are the same to the bit whatever
            other pieces are drawn; the next piece is computed while one is used, too.

    Raises:
        SolveError: an adaptive solve ran out of steps, or the velocity gave NaN or infinity.
    """
    key = jax.random.key(request.seed)

    def dispatch(rows: range):
        index, labels, w = request.rows(flow.experiment.conditions, rows.start, batch)
        x0 = request.points(rows.start, batch)
        return rows, labels, sample_fn(flow.params, key, index, labels, w, *x0)

    def fetch(rows: range, labels: Labels, solution: Solution) -> SampleBatch:
        n = len(rows)
        here: Any = jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[:n], solution)
        check_solution(here, first=rows.start)
        return SampleBatch(here.x1, jax.tree.map(lambda x: x[:n], labels), here.nfe)

    pending = None
    spans = [range(request.number)] if spans is None else spans
    for rows in (span[i : i + batch] for span in spans for i in range(0, len(span), batch)):
        following = dispatch(rows)
        if pending is not None:
            yield fetch(*pending)
        pending = following
    if pending is not None:
        yield fetch(*pending)


def draw_samples(
    flow: TrainedFlow, request: Request, recipe: Recipe
) -> Shaped[np.ndarray, "n ..."]:
    """All the samples of a request in one array, in the data's own form; as `stream_samples`."""
    return np.concatenate(list(stream_samples(flow, request, recipe)))


def stream_samples(
    flow: TrainedFlow, request: Request, recipe: Recipe
) -> Iterator[Shaped[np.ndarray, "batch ..."]]:
    """The samples of a request in batches, in the data's own form.

    Args:
        flow: a trained flow.
        request: which samples, from `fmjax.run.sample.request.resolve`, as is the recipe.
        recipe: how to draw them.

    Raises:
        SolveError: as in `draw_batches`.
    """
    sample_fn = make_sample_fn(flow.experiment, recipe, flow.mesh)
    batch = fit_batch(_BATCH, _BATCH, flow.mesh.size)
    for part in draw_batches(sample_fn, flow, request, batch):
        yield part.samples
