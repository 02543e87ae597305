"""A run's parameters out, as a folder that every command reads like a run."""

import json
import re
from pathlib import Path
from typing import IO

import jax
import jax.numpy as jnp

from fmjax.errors import InputError, unknown_name
from fmjax.factory import Experiment
from fmjax.factory.lora import without_lora
from fmjax.factory.training import abstract_params
from fmjax.files import check_space, check_writable
from fmjax.first_process import on_first_process
from fmjax.folders import check_no_links, lock_folder
from fmjax.run import workdir as folder
from fmjax.run.restore import ARCHITECTURE, EXPORTED, load_params, open_run
from fmjax.storage.fingerprint import fingerprint
from fmjax.storage.safetensors import DTYPES, write_weights
from fmjax.training.mesh import MeshSizes, make_mesh


def export_weights(
    workdir: Path,
    out: Path,
    *,
    checkpoint: str = "latest",
    ema: bool = True,
    dtype: str = "float32",
    overwrite: bool = False,
) -> str:
    """Writes a run's parameters, with the record that says what model they are of.

    Args:
        workdir: a trained run, or a folder that this wrote.
        out: the folder to write ``run.json`` and ``ema.safetensors`` to, made if missing.
        checkpoint: ``"latest"``, ``"best"``, or a step.
        ema: the averaged parameters; without, the file is called ``params.safetensors``.
        dtype: ``"float32"``, or ``"bfloat16"`` for half the size.
        overwrite: replaces what is there already.

    Returns:
        What was written, in a sentence.

    Raises:
        InputError: something does not fit, in one sentence, before anything is read.
    """
    check_dtype(dtype)
    experiment, record = open_run(workdir), folder.load_record(workdir)
    record = record._replace(config=without_lora(record.config))  # what is written is merged
    path = out / EXPORTED[ema]
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(experiment)))
    size = count * DTYPES[dtype].itemsize
    lock = on_first_process(lambda: _claim(path, record, size, overwrite))
    try:
        step = _write(workdir, path, experiment, checkpoint, ema, dtype)
        if jax.process_index() == 0:
            folder.save_record(path.parent, record)
    finally:
        if lock is not None:
            lock.close()
    return f"{path}: step {step}, {size / 1e6:.1f} MB"


def check_dtype(dtype: str) -> None:
    """Checks the dtype that parameters are to be written in.

    Raises:
        InputError: it is none of `fmjax.storage.safetensors.DTYPES`.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)


def _write(
    workdir: Path, path: Path, experiment: Experiment, checkpoint: str, ema: bool, dtype: str
) -> int:
    """Writes the file; returns the step."""
    mesh = make_mesh(sizes=MeshSizes(data=1, fsdp=-1))  # each device holds a part of a large model
    step, params = load_params(workdir, experiment, checkpoint, ema, mesh)
    if dtype != "float32":  # as they will be read again, so that the fingerprint is theirs
        params = jax.tree.map(lambda x: x.astype(DTYPES[dtype]).astype(jnp.float32), params)
    metadata = {"step": str(step), "fingerprint": str(int(fingerprint(params)))}
    metadata[ARCHITECTURE] = json.dumps(dict(experiment.architecture))
    write_weights(path, params, dtype, metadata)
    return step


def _claim(path: Path, record: folder.Record, size: int, overwrite: bool) -> IO | None:
    """Makes the folder this process's own and checks that it takes the file."""
    check_writable(path.parent, "--out")
    lock = lock_folder(path.parent, "--out")
    try:
        _check_out(path, record, size, overwrite)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    return lock


def _check_out(path: Path, record: folder.Record, size: int, overwrite: bool) -> None:
    out = path.parent
    written = map(re.escape, (folder.RECORD, *EXPORTED.values()))
    check_no_links(out, written, "--out")
    if (out / folder.CHECKPOINTS).exists():
        raise InputError(
            f"{out} holds the checkpoints of a run, which would be read instead; give another "
            "--out."
        )
    if not overwrite and path.exists():
        raise InputError(f"{path} is there already; give another --out, or --overwrite.")
    if not overwrite and (out / folder.RECORD).exists() and folder.load_record(out) != record:
        raise InputError(
            f"{out} holds the parameters of another run; give another --out, or --overwrite."
        )
    check_space(out, size, "the parameters", "free some space, or give another --out")
