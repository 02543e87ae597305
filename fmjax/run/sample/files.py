"""The files of a sample run: ``samples.npz``, or shards beside ``samples.json``; ``grid.png``.

Of texts ``samples.txt`` stands in the place of the picture.

The manifest says what the shards are to hold, so that the same command goes on where it was
stopped and another one is refused. All shards in numpy, in order:

    parts = [np.load(path) for path in sorted(pathlib.Path("out").glob("samples-*.npz"))]
    samples = np.concatenate([part["samples"] for part in parts])
"""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from fmjax import plots
from fmjax.data.token_codecs import Text
from fmjax.errors import InputError
from fmjax.factory import DataSpec, Recipe
from fmjax.files import check_space, check_writable, whole_file, write_json
from fmjax.folders import check_no_links, finish_removal, lock_folder, remove_content
from fmjax.json_files import differences
from fmjax.machine import check_memory
from fmjax.names import named_leaves
from fmjax.npz import read_arrays
from fmjax.run.pictures import (
    captions_of,
    draw_picture,
    is_shown,
    pictured,
    row_captions_of,
    shown_classes,
)
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request
from fmjax.run.sample.sampler import SampleBatch
from fmjax.run.texts import write_texts
from fmjax.run.workdir import versions
from fmjax.storage.fingerprint import fingerprint

WHOLE = "samples.npz"
MANIFEST = "samples.json"
PICTURE = "grid.png"
TEXTS = "samples.txt"
TRAJECTORY = "trajectory.gif"
TRAJECTORY_OF_TEXTS = "trajectory.txt"
_SHOWN = (PICTURE, TEXTS, TRAJECTORY, TRAJECTORY_OF_TEXTS)
_IMAGES, _VECTORS = 100, 5000  # samples in the picture
CONTENT = {re.escape(name): "" for name in (MANIFEST, WHOLE, *_SHOWN)} | {
    r"samples-\d+-of-\d+[.]npz": ""
}
"""What a sample run makes in its folder."""
_RESERVED = ("samples", "w", "seed", "solver")  # arrays of a file that are no conditions
_MOST = 100_000  # files in a folder
_MAY_DIFFER = ("run", "versions")  # the same parameters are the same wherever they lie


class SampleFiles(NamedTuple):
    """Where the samples of a run go.

    Attributes:
        out: the folder.
        num: how many samples.
        shard_size: samples in a shard, but for a smaller last one; 0 for a single file.
        overwrite: whether samples that are there already are replaced.
    """

    out: Path
    num: int
    shard_size: int = 0
    overwrite: bool = False

    @property
    def spans(self) -> list[range]:
        """The numbers of the samples in each file."""
        size = self.shard_size or self.num
        return [range(i, min(i + size, self.num)) for i in range(0, self.num, size)]

    @property
    def paths(self) -> list[Path]:
        """Where each file lies once it is whole."""
        if not self.shard_size:
            return [self.out / WHOLE]
        count = len(self.spans)
        return [self.out / f"samples-{k:05d}-of-{count:05d}.npz" for k in range(count)]

    def claim(self, spec: DataSpec) -> IO | None:
        """Makes the folder this run's own, on one process, and checks that it takes the samples.

        Returns:
            An open file that keeps other processes out; close it when the samples are written.

        Raises:
            InputError: there are too many files, or the folder holds other samples, cannot be
                written, is in use, is too full, or has links in it.
        """
        if self.shard_size and -(-self.num // self.shard_size) > _MOST:
            raise InputError(
                f"{self.num} samples in shards of {self.shard_size} make more than {_MOST} files; "
                f"write --shard_size={-(-self.num // _MOST)} or more."
            )
        check_writable(self.out, "--out")
        lock = lock_folder(self.out, "--out")
        try:
            check_no_links(self.out, CONTENT, "--out")
            finish_removal(self.out, CONTENT)
            self._check_content()
            self._check_space(spec)
        except BaseException:
            if lock is not None:
                lock.close()
            raise
        return lock

    def _check_content(self) -> None:
        resumed = self.shard_size and (self.out / MANIFEST).exists()
        found = [path.name for path in sorted(self.out.iterdir()) if _is_ours(path.name)]
        if found and not (self.overwrite or resumed):
            first = min(found, key=lambda name: (name != MANIFEST, name != WHOLE, name))
            raise InputError(f"{self.out} already has {first}; give another --out, or --overwrite.")

    def _check_space(self, spec: DataSpec) -> None:
        codec = spec.codec
        row = math.prod(codec.data_shape) * codec.data_dtype.itemsize + np.int32().itemsize
        missing = self.num
        if self.shard_size and not self.overwrite:
            missing -= sum(
                len(rows)
                for path, rows in zip(self.paths, self.spans, strict=True)
                if path.exists()
            )
        if not self.shard_size:  # as a list of batches and as one array
            check_memory(
                2 * missing * row, "the samples in one file", "write --shard_size=1024, say"
            )
        advice = "free some space, lower --num, or give another --out"
        check_space(self.out, missing * row, "the samples", advice)

    def begin(self, content: dict) -> None:
        """Says, on one process, what the shards are to hold; a second time checks that it agrees.

        Args:
            content: from `manifest_of`.

        Raises:
            InputError: the folder holds the shards of another request.
        """
        manifest = self.out / MANIFEST
        if self.overwrite:  # a single file is replaced by a whole one, as the pictures are
            kept = set() if self.shard_size else {re.escape(n) for n in (WHOLE, *_SHOWN)}
            remove_content(self.out, {name: "" for name in CONTENT if name not in kept})
        if not self.shard_size:
            return
        try:
            changed = differences(manifest, content, _MAY_DIFFER)
        except ValueError as error:
            raise InputError(
                f"{manifest} cannot be read ({error}); give another --out, or --overwrite."
            ) from error
        if changed:
            raise InputError(
                f"{self.out} holds other samples, with {', '.join(changed)}; ask for the same "
                "ones, give another --out, or --overwrite."
            )
        if not manifest.exists():
            write_json(manifest, content)


def _is_ours(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in CONTENT)


def manifest_of(flow: TrainedFlow, request: Request, recipe: Recipe, shard_size: int) -> dict:
    """All that decides what the samples are, and the versions that drew them, for JSON."""
    codec = flow.experiment.spec.codec
    own: dict[str, Any] = {} if request.x0 is None else {"x0": int(fingerprint(request.x0))}
    if (recipe.t0, recipe.t1) != (0, 1):
        own |= {"t0": recipe.t0, "t1": recipe.t1}
    return own | {
        "run": flow.workdir.name,
        "step": flow.step,
        "parameters": int(fingerprint(flow.params)),
        "num": request.num,
        "shard_size": shard_size,
        "seed": request.seed,
        "labels": _written_labels(request),
        "w": request.w,
        "guidance": recipe.guidance and recipe.guidance._asdict(),
        "solver": recipe.solver.describe(),
        "shape": codec.data_shape,
        "dtype": codec.data_dtype.name,
        "versions": versions(),
    }


def _written_labels(request: Request) -> Any:
    """What the samples are drawn under, for JSON: class ids, or a fingerprint of other conditions.

    A fingerprint, because the conditions of a thousand examples do not belong into a manifest.
    """
    if request.labels is None or isinstance(request.labels, tuple):
        return request.labels
    return int(fingerprint(request.labels))


def write_file(
    path: Path,
    rows: range,
    flow: TrainedFlow,
    request: Request,
    recipe: Recipe,
    parts: Iterable[SampleBatch],
) -> int:
    """Writes some samples of a request into one file, whole or not there.

    Returns:
        The velocity evaluations of all of them.
    """
    parts = list(parts)
    samples = np.concatenate([part.samples for part in parts])
    how: dict[str, Any] = {
        "seed": np.uint32(request.seed),
        "solver": json.dumps(recipe.solver.describe()),
    }
    asked = _asked(flow, request, rows)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, samples=samples, **asked, **how)
    return sum(int(part.nfe.sum()) for part in parts)


def _asked(flow: TrainedFlow, request: Request, rows: range) -> dict[str, Any]:
    """The conditions by name and the guidance scales; ``labels`` is -1 where none was asked."""
    _, labels, w = request.rows(flow.experiment.conditions, rows.start, len(rows))
    if request.labels is None:
        return {"w": w, "labels": np.full(len(rows), -1, np.int32)}
    named = named_leaves(labels)
    return {"w": w} | {_written_name(name): x for name, x in named.items()}


def _written_name(condition: str) -> str:
    """That of the condition, unless something else in the file has it."""
    return f"labels/{condition}" if condition in _RESERVED else condition


def write_picture(target: SampleFiles, flow: TrainedFlow, request: Request) -> None:
    """Shows the first samples, as they lie on disk, where such data are shown."""
    codec = flow.experiment.spec.codec
    if not is_shown(codec):
        return
    num = min(target.num, pictured(codec, _IMAGES, _VECTORS))
    if isinstance(codec, Text):
        write_texts(codec, first_samples(target, num), target.out / TEXTS)
        return
    classes = shown_classes(flow.experiment, request, num)
    columns = request.columns
    captions = captions_of(flow.experiment, request, columns)
    scales = row_captions_of(request, columns, num)
    samples = first_samples(target, num)
    picture = draw_picture(codec, samples, columns, classes, captions, scales)
    plots.save_png(picture, target.out / PICTURE)


def first_samples(target: SampleFiles, num: int) -> Shaped[np.ndarray, "n ..."]:
    """The first samples of a run, from its files; no file after them is read."""
    needed = [
        path for path, rows in zip(target.paths, target.spans, strict=True) if rows.start < num
    ]
    return np.concatenate([read_arrays(path)["samples"][:num] for path in needed])[:num]


def is_whole(path: Path, rows: range, spec: DataSpec) -> bool:
    """Whether a file has all its samples, as their lengths and checksums in it say.

    Args:
        path: of a shard.
        rows: the numbers of its samples.
        spec: of the data.
    """
    codec = spec.codec
    try:
        samples = read_arrays(path).get("samples")
    except InputError:
        return False
    expected = ((len(rows), *codec.data_shape), codec.data_dtype)
    return samples is not None and (samples.shape, samples.dtype) == expected
