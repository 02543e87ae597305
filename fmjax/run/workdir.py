"""A run's folder: what is in it, and whether a run may start, go on, or must not touch it."""

import hashlib
import importlib.metadata
import json
import platform
import re
from pathlib import Path
from typing import IO, Any, NamedTuple

from fmjax.conditions import ClassIds
from fmjax.config import ConfigDict, default_config
from fmjax.data.codecs import Pixels, Vectors
from fmjax.errors import InputError
from fmjax.factory import DataSpec
from fmjax.files import check_space, check_writable, first_line, write_json
from fmjax.folders import check_no_links, finish_removal, lock_folder, remove_content
from fmjax.json_files import OBJECT, SHAPE, TEXT, TEXTS, WHOLE, check_kind, read_json
from fmjax.names import check_names, describe, rebuild
from fmjax.run.resume import check_resumable
from fmjax.training.folder import CHECKPOINTS, EVENTS, METRICS, PROFILE, has_checkpoints

RECORD = "run.json"
SAMPLES = "samples"
EVALUATION = "evaluation.json"
TEACHER = "teacher.json"
LOSSES = "loss.png"
EVENTS_OF_REPORT = "report"
CONTENT = {
    CHECKPOINTS: r"\d+|.*orbax.*",
    re.escape(RECORD): "",
    re.escape(EVALUATION): "",
    re.escape(TEACHER): "",
    re.escape(METRICS): "",
    re.escape(LOSSES): "",
    EVENTS: rf"events\.out\.tfevents\..*|{EVENTS_OF_REPORT}",
    SAMPLES: r"(\d{8}|final)\.(png|txt)",
    PROFILE: ".*",
    "corrupt": r"\d+\.\d+",
}
"""What a run makes in its folder. Without checkpoints the rest is no run."""
_CHECKSUM = "checksum"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "diffrax", "orbax-checkpoint", "grain")


class Record(NamedTuple):
    """What a run is: enough to rebuild its model from the folder alone.

    Attributes:
        config: every key.
        spec: of its data.
        fingerprint: of its data, as `fmjax.data.dataset.Dataset` has it; None where it is unknown.
        began: which stored parameters it began with, and a number that tells whether they are still
            the same; None for a run that began anew.
    """

    config: ConfigDict
    spec: DataSpec
    fingerprint: str | None = None
    began: dict[str, Any] | None = None


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run computes."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in _PACKAGES
    }


def save_record(workdir: Path, record: Record) -> None:
    """Writes the record with the versions it ran with."""
    content = {
        "config": record.config.to_dict(),
        "data": describe(record.spec._asdict()),
        "fingerprint": record.fingerprint,
        "began": record.began,
        "versions": versions(),
    }
    write_json(workdir / RECORD, content | {_CHECKSUM: _checksum(content)})


def _checksum(content: dict) -> str:
    """Of a record without its checksum, however it is laid out."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def load_record(workdir: Path) -> Record:
    """Reads what `save_record` wrote; configuration keys it lacks take their defaults.

    Raises:
        InputError: the folder holds no run, or the record cannot be read, was changed, or names
            code that it must not name.
    """
    path = workdir / RECORD
    try:
        stored = read_json(path, {"config": OBJECT, "data": OBJECT})
        _check_unchanged(stored)
        check_names(stored, workdir)
        config = default_config()
        config.update(stored["config"])
        config.model.attention = "auto"  # of the machine it trained on, not of this one
        data = stored["data"]
        spec = DataSpec(**rebuild(data)) if "codec" in data else _older_spec(data)
        check_kind("the shape of the data", list(spec.codec.data_shape), SHAPE)
        told = stored.get("fingerprint")  # earlier runs do not tell
        check_kind("'fingerprint'", told, TEXT.or_null())
        check_kind("'began'", stored.get("began"), OBJECT.or_null())
        return Record(config, spec, told, stored.get("began"))
    except FileNotFoundError:
        raise InputError(
            f"{workdir} holds no run. Train one with: "
            f"python -m fmjax train --config=digits --workdir={workdir}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = first_line(error).rstrip(".")
        raise InputError(f"{path} is not the record of a run of this fmjax: {reason}.") from error


def _check_unchanged(stored: dict) -> None:
    """Raises InputError for a record that is not as it was written; earlier ones do not tell."""
    content = {key: value for key, value in stored.items() if key != _CHECKSUM}
    if _CHECKSUM in stored and stored[_CHECKSUM] != _checksum(content):
        raise InputError(
            f"it was changed after it was written; undo that, or delete its {_CHECKSUM!r} to have "
            "it as it is"
        )


def _older_spec(data: dict) -> DataSpec:
    """The data of a run of 0.3.0, which knew images of uint8 and points in the plane."""
    kinds = {"shape": SHAPE, "num_classes": WHOLE.or_null(), "class_names": TEXTS.or_null()}
    for key, kind in kinds.items():
        check_kind(f"{key!r}", data[key], kind)
    shape, number = tuple(data["shape"]), data["num_classes"]
    names = data["class_names"] and tuple(data["class_names"])
    codec = Vectors(*shape) if len(shape) == 1 else Pixels(shape)
    return DataSpec(codec, number and ClassIds(number, names=names))


def evaluated_step(workdir: Path) -> int | None:
    """The step that the folder's evaluation is of, None where there is none."""
    try:
        return read_json(workdir / EVALUATION, {"step": WHOLE})["step"]
    except (FileNotFoundError, InputError):
        return None


def claim(workdir: Path, record: Record, state_bytes: int, overwrite: bool) -> IO | None:
    """Makes the folder a run's own, to start or to go on there; called by one process.

    Args:
        workdir: the folder, made if missing.
        record: what is about to run.
        state_bytes: the size of one checkpoint.
        overwrite: deletes an earlier run in this folder, its files only, and all or none of them.

    Returns:
        An open file that keeps other runs out; close it when the run ends.

    Raises:
        InputError: the folder cannot be written, is too full, is in use, holds another run, or has
            links in it that a run would write through.
    """
    check_writable(workdir, "--workdir")
    lock = lock_folder(workdir, "--workdir")
    try:
        check_no_links(workdir, CONTENT, "--workdir")
        finish_removal(workdir, CONTENT)
        if overwrite:
            _delete_run(workdir)
        record = record._replace(began=_check_content(workdir, record))
        # The newest `keep`, the best one, and the one being written before an old one goes.
        needed = state_bytes * (record.config.train.keep + 2)
        advice = "free some space, lower train.keep, or give another --workdir"
        check_space(workdir, needed, "the checkpoints", advice)
        save_record(workdir, record)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    return lock


def _delete_run(workdir: Path) -> None:
    if not (workdir / RECORD).exists() and any(workdir.glob("[!.]*")):
        raise InputError(
            f"{workdir} holds no run that --overwrite could delete: {RECORD} is missing. "
            "Empty the folder yourself, or give another --workdir."
        )
    remove_content(workdir, CONTENT)


def check_same_data(workdir: Path, record: Record, fingerprint: str | None) -> None:
    """Checks that a data set is still the one that a run was trained on.

    Args:
        workdir: the run's folder.
        record: of the run.
        fingerprint: of the data set as it is now.

    Raises:
        InputError: it has changed.
    """
    if None not in (record.fingerprint, fingerprint) and record.fingerprint != fingerprint:
        raise InputError(
            f"the data set {record.config.data.name!r} has changed since {workdir} was trained on "
            "it (another fingerprint): bring the earlier one back, or give another --workdir."
        )


def _check_content(workdir: Path, record: Record) -> dict[str, Any] | None:
    """Checks that the folder holds the same run or none; returns what that run began with."""
    if (workdir / RECORD).exists() and has_checkpoints(workdir):
        stored = load_record(workdir)
        check_resumable(stored.config, record.config, workdir)
        if stored.spec != record.spec:
            raise InputError(
                f"{workdir} was trained on {stored.spec.codec} with labels "
                f"{stored.spec.conditions}; {record.config.data.name!r} now has "
                f"{record.spec.codec} with labels {record.spec.conditions}. Give another --workdir."
            )
        check_same_data(workdir, stored, record.fingerprint)
        return stored.began
    if any(workdir.glob("*.safetensors")):
        raise InputError(
            f"{workdir} holds exported weights: begin with them, by --init_from={workdir}, in "
            "another --workdir."
        )
    if has_checkpoints(workdir):
        raise InputError(
            f"{workdir} holds checkpoints of an unknown run: {RECORD} is missing. "
            "Give another --workdir."
        )
    return None
