"""What the faults use of the inside of fmjax: patches, and the state that a checkpoint holds.

Imported by `forked_runs.import_packages`, once the compilation cache is set up: importing this
file loads all that a run needs.
"""

import time
from collections.abc import Callable
from pathlib import Path

import grain  # noqa: F401
import jax
import numpy as np
import orbax.checkpoint  # noqa: F401
import tensorboardX  # noqa: F401
import tqdm  # noqa: F401
from jax.experimental import multihost_utils
from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

import fmjax.run.distributed.launch
import fmjax.run.train.training  # noqa: F401
from fmjax.factory.training import abstract_state
from fmjax.run import pictures
from fmjax.run.restore import open_run
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.mesh import MeshSizes, make_mesh
from fmjax.training.step_metrics import StepMetrics, not_finite


def dump_state(workdir: Path, step: int | None, out: Path) -> None:
    """Reads a checkpoint as a run does, in shards over all devices, and writes the bits."""
    mesh = make_mesh(sizes=MeshSizes(data=1, fsdp=jax.device_count(), tensor=1))
    target = abstract_state(open_run(workdir), mesh)._asdict()
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    step = checkpoints.steps()[-1] if step is None else step
    state = checkpoints.restore(step, target)
    split = sum(not x.is_fully_replicated for x in jax.tree.leaves(state["params"]))
    whole = multihost_utils.process_allgather(state, tiled=True)
    if jax.process_index() == 0:
        np.savez(out, np.int64(split), *jax.tree.leaves(whole))


def fail_at(step: int) -> None:
    """A patch: the loss of this process alone is found to be nan at a step."""
    check = StepMetrics._check

    def failing(self, now, values):
        if now == step:
            raise not_finite("loss", float("nan"), now)
        check(self, now, values)

    StepMetrics._check = failing


def fail_in_pictures() -> None:
    """A patch: the picture at the end cannot be written; process 0 alone writes it."""

    def failing(*_, **__):
        raise OSError("no space left on device")

    pictures.save_samples = pictures.plots.scatter = failing


def slow_writer(seconds: float) -> Callable[[], None]:
    """A patch: every checkpoint takes this long to be made final, in orbax's own thread."""

    def patch() -> None:
        finalize = AtomicRenameTemporaryPath.finalize

        async def slow(self, *args, **kwargs):
            time.sleep(seconds)
            return await finalize(self, *args, **kwargs)

        AtomicRenameTemporaryPath.finalize = slow

    return patch
