"""Stored pairs (x0, x1, label): source points, and the samples a trained flow made of them.

A pair set is a folder: ``pairs.json``, written first, says what the set is to hold, and K shards
``pairs-00000-of-K.array_record`` hold it, pair i in the same shard whoever writes it. A shard gets
its name when it is whole, so the names that are missing are the work that is left, for the process
that was killed as for the one that writes beside it. Each record is x0 and x1, float32 in the unit
the model was trained in, and the label, int32 (-1: none); all little-endian.
"""

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped

from fmjax.conditions import ClassIds
from fmjax.conventions import Places
from fmjax.data.codecs import States
from fmjax.data.dataset import Dataset, hold_out
from fmjax.data.tfds.records import CACHE_BYTES
from fmjax.errors import InputError
from fmjax.files import first_line
from fmjax.json_files import OBJECT, SHAPE, TEXT, TEXTS, WHOLE, read_json

INFO = "pairs.json"
_KINDS = {
    "shape": SHAPE,
    "number": WHOLE,
    "shards": WHOLE,
    "num_classes": WHOLE.or_null(),
    "class_names": TEXTS.or_null(),
    "origin": OBJECT,
    "resume": TEXT,
}


class PairInfo(NamedTuple):
    """What a pair set holds, once it is complete.

    Attributes:
        shape: of one x0, and of one x1.
        number: how many pairs.
        shards: in how many files.
        num_classes: labels are 0 to ``num_classes - 1``; None for a set without labels.
        class_names: one name per class, or None.
        origin: where the pairs come from: the run, its step, the solver, the guidance, the seed, or
            whatever else decides what they are; it goes into JSON.
        resume: the command that goes on with an incomplete set; empty where there is none.
    """

    shape: tuple[int, ...]
    number: int
    shards: int = 1
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    origin: dict = {}  # noqa: RUF012 (read only)
    resume: str = ""

    def rows(self, shard: int) -> range:
        """The pairs of a shard: consecutive ones, as many as in any other shard, or one more."""
        edges = (k * self.number // self.shards for k in (shard, shard + 1))
        return range(*edges)

    @property
    def nbytes(self) -> int:
        """The size of the whole set, in bytes, but for the few that ArrayRecord adds."""
        return self.number * record_type(self.shape).itemsize


def record_type(shape: tuple[int, ...]) -> np.dtype:
    """What one record holds, byte by byte."""
    return np.dtype([("x0", "<f4", shape), ("x1", "<f4", shape), ("label", "<i4")])


def shard_path(folder: Path, info: PairInfo, shard: int) -> Path:
    """Where a shard lies once it is whole."""
    return folder / f"pairs-{shard:05d}-of-{info.shards:05d}.array_record"


def missing_shards(folder: Path, info: PairInfo) -> list[int]:
    """The shards that are not there yet, in order."""
    return [k for k in range(info.shards) if not shard_path(folder, info, k).exists()]


def read_info(folder: Path) -> PairInfo:
    """What a pair set is to hold.

    Raises:
        InputError: the folder is not a pair set.
    """
    try:
        stored = PairInfo(**read_json(Path(folder) / INFO, _KINDS))
        names = stored.class_names and tuple(stored.class_names)
        info = stored._replace(shape=tuple(stored.shape), class_names=names)
        if not 1 <= info.shards <= info.number:
            raise ValueError(f"{info.number} pairs in {info.shards} shards")
        return info
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder} is not a set of stored pairs ({INFO}: {first_line(error)}). Make one with: "
            "python -m fmjax reflow --workdir=RUN"
        ) from error


@dataclasses.dataclass(eq=False)
class PairRecords:
    """Random access to some pairs of a complete set: a `fmjax.data.dataset.Split` that has x0.

    It pickles as a path; threads may share it.

    Attributes:
        folder: of the set.
        info: of the set.
        positions: which pairs these are, int (n,); None for all.
    """

    folder: Path
    info: PairInfo
    positions: Int[np.ndarray, " n"] | None = None

    @functools.cached_property
    def _source(self):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        shards = range(self.info.shards)
        return ArrayRecordDataSource([str(shard_path(self.folder, self.info, k)) for k in shards])

    @functools.cached_property
    def _cache(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Records, filled in as they are first read, and which of them are there."""
        record = record_type(self.info.shape)
        if len(self) * record.itemsize > CACHE_BYTES:
            return None
        return np.zeros(len(self), record), np.zeros(len(self), bool)

    def __getstate__(self) -> dict:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        return self.info.number if self.positions is None else len(self.positions)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        x0, x1, labels = self.read_pairs([index])
        pair = {"x0": x0[0], "x1": x1[0]}
        return pair if labels is None else {**pair, "label": int(labels[0])}

    def read_pairs(
        self, indices: Places
    ) -> tuple[
        Float32[np.ndarray, "k ..."], Float32[np.ndarray, "k ..."], Int32[np.ndarray, " k"] | None
    ]:
        """Many pairs at once.

        Args:
            indices: k positions from 0 to ``len(self) - 1``.

        Returns:
            x0 and x1 float32 ``(k, ...)``, and labels int32 ``(k,)`` or None, the caller's own.
        """
        wanted = np.asarray(indices)
        if self._cache is None:
            records = self._read_records(wanted)
        else:
            cached, there = self._cache
            new = np.unique(wanted[~there[wanted]])
            if len(new):
                cached[new] = self._read_records(new)
                there[new] = True  # last: a thread that sees it finds the records complete
            records = cached[wanted]
        labels = None if self.info.num_classes is None else np.array(records["label"], np.int32)
        return np.array(records["x0"], np.float32), np.array(records["x1"], np.float32), labels

    def read(
        self, indices: Places
    ) -> tuple[Float32[np.ndarray, "k ..."], Int32[np.ndarray, " k"] | None]:
        """x1 and labels alone, as `fmjax.data.dataset.Split.read` gives them."""
        return self.read_pairs(indices)[1:]

    def _read_records(self, indices: Int[np.ndarray, " k"]) -> Shaped[np.ndarray, " k"]:
        if self.positions is not None:
            indices = self.positions[indices]
        raw = self._source.__getitems__(indices.tolist())
        return np.frombuffer(b"".join(raw), record_type(self.info.shape))


def open_pairs(
    folder: Path, shape: tuple[int, ...] | None = None, num_classes: int | None = None
) -> Dataset:
    """Opens a complete set; a fixed tenth of its pairs, at least one, is the test split.

    Args:
        folder: of the set.
        shape: what one example must look like; None takes any.
        num_classes: the classes that the labels must name; None where they are not needed.

    Returns:
        A data set whose splits have `PairRecords.read_pairs`, so that its batches carry ``"x0"``;
        x1 is float32 in the model's own unit, of images too.

    Raises:
        InputError: the folder is not a pair set, or an incomplete or damaged one, or its pairs are
            not of that shape or of those classes.
    """
    folder = Path(folder)
    info = read_info(folder)
    if shape is not None and info.shape != tuple(shape):
        raise InputError(
            f"the pairs in {folder} have shape {info.shape}, but the data {tuple(shape)}; give the "
            "pairs of a flow of this data."
        )
    if num_classes is not None and info.num_classes != num_classes:
        raise InputError(
            f"the pairs in {folder} are of {info.num_classes or 'no'} classes, but the data of "
            f"{num_classes}; give the pairs of a conditional flow of this data."
        )
    _check_complete(folder, info)
    whole = PairRecords(folder, info)
    train, test = (PairRecords(folder, info, part.indices) for part in hold_out(whole))
    classes = info.num_classes and ClassIds(info.num_classes, names=info.class_names)
    return Dataset(str(folder), States(info.shape), classes, train, test)


def _check_complete(folder: Path, info: PairInfo) -> None:
    go_on = f" Go on with: {info.resume}" if info.resume else ""
    missing = missing_shards(folder, info)
    if missing:
        raise InputError(
            f"the pairs in {folder} are incomplete: {len(missing)} of {info.shards} shards are "
            f"missing.{go_on}"
        )
    for shard in range(info.shards):
        if found := damage(folder, info, shard, thorough=False):
            raise InputError(
                f"{shard_path(folder, info, shard)} is damaged ({found}); delete that file and "
                f"write it again.{go_on}"
            )


def damage(folder: Path, info: PairInfo, shard: int, thorough: bool = True) -> str | None:
    """What is wrong with a shard that is there, None for a whole one.

    Args:
        folder: of the set.
        info: of the set.
        shard: which one.
        thorough: whether to read all its records, which have checksums; else the last one alone.
    """
    count, itemsize = len(info.rows(shard)), record_type(info.shape).itemsize
    try:
        _check_shard(shard_path(folder, info, shard), count, itemsize, 0 if thorough else count - 1)
    except Exception as error:  # ArrayRecord raises its own
        return first_line(error)
    return None


def _check_shard(path: Path, count: int, itemsize: int, first: int) -> None:
    """Raises ValueError for a shard of another number, or another size of records from the first.

    ArrayRecord raises an error of its own where what it reads does not fit its checksum.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    try:
        if reader.num_records() != count:
            raise ValueError(f"{reader.num_records()} pairs instead of {count}")
        if any(len(record) != itemsize for record in reader.read(list(range(first, count)))):
            raise ValueError("pairs of another size")
    finally:
        reader.close()
