"""The batches of a training on its devices, from a stream that knows of no devices."""

import itertools
from collections.abc import Iterator

import jax

from fmjax.data import pipeline
from fmjax.data.streams import Stream
from fmjax.training.parallelism import Jit, Pmap
from fmjax.training.settings import Settings
from fmjax.training.step import Batch


def placed_batches(
    stream: Stream, layout: Jit | Pmap, settings: Settings, start: int
) -> pipeline.DevicePrefetch:
    """The batches from a step on, two of them waiting on the devices."""
    batches = stream.batches(
        global_batch=settings.batch_size,
        seed=settings.seed,
        start=start,
        process=jax.process_index(),
        processes=jax.process_count(),
    )
    if not stream.exact:
        batches = _first(batches, settings.steps - start)
    calls = pipeline.in_rows(batches, settings.steps_per_call)
    return pipeline.device_prefetch(calls, layout.place, size=2)


def _first(batches: Iterator[Batch], number: int) -> Iterator[Batch]:
    """So many batches and no more: what the training does not need stays in the iterator."""
    with pipeline.closed(batches):
        yield from itertools.islice(batches, number)
