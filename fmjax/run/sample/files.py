"""The files of a sample run: ``samples.npz``, or shards beside ``samples.json``; ``grid.png``.

The manifest says what the shards are to hold, so that the same command goes on where it was
stopped and another one is refused. All shards in numpy, in order:

    parts = [np.load(path) for path in sorted(pathlib.Path("out").glob("samples-*.npz"))]
    samples = np.concatenate([part["samples"] for part in parts])
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fmjax.errors import InputError
from fmjax.factory import DataSpec, Recipe
from fmjax.files import check_space, check_writable, differences, whole_file, write_json
from fmjax.run.pictures import save_samples
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request
from fmjax.run.sample.sampler import SampleBatch
from fmjax.run.workdir import versions
from fmjax.storage.fingerprint import fingerprint

WHOLE = "samples.npz"
MANIFEST = "samples.json"
PICTURE = "grid.png"
TRAJECTORY = "trajectory.gif"
_PICTURED = 100  # samples in the picture; points need more to show their shape
_PICTURED_POINTS = 5000
_SHARDS = "samples-*-of-*.npz*"  # a killed job may leave half of one, .npz.tmp
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

    def check(self, spec: DataSpec) -> None:
        """Checks, on one process, that the folder takes the samples.

        Raises:
            InputError: it holds other samples, cannot be written, or is too full.
        """
        resumed = self.shard_size and (self.out / MANIFEST).exists()
        found = [path for path in self._earlier() if path.exists()]
        if found and not (self.overwrite or resumed):
            raise InputError(
                f"{self.out} already has {found[0].name}; give another --out, or --overwrite."
            )
        check_writable(self.out, "--out")
        missing = sum(
            len(rows)
            for path, rows in zip(self.paths, self.spans, strict=True)
            if self.overwrite or not path.exists()
        )
        row = math.prod(spec.shape) * sample_dtype(spec).itemsize + np.int32().itemsize
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
            kept = {self.out / name for name in (PICTURE, TRAJECTORY)} | set(
                () if self.shard_size else self.paths
            )
            for path in self._earlier():
                if path not in kept:
                    path.unlink(missing_ok=True)
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

    def _earlier(self) -> list[Path]:
        """What an earlier run may have left here, the manifest first."""
        names = (MANIFEST, WHOLE, PICTURE, TRAJECTORY)
        return [self.out / name for name in names] + sorted(self.out.glob(_SHARDS))


def sample_dtype(spec: DataSpec) -> np.dtype:
    """Of the samples: uint8 images, float32 points."""
    return np.dtype(np.uint8 if spec.is_image else np.float32)


def manifest_of(flow: TrainedFlow, request: Request, recipe: Recipe, shard_size: int) -> dict:
    """All that decides what the samples are, and the versions that drew them, for JSON."""
    spec = flow.experiment.spec
    return {
        "run": flow.workdir.name,
        "step": flow.step,
        "parameters": int(fingerprint(flow.params)),
        "num": request.num,
        "shard_size": shard_size,
        "seed": request.seed,
        "labels": request.labels,
        "w": request.w,
        "guidance": recipe.guidance and recipe.guidance._asdict(),
        "solver": recipe.solver.describe(),
        "shape": spec.shape,
        "dtype": sample_dtype(spec).name,
        "versions": versions(),
    }


def write_file(
    path: Path, rows: range, flow: TrainedFlow, request: Request, parts: Iterable[SampleBatch]
) -> int:
    """Writes some samples of a request into one file, whole or not there.

    Returns:
        The velocity evaluations of all of them.
    """
    parts = list(parts)
    samples = np.concatenate([part.samples for part in parts])
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, samples=samples, labels=_labels(flow, request, rows))
    return sum(int(part.nfe.sum()) for part in parts)


def _labels(flow: TrainedFlow, request: Request, rows: range) -> np.ndarray:
    """The labels that were asked for, -1 where none was."""
    if request.labels is None:
        return np.full(len(rows), -1, np.int32)
    return request.rows(flow.experiment.null_label, rows.start, len(rows))[1]


def write_picture(target: SampleFiles, flow: TrainedFlow, request: Request) -> None:
    """Shows the first samples, as they lie on disk."""
    num = min(target.num, _PICTURED if flow.experiment.spec.is_image else _PICTURED_POINTS)
    samples = first_samples(target, num)
    shown = None if request.labels is None else _labels(flow, request, range(num))
    save_samples(samples, request.columns, shown, target.out / PICTURE)


def first_samples(target: SampleFiles, num: int) -> np.ndarray:
    """The first samples of a run, from its files; no file after them is read."""
    needed = [
        path for path, rows in zip(target.paths, target.spans, strict=True) if rows.start < num
    ]
    parts = []
    for path in needed:
        with np.load(path) as content:
            parts.append(content["samples"][:num])
    return np.concatenate(parts)[:num]
