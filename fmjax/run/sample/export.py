"""A trained flow as one file that runs without fmjax: StableHLO, parameters included.

    from jax import export
    sampler = export.deserialize(bytearray(open("digits.jaxexport", "rb").read()))
    images = sampler.call(seed, index, labels, w)

with seed uint32 (), index int32 (n,), labels built as the conditions of the model (class ids: int32
(n,)) and w float32 (n,), for any n, on a CPU, a CUDA GPU or a TPU. Sample number index[i] is the
one that ``sample.py`` draws with that seed.
"""

from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp

from fmjax.conditions import abstract_labels
from fmjax.errors import InputError
from fmjax.factory import Recipe, make_sampler
from fmjax.files import check_file, write_bytes
from fmjax.run.restore import LATEST, TrainedFlow, Weights, open_run, restore_flow
from fmjax.run.sample.request import Request, resolve
from fmjax.sources import draw_source

PLATFORMS = ("cpu", "cuda", "tpu")
_LIMIT = 2**30  # bytes of parameters: a serialised program must stay below 2 GiB


def export_run(
    workdir: Path,
    path: Path,
    request: Request,
    recipe: Recipe,
    weights: Weights = LATEST,
    overwrite: bool = False,
) -> str:
    """Writes the sampler of a trained run to a file.

    Args:
        workdir: a trained run's folder.
        path: where to.
        request: which samples will be asked for: it decides whether guidance is built in.
        recipe: how they are drawn.
        weights: with which parameters of the run.
        overwrite: replaces a file that is there already.

    Returns:
        What was written, in a sentence.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
    """
    if jax.process_count() > 1:
        raise InputError("--export is the work of one process; start it alone.")
    if request.x0 is not None:
        raise InputError(
            "an exported sampler draws the points that it starts from: leave --x0 out, and sample "
            "from the run itself."
        )
    experiment = open_run(workdir, portable=True)
    _, recipe = resolve(experiment, request, recipe, weak=weights.weak is not None)
    check_target(path, overwrite)
    flow = restore_flow(workdir, experiment, weights.needed(recipe))
    size = export_sampler(flow, recipe, path)
    return f"{path}: the sampler of step {flow.step}, {size / 1e6:.1f} MB"


def check_target(path: Path, overwrite: bool) -> None:
    """Checks that a file may be written.

    Raises:
        InputError: it is there already, or is a folder, or its folder cannot be written.
    """
    check_file(path, "--export")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; give another --export, or --overwrite.")


def export_sampler(flow: TrainedFlow, recipe: Recipe, path: Path) -> int:
    """Writes the sampler of a flow, whole or not at all.

    An example that fails comes out as NaN, or for images as zeros: there is nobody to raise.

    Args:
        flow: a trained flow, its experiment portable.
        recipe: how to draw, from `fmjax.run.sample.request.resolve`.
        path: where to.

    Returns:
        The size of the file in bytes.

    Raises:
        InputError: the parameters are too large for one file.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(flow.params))
    if size > _LIMIT:
        raise InputError(
            f"the parameters take {size / 1e9:.1f} GB, and an exported program holds "
            f"{_LIMIT / 1e9:.1f} GB at most."
        )
    params = jax.device_get(flow.params)  # constants of the program
    sampler = make_sampler(flow.experiment, recipe)

    conditions, spec = flow.experiment.conditions, flow.experiment.spec

    def sample(seed, index, labels, w):
        key = jax.random.key(seed)
        x0 = draw_source(flow.experiment.source, key, index, spec.shape)
        labels = None if conditions is None else labels
        return spec.codec.decode(sampler(params, x0, key, index, labels, w).x1)

    (n,) = jax.export.symbolic_shape("n")
    integers, floats = (jax.ShapeDtypeStruct((n,), dtype) for dtype in (jnp.int32, jnp.float32))
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    # An unconditional sampler takes integers, too, so that all are called in one way.
    labels = integers if conditions is None else abstract_labels(conditions, n)
    exported = jax.export.export(jax.jit(sample), platforms=PLATFORMS)(
        seed, integers, labels, floats
    )
    content = exported.serialize()
    write_bytes(path, content)
    return len(content)
