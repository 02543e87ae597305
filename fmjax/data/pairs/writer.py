"""Writing stored pairs: first ``pairs.json``, then shard by shard, each whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from fmjax.array_checks import check_finite
from fmjax.data.pairs.records import INFO, PairInfo, read_info, record_type, shard_path
from fmjax.errors import InputError
from fmjax.files import first_line, whole_file, write_json
from fmjax.json_files import differences

# Noise does not compress, and a group of one record is read without its neighbours.
_OPTIONS = "group_size:1,uncompressed"

PairPart = tuple[
    Float[np.ndarray, "n ..."], Float[np.ndarray, "n ..."], Int[np.ndarray, " n"] | None
]
"""x0 and x1 (n, ...), and labels (n,), or None in a set without classes."""


def begin_pairs(folder: Path, info: PairInfo) -> None:
    """Says what a set is to hold, before its first shard; a second time it checks that it agrees.

    Raises:
        InputError: fewer than two pairs, a number of shards that does not fit, or a folder that
            holds other pairs.
    """
    if info.number < 2:
        raise InputError(
            f"a pair set needs at least two pairs, one to hold out; got {info.number}."
        )
    if not 1 <= info.shards <= info.number:
        raise InputError(
            f"{info.number} pairs fit into 1 to {info.number} shards; got {info.shards}."
        )
    if (folder / INFO).exists():
        read_info(folder)  # it is a pair set
        changed = differences(folder / INFO, info._asdict(), free=("resume",))
        if changed:
            raise InputError(
                f"{folder} holds other pairs, with {', '.join(changed)}; ask for the same ones, or "
                "delete that folder."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / INFO, info._asdict())


def write_shard(folder: Path, info: PairInfo, shard: int, parts: Iterable[PairPart]) -> Path:
    """Writes one shard; it appears when it is whole, and replaces what a killed writer left.

    Args:
        folder: of the set, after `begin_pairs`.
        info: of the set.
        shard: which one; its pairs are ``info.rows(shard)``.
        parts: those pairs, in order, in pieces of any length.

    Returns:
        The path of the shard.

    Raises:
        InputError: pairs of another shape or number, labels outside the classes, NaN or infinity.
    """
    path = shard_path(folder, info, shard)
    with whole_file(path) as temporary:
        try:
            written = _write_records(temporary, info, parts)
        except RuntimeError as error:  # ArrayRecord's, or one of whoever draws the parts
            if type(error) is not RuntimeError:
                raise
            raise OSError(first_line(error)) from error
        if written != len(info.rows(shard)):
            raise InputError(f"shard {shard} takes {len(info.rows(shard))} pairs, got {written}.")
    return path


def _write_records(path: Path, info: PairInfo, parts: Iterable[PairPart]) -> int:
    """Writes the records of all parts and counts them."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer, written = ArrayRecordWriter(str(path), _OPTIONS), 0
    try:
        for part in parts:
            for record in _to_records(info, *part):
                writer.write(record.tobytes())
                written += 1
    finally:
        writer.close()
    return written


def _to_records(
    info: PairInfo,
    x0: Float[np.ndarray, " n *shape"],
    x1: Float[np.ndarray, " n *shape"],
    labels: Int[np.ndarray, " n"] | None,
) -> Shaped[np.ndarray, " n"]:
    """The pairs of one part as records."""
    records = np.empty(len(x1), record_type(info.shape))
    for name, x in (("x0", np.asarray(x0)), ("x1", np.asarray(x1))):
        if x.shape != (len(x1), *info.shape) or not np.issubdtype(x.dtype, np.floating):
            raise InputError(
                f"{name} must be floats in the model's unit, {len(x1)} examples of shape "
                f"{info.shape}; got {x.dtype} {x.shape}."
            )
        check_finite(name, x)
        records[name] = x
    records["label"] = -1 if labels is None else labels
    least, most = (-1, 0) if info.num_classes is None else (0, info.num_classes)
    wrong = records["label"][(records["label"] < least) | (records["label"] >= most)]
    if len(wrong):
        raise InputError(
            f"labels must lie between 0 and {most - 1}; got {wrong[0]}."
            if most
            else "the set has no classes; write labels=None, or give num_classes."
        )
    return records


def save_pairs(
    folder: Path,
    x0: Float[np.ndarray, " n *shape"],
    x1: Float[np.ndarray, " n *shape"],
    labels: Int[np.ndarray, " n"] | None = None,
    num_classes: int | None = None,
    shards: int = 1,
) -> None:
    """Writes pairs that are in memory as a set; `begin_pairs` and `write_shard` in one.

    Args:
        folder: of the set, made if missing.
        x0: source points, floats (n, ...).
        x1: data points, floats (n, ...) in the unit the model is trained in.
        labels: class ids (n,), or None.
        num_classes: how many classes there are; given exactly where labels are.
        shards: into how many files.

    Raises:
        InputError: as in `begin_pairs` and `write_shard`.
    """
    info = PairInfo(np.shape(x1)[1:], len(x1), shards, num_classes)
    begin_pairs(folder, info)
    for shard in range(shards):
        rows = slice(info.rows(shard).start, info.rows(shard).stop)
        part = (x0[rows], x1[rows], None if labels is None else labels[rows])
        write_shard(folder, info, shard, [part])
