"""A run's parameters out, as a folder that every command reads like a run, and in again."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fmjax.errors import InputError, unknown_name
from fmjax.factory import Experiment, make_experiment
from fmjax.run import workdir as files
from fmjax.run.restore import EXPORTED, exported_files, load_params, read_exported
from fmjax.run.train.setup import abstract_state, on_first_process
from fmjax.storage.fingerprint import fingerprint
from fmjax.storage.safetensors import DTYPES, check_same, read_header, shapes, write_weights
from fmjax.training.mesh import MeshSizes, make_mesh


class Exported(NamedTuple):
    """What was written: the file, the step of its checkpoint, and its size in bytes."""

    path: Path
    step: int
    nbytes: int


def export_weights(
    workdir: Path,
    out: Path,
    *,
    checkpoint: str = "latest",
    ema: bool = True,
    dtype: str = "float32",
    overwrite: bool = False,
) -> Exported:
    """Writes a run's parameters, with the record that says what model they are of.

    Args:
        workdir: a trained run, or a folder that this wrote.
        out: the folder to write ``run.json`` and ``ema.safetensors`` to, made if missing.
        checkpoint: ``"latest"``, ``"best"``, or a step.
        ema: the averaged parameters; without, the file is called ``params.safetensors``.
        dtype: ``"float32"``, or ``"bfloat16"`` for half the size.
        overwrite: replaces what is there already.

    Returns:
        What was written.

    Raises:
        InputError: something does not fit, in one sentence, before anything is read.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    record = files.load_record(workdir)
    experiment = make_experiment(record.config, record.spec)
    path = out / EXPORTED[ema]
    count = sum(leaf.size for leaf in jax.tree.leaves(_abstract(experiment)))
    size = count * DTYPES[dtype].itemsize
    on_first_process(lambda: _check_out(path, record, size, overwrite))
    mesh = make_mesh(sizes=MeshSizes(data=1, fsdp=-1))  # each device holds a part of a large model
    step, params = load_params(workdir, experiment, checkpoint, ema, mesh)
    if dtype != "float32":  # as they will be read again, so that the fingerprint is theirs
        params = jax.tree.map(lambda x: x.astype(DTYPES[dtype]).astype(jnp.float32), params)
    metadata = {"step": str(step), "fingerprint": str(int(fingerprint(params)))}
    write_weights(path, params, dtype, metadata)
    if jax.process_index() == 0:
        files.save_record(out, record)
    return Exported(path, step, size)


def _check_out(path: Path, record: files.Record, size: int, overwrite: bool) -> None:
    out = path.parent
    if (out / files.CHECKPOINTS).exists():
        raise InputError(
            f"{out} holds the checkpoints of a run, which would be read instead; give another "
            "--out."
        )
    if not overwrite and path.exists():
        raise InputError(f"{path} is there already; give another --out, or --overwrite.")
    if not overwrite and (out / files.RECORD).exists() and files.load_record(out) != record:
        raise InputError(
            f"{out} holds the parameters of another run; give another --out, or --overwrite."
        )
    files.check_writable(out, "--out")
    files.check_space(out, size, "the parameters", "free some space, or give another --out")


def check_initial(source: Path, experiment: Experiment) -> None:
    """Checks that a model can begin with stored parameters; reads none of the numbers.

    Args:
        source: a run's folder, one that `export_weights` wrote, or a ``.safetensors`` file with the
            same dotted names.
        experiment: of the model.

    Raises:
        InputError: there is nothing to begin with, or it is of another model; the first leaf that
            differs is named.
    """
    file = _file(source)
    if file is not None:
        found = read_header(file).shapes
    else:
        record = files.load_record(source)
        if not files.has_checkpoints(source):
            raise InputError(f"{source} has no checkpoint yet; train it first.")
        found = shapes(_abstract(make_experiment(record.config, record.spec)))
    check_same(found, shapes(_abstract(experiment)), source)


def initial_params(source: Path, experiment: Experiment, mesh: jax.sharding.Mesh) -> Any:
    """Stored parameters for a run to begin with: the averaged ones where there is a choice.

    Args:
        source: as in `check_initial`.
        experiment: of the model.
        mesh: of all devices; each leaf goes straight to its shards.

    Returns:
        The parameters, as arrays over all processes.

    Raises:
        InputError: as in `check_initial`, or the file is damaged.
    """
    check_initial(source, experiment)
    file = _file(source)
    if file is not None:
        return read_exported(file, abstract_state(experiment, mesh).params)
    return load_params(source, experiment, "latest", True, mesh)[1]


def _file(source: Path) -> Path | None:
    """The safetensors file that is meant, None for a run with checkpoints."""
    if source.suffix == ".safetensors":
        return source
    found = exported_files(source)
    return found[0] if found else None


def _abstract(experiment: Experiment) -> Any:
    return jax.eval_shape(experiment.init_params, jax.random.key(0))
