"""Reads prepared TFDS sets: ArrayRecord files, which need no TensorFlow."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Float32, Int, Shaped

from fmjax.conventions import Places
from fmjax.data import dataset
from fmjax.data.codecs import Codec, vocabulary_of
from fmjax.data.dataset import AS_IT_SAYS, Reading
from fmjax.data.pixels import to_unit
from fmjax.data.resampling import check_weights
from fmjax.data.tfds import directory
from fmjax.data.tfds.layout import Layout, choose_layout, codec_of
from fmjax.data.tfds.metadata import FILE, SetMetadata, read_metadata, stored_codec
from fmjax.data.tfds.parts import Part, parse_record
from fmjax.data.tfds.stored_info import check_stored
from fmjax.errors import InputError
from fmjax.files import first_line

# Up to this size the decoded examples stay in memory, and later epochs cost no decoding.
CACHE_BYTES = 2**30
_SCANNED = 4096  # records that are looked through at a time


@dataclasses.dataclass(eq=False)
class Records:
    """Random access to one split of a prepared set; it pickles as a path.

    Attributes:
        folder: the version folder of the set.
        split: e.g. ``"train"``, as TFDS writes it.
        layout: what is read of each example.
    """

    folder: Path
    split: str
    layout: Layout

    @functools.cached_property
    def _source(self):
        """The records as bytes."""
        builder = tfds.builder_from_directory(self.folder, file_format=directory.FORMAT)
        return builder.as_data_source(self.split).data_source

    @functools.cached_property
    def _cache(self) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
        """Arrays by feature, filled in as they are first read, and which examples are there."""
        parts = self.layout.parts
        if len(self) * sum(part.nbytes for part in parts.values()) > CACHE_BYTES:
            return None
        return _zeros(parts, len(self)), np.zeros(len(self), bool)

    @functools.cached_property
    def weights(self) -> Float32[np.ndarray, " n"] | None:
        """How often each example counts, (n,), or None; it looks through all records once."""
        part = self.layout.weights
        if part is None:
            return None
        starts = range(0, len(self), _SCANNED)
        spans = (np.arange(i, min(i + _SCANNED, len(self))) for i in starts)
        weights = np.concatenate(
            [self._decode(span, {part.name: part})[part.name] for span in spans]
        )
        return check_weights(f"the weights of {self.split} in {self.folder}", weights, len(self))

    def __getstate__(self) -> dict:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        arrays = self._arrays([index])
        return {name: x[0] if x.ndim > 1 else x[0].item() for name, x in arrays.items()}

    def read(self, indices: Places) -> tuple[Shaped[np.ndarray, "k ..."], Any]:
        """Many examples at once, which costs far less than one by one.

        Args:
            indices: k positions from 0 to ``len(self) - 1``.

        Returns:
            Data ``(k, ...)``, the caller's own, and labels ``(k, ...)``, one array or a dictionary
            of them, or None.
        """
        arrays = self._arrays(indices)
        return arrays[self.layout.x.name], self._labels(arrays)

    def _labels(self, arrays: dict[str, np.ndarray]) -> Any:
        labels = {name: arrays[name] for name in self.layout.labels}
        # Images beside the data are states, as their condition says.
        labels = {n: to_unit(x) if x.dtype == np.uint8 else x for n, x in labels.items()}
        return next(iter(labels.values())) if self.layout.lone else labels or None

    def _arrays(self, indices: Places) -> dict[str, np.ndarray]:
        wanted = np.asarray(indices)
        if self._cache is None:
            return self._decode(wanted, self.layout.parts)
        cached, there = self._cache
        new = np.unique(wanted[~there[wanted]])
        if len(new):
            for name, x in self._decode(new, self.layout.parts).items():
                cached[name][new] = x
            there[new] = True  # last: a thread that sees it finds the examples complete
        return {name: x[wanted] for name, x in cached.items()}

    def _decode(
        self, indices: Int[np.ndarray, " k"], parts: dict[str, Part]
    ) -> dict[str, np.ndarray]:
        arrays = _zeros(parts, len(indices))
        try:
            records = self._source.__getitems__(indices.tolist())
            for i, record in enumerate(records):
                features = parse_record(record)
                for name, part in parts.items():
                    part.read(features, arrays[name][i : i + 1].reshape(part.shape))
        except Exception as error:  # ArrayRecord, protobuf and Pillow each raise their own
            raise InputError(
                f"the data set is damaged: {first_line(error)}. Prepare it again."
            ) from error
        return arrays


@dataclasses.dataclass(eq=False)
class PairedRecords(Records):
    """The same of a set whose examples come with the points that they are paired with.

    Attributes:
        codec: by which those become states.
    """

    codec: Codec

    def read_pairs(
        self, indices: Places
    ) -> tuple[Float[np.ndarray, "k ..."], Shaped[np.ndarray, "k ..."], Any]:
        """x0 as states, x as data, and labels; all else is as in `read`."""
        arrays = self._arrays(indices)
        assert self.layout.x0 is not None, "a set of pairs has x0"
        x0, x = arrays[self.layout.x0.name], arrays[self.layout.x.name]
        return self.codec.encode(x0), x, self._labels(arrays)


def _zeros(parts: dict[str, Part], count: int) -> dict[str, np.ndarray]:
    # zeros, not empty: the system then hands out memory only as it is written.
    return {name: np.zeros((count, *part.shape), part.dtype) for name, part in parts.items()}


def open_set(name: str, folder: Path, reading: Reading = AS_IT_SAYS) -> dataset.Dataset:
    """The data set in a version folder.

    Args:
        name: what the set is called.
        folder: the folder, as `directory.prepared` finds it.
        reading: which features and which splits.

    Returns:
        The data set; without a test split, a fixed tenth of the training examples is its `test`.

    Raises:
        InputError: for a set in another format, one whose features or splits are not those that are
            asked for, one without a train split, or a damaged one.
    """
    _check_format(name, folder)
    try:
        info = tfds.builder_from_directory(folder).info
    except Exception as error:  # TFDS and protobuf each raise their own
        raise _damaged(name, folder, error) from error
    metadata = read_metadata(folder)
    layout, conditions = choose_layout(name, info, metadata, reading)
    codec = codec_of(layout)
    if metadata is not None and layout.x.name == metadata.x:
        codec = stored_codec(metadata, layout.x.shape, folder / FILE)
        layout = dataclasses.replace(
            layout, x=dataclasses.replace(layout.x, classes=vocabulary_of(codec))
        )
    parts = [
        Records(folder, split, layout)
        if layout.x0 is None
        else PairedRecords(folder, split, layout, codec)
        for split in _splits(name, info, reading)
    ]
    for part in parts:
        try:
            part[0]  # what is damaged shows here, not in the middle of a run
        except Exception as error:
            raise _damaged(name, folder, error) from error
    train, test = parts if len(parts) == 2 else dataset.hold_out(parts[0])
    told = _fingerprint(info, metadata)
    return dataset.Dataset(name, codec, conditions, train, test, fingerprint=told)


def _splits(name: str, info: tfds.core.DatasetInfo, reading: Reading) -> list[str]:
    """The split to train on and, if there is one, the split to test on."""
    train = reading.split or "train"
    sizes = {split: info.splits[split].num_examples for split in info.splits}
    if reading.split is None and not sizes.get("train"):
        raise InputError(
            f"data set {name!r} has no train split, only {', '.join(sizes)}; choose by data.split."
        )
    test = reading.test_split
    if test is None and "test" not in train and sizes.get("test"):
        test = "test"
    chosen = {"data.split": train} | ({} if test is None else {"data.test_split": test})
    found = {key: _spans(name, info, key, split) for key, split in chosen.items()}
    if test is None and _total(found["data.split"]) < 2:
        raise InputError(f"data set {name!r} has one example only; at least two are needed.")
    if test is not None and _overlap(*found.values()):
        raise InputError(
            f"data.split={train!r} and data.test_split={test!r} of data set {name!r} share "
            "examples: what is tested on must not be trained on."
        )
    return list(chosen.values())


_Spans = dict[str, list[range]]


def _spans(name: str, info: tfds.core.DatasetInfo, key: str, split: str) -> _Spans:
    """The examples of a split, as places in each file."""
    try:
        instructions = info.splits[split].file_instructions
    except Exception as error:  # TFDS raises whatever its parser meets
        raise InputError(
            f"{key}={split!r} is no split of data set {name!r} ({first_line(error)}): it has "
            f"{', '.join(info.splits)}, and parts of them such as 'train[:90%]'."
        ) from error
    spans: _Spans = {}
    for part in instructions:
        spans.setdefault(part.filename, []).append(range(part.skip, part.skip + part.take))
    if not _total(spans):
        raise InputError(f"{key}={split!r} of data set {name!r} leaves no example.")
    return spans


def _total(spans: _Spans) -> int:
    return sum(len(span) for part in spans.values() for span in part)


def _overlap(one: _Spans, other: _Spans) -> bool:
    return any(
        max(a.start, b.start) < min(a.stop, b.stop)
        for file in one.keys() & other.keys()
        for a in one[file]
        for b in other[file]
    )


def _fingerprint(info: tfds.core.DatasetInfo, metadata: SetMetadata | None) -> str:
    """What tells the content of a set from another: the hashes that fmjax wrote, else the sizes."""
    splits = {s: [info.splits[s].num_examples, info.splits[s].num_bytes] for s in info.splits}
    content = splits if metadata is None else [metadata.content, metadata.codec]
    text = json.dumps([sorted(info.features), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_format(name: str, folder: Path) -> None:
    try:
        formats = check_stored(folder)
    except (InputError, OSError) as error:
        raise _damaged(name, folder, error) from error
    if directory.FORMAT not in formats:
        root = folder.parents[1 + name.count("/")]
        command = f"{directory.prepare_command(name, root)} --overwrite"
        raise InputError(
            f"data set {name!r} in {folder} is stored as {formats[0]}, which only TensorFlow "
            f"reads; if it is a public set, write it again as ArrayRecord with `{command}` (needs "
            "the network, and tensorflow-cpu installed for this one step), else import its images "
            f"with `{command} --source=PATH`."
        )


def _damaged(name: str, folder: Path, error: Exception) -> InputError:
    return InputError(
        f"data set {name!r} in {folder} cannot be read ({first_line(error)}); delete "
        "that folder and prepare the set again."
    )
