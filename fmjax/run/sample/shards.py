"""Large jobs: shards shared out among the processes, and drawn one after another.

A shard gets its name when it is whole, so the names that are missing are the work that is left: for
a job that was stopped as for the processes that work side by side.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from fmjax.errors import InputError
from fmjax.first_process import say
from fmjax.progress_bar import progress_bar
from fmjax.run.sample.sampler import SampleBatch


def share_out(
    paths: Sequence[Path], manifest: Path, is_whole: Callable[[int], bool]
) -> tuple[list[int], list[int]]:
    """The numbers of the shards that are missing, and those of them that this process is to make.

    One that is there, but damaged, counts as missing, and is said.

    Process 0 looks for all: a shared file system may show each of them another picture.

    Args:
        paths: where each shard lies once it is whole.
        manifest: what process 0 has written beside them.
        is_whole: whether the shard of a number, which exists, has all that it should.

    Raises:
        InputError: a process does not see the manifest, so that the folder is not a shared one.
    """
    seen = multihost_utils.process_allgather(np.int32(manifest.exists()))
    if not np.all(seen):
        raise InputError(
            f"{int(np.size(seen) - np.sum(seen))} of {np.size(seen)} processes do not see "
            f"{manifest}; give a folder that all machines share."
        )
    missing = np.ones(len(paths), np.int32)
    for k, path in enumerate(paths if jax.process_index() == 0 else ()):
        if path.exists():
            missing[k] = not is_whole(k)
            if missing[k]:
                say(f"{path} is damaged: it is made again.")
    left = np.flatnonzero(multihost_utils.broadcast_one_to_all(missing)).tolist()
    return left, left[jax.process_index() :: jax.process_count()]


def by_shard(
    batches: Iterator[SampleBatch], spans: Sequence[range], batch: int, unit: str
) -> Iterator[Iterator[SampleBatch]]:
    """The batches of each shard in turn, under one progress bar on process 0, of its own work.

    Args:
        batches: of all the shards, from `draw_batches` with the same spans.
        spans: the samples of each shard.
        batch: how many samples are drawn at a time.
        unit: what a sample is called.

    Yields:
        The batches of one shard; they are to be used up before the next one is asked for.
    """
    processes = jax.process_count()
    bar = progress_bar(
        sum(map(len, spans)),
        f"{unit}s",
        f"process 0 of {processes}" if processes > 1 else None,
        shown=jax.process_index() == 0,
    )

    def shown(parts: Iterator[SampleBatch]) -> Iterator[SampleBatch]:
        for part in parts:
            yield part
            bar.update(len(part.nfe))

    with bar:
        for rows in spans:
            yield shown(islice(batches, -(-len(rows) // batch)))
