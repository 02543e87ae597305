"""Batched sampling: one compiled program, any number of samples, bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.data import pixels
from fmjax.draws import normal
from fmjax.errors import InputError
from fmjax.factory import Experiment, Guidance, Recipe, flow
from fmjax.samplers.sde import SDESpec
from fmjax.samplers.solution import Solution, check_solution
from fmjax.samplers.spec import SolverSpec
from fmjax.training.mesh import by_rows, within


class Request(NamedTuple):
    """Which samples to draw.

    Attributes:
        num: how many.
        labels: class ids that repeat in turn, or None for unconditional samples.
        w: guidance scales that repeat in turn; one number for all is ``(w,)``. None, for what the
            run's configuration says, is replaced by `fmjax.run.restore.load`.
        seed: sample i is a function of the seed and of i alone.
        first: the number of the first one: samples first to first + num - 1 are drawn.
    """

    num: int
    labels: tuple[int, ...] | None
    w: tuple[float, ...] | None = (1.0,)
    seed: int = 0
    first: int = 0

    @property
    def columns(self) -> int:
        """Of a picture: one for each label that repeats, at most 20."""
        return min(len(self.labels or ()) or 10, 20)

    def recipe(self, solver: SolverSpec | SDESpec, guidance: Guidance | None = None) -> Recipe:
        """How to draw them; w = 1 everywhere is the conditional field itself, without guidance."""
        guidance = Guidance() if guidance is None else guidance
        able = self.labels is not None or guidance.weak
        needed = any(w != 1 for w in self.w) or guidance.zero_until > 0
        return Recipe(solver, guidance if able and needed else None)


class SampleBatch(NamedTuple):
    """A piece of the answer: samples (n, ...), labels int32 (n,), nfe int32 (n,).

    Samples are what the compiled function gives: an array, or a `Pair` of arrays.
    """

    samples: Any
    labels: np.ndarray
    nfe: np.ndarray


class Pair(NamedTuple):
    """Where a sample started, and where it ended before it became pixels; float32 (n, ...)."""

    x0: np.ndarray
    x1: np.ndarray


@lru_cache(maxsize=8)
def make_sample_fn(
    experiment: Experiment, recipe: Recipe, mesh: Mesh, pairs: bool = False
) -> Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array], Solution]:
    """Compiles ``sample(params, key, index, labels, w) -> Solution``, its x1 the samples.

    Everything but the recipe and the batch size is traced, so no other labels, scale or seed
    compiles anything; and the function for the same arguments is the same function, so that the
    second picture of a run compiles nothing. Sample i starts from noise keyed by its index alone.

    Args:
        experiment: what the configuration stands for.
        recipe: how to sample.
        mesh: the batch is split over its devices, and must divide by their number.
        pairs: whether to give each sample with the noise that it started from.

    Returns:
        The compiled function; labels are class ids (batch,), the null label included. Samples are
        uint8 (batch, H, W, C) for images, float32 (batch, D) for points; with `pairs` a `Pair`.
    """
    carry = flow(experiment, recipe)

    @partial(jax.jit, out_shardings=NamedSharding(mesh, P()))
    def sample(params, key, index, labels, w):
        index, labels, w = jax.lax.with_sharding_constraint((index, labels, w), by_rows(mesh))
        x0 = normal(key, index, experiment.spec.shape)
        x0 = jax.lax.with_sharding_constraint(x0, by_rows(mesh))
        with within(mesh):
            solution = carry(params, x0, key, index, labels, w)
        samples = Pair(x0, solution.x1) if pairs else as_data(experiment, solution.x1)
        return solution._replace(x1=samples)

    return sample


def as_data(experiment: Experiment, x: jax.Array) -> jax.Array:
    """States of the flow as the data they stand for: uint8 images, or points as they are."""
    return pixels.to_pixels(x) if experiment.spec.is_image else x


def lower_for(
    sample_fn: Callable, params: Any, key: jax.Array | jax.ShapeDtypeStruct, batch: int
) -> jax.stages.Lowered:
    """The sample function lowered for a batch size, to be compiled ahead of its first call.

    So that a run can tell the time of compilation from that of sampling.
    """
    integers = jax.ShapeDtypeStruct((batch,), jnp.int32)
    floats = jax.ShapeDtypeStruct((batch,), jnp.float32)
    return sample_fn.lower(params, key, integers, integers, floats)


def check_request(request: Request, experiment: Experiment) -> None:
    """Checks a request against the model, before any device work.

    Raises:
        InputError: no samples are asked, labels lie outside the classes or are asked of an
            unconditional model, or a guidance scale is not finite.
    """
    if request.num < 1:
        raise InputError(f"the number of samples must be at least 1; got {request.num}.")
    if not 0 <= request.seed < 2**32:
        raise InputError(f"the seed must lie between 0 and 2^32 - 1; got {request.seed}.")
    if not np.all(np.isfinite(request.w)):
        raise InputError(f"the guidance scale must be a finite number; got {request.w}.")
    if request.labels is None:
        return
    if experiment.num_classes is None:
        raise InputError("this model is unconditional: it has no labels; write --labels=none.")
    wrong = [label for label in request.labels if not 0 <= label < experiment.num_classes]
    if wrong or not request.labels:
        raise InputError(
            f"labels must lie between 0 and {experiment.num_classes - 1}; got {wrong}."
        )


def fit_batch(num: int, batch_size: int, devices: int) -> int:
    """The batch to compile for: at most batch_size, at least one each, divisible by the devices."""
    return -(-min(num, batch_size) // devices) * devices


def batch_of(
    experiment: Experiment, request: Request, start: int, batch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers, the labels and the scales of the samples from `start` on, each (batch,)."""
    null = 0 if experiment.null_label is None else experiment.null_label
    labels = np.array([null] if request.labels is None else request.labels, np.int32)
    scales = np.array(request.w, np.float32)
    index = np.arange(start, start + batch, dtype=np.int32)
    return index, labels[index % len(labels)], scales[index % len(scales)]


def sample_in_batches(
    sample_fn: Callable,
    params: Any,
    experiment: Experiment,
    request: Request,
    batch: int,
    spans: Sequence[range] | None = None,
) -> Iterator[SampleBatch]:
    """Draws the samples of a request batch by batch, the next one computed while one is used.

    Args:
        sample_fn: from `make_sample_fn`, compiled or not.
        params: the parameters.
        experiment: what the configuration stands for.
        request: which samples.
        batch: how many at a time.
        spans: the numbers of the samples to draw instead of the request's own, in pieces. A batch
            begins where a piece does, so that its samples are the same to the bit whatever other
            pieces are drawn; the next piece is computed while one is used, too.

    Raises:
        SolveError: an adaptive solve ran out of steps, or the velocity gave NaN or infinity.
    """
    key = jax.random.key(request.seed)
    if spans is None:
        spans = [range(request.first, request.first + request.num)]

    def dispatch(rows: range):
        index, chosen, w = batch_of(experiment, request, rows.start, batch)
        return rows, chosen, sample_fn(params, key, index, chosen, w)

    def fetch(rows: range, chosen: np.ndarray, solution: Solution) -> SampleBatch:
        n = len(rows)
        solution = jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[:n], solution)
        check_solution(solution, first=rows.start)
        return SampleBatch(solution.x1, chosen[:n], solution.nfe)

    pending = None
    for rows in (span[i : i + batch] for span in spans for i in range(0, len(span), batch)):
        following = dispatch(rows)
        if pending is not None:
            yield fetch(*pending)
        pending = following
    if pending is not None:
        yield fetch(*pending)
