"""A trained flow as one file that runs without fmjax: StableHLO, parameters included.

    from jax import export
    sampler = export.deserialize(bytearray(open("digits.jaxexport", "rb").read()))
    images = sampler.call(seed, index, labels, w)

with seed uint32 (), index and labels int32 (n,) and w float32 (n,), for any n, on a CPU, a CUDA GPU
or a TPU. Sample number index[i] is the one that ``sample.py`` draws with that seed.
"""

from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp

from fmjax.draws import normal
from fmjax.errors import InputError
from fmjax.factory import flow
from fmjax.run import workdir as files
from fmjax.run.restore import Loaded
from fmjax.run.sample.batches import as_data

PLATFORMS = ("cpu", "cuda", "tpu")
_LIMIT = 2**30  # bytes of parameters: a serialised program must stay below 2 GiB


def check_file(path: Path, overwrite: bool) -> None:
    """Checks that a file may be written.

    Raises:
        InputError: it is there already, or is a folder, or its folder cannot be written.
    """
    if path.is_dir():
        raise InputError(f"--export takes the name of a file; {path} is a folder.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; give another --export, or --overwrite.")
    files.check_writable(path.parent, "--export")


def export_sampler(loaded: Loaded, path: Path) -> int:
    """Writes the sampler of a flow, whole or not at all.

    An example that fails comes out as NaN, or for images as zeros: there is nobody to raise.

    Args:
        loaded: the flow, its recipe and its parameters.
        path: where to.

    Returns:
        The size of the file in bytes.

    Raises:
        InputError: the parameters are too large for one file.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.params))
    if size > _LIMIT:
        raise InputError(
            f"the parameters take {size / 1e9:.1f} GB, and an exported program holds "
            f"{_LIMIT / 1e9:.1f} GB at most."
        )
    params = jax.device_get(loaded.params)  # constants of the program
    carry = flow(loaded.experiment, loaded.recipe)

    def sample(seed, index, labels, w):
        key = jax.random.key(seed)
        x0 = normal(key, index, loaded.experiment.spec.shape)
        return as_data(loaded.experiment, carry(params, x0, key, index, labels, w).x1)

    (n,) = jax.export.symbolic_shape("n")
    integers, floats = (jax.ShapeDtypeStruct((n,), dtype) for dtype in (jnp.int32, jnp.float32))
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    exported = jax.export.export(jax.jit(sample), platforms=PLATFORMS)(
        seed, integers, integers, floats
    )
    content = exported.serialize()
    files.write_bytes(path, content)
    return len(content)
