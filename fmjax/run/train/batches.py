"""The batches of a training run on its devices; `fmjax.data.pipeline.batches` makes them."""

import jax

from fmjax.data import pipeline
from fmjax.run.train.setup import Run


def training_batches(run: Run, start: int) -> pipeline.DevicePrefetch:
    """The batches from a step on, two of them waiting on the devices."""
    experiment = run.experiment
    batches = pipeline.batches(
        run.training,
        global_batch=experiment.train.batch_size,
        seed=experiment.train.seed,
        start=start,
        process=jax.process_index(),
        processes=jax.process_count(),
        flip=experiment.data.flip,
        threads=experiment.data.threads,
        couple=experiment.couple,
    )
    calls = pipeline.in_rows(batches, experiment.train.steps_per_call)
    return pipeline.device_prefetch(calls, run.layout.place, size=2)
