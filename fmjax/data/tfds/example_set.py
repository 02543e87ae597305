"""Writes a user's own data as a set of tensorflow_datasets, without TensorFlow.

TFDS needs TensorFlow to encode an image and to write tfrecord files, but not to store ready PNG
bytes, and arrays as their bytes, in ArrayRecord files. What fmjax needs to know beside the features
goes into the set's metadata: see `fmjax.data.tfds.metadata`.
"""

import contextlib
import hashlib
import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped
from PIL import Image

from fmjax.checks import check_class_names
from fmjax.conditions import ClassIds
from fmjax.data.own import Examples, OwnData
from fmjax.data.tfds import directory
from fmjax.data.tfds.kept_parts import Encoded, KeptParts
from fmjax.data.tfds.metadata import KEY, describe_set, feature_name
from fmjax.errors import InputError

_PART = 64  # examples that a thread encodes at a time
Watch = Callable[[Iterable, str, int], Iterable]
"""``watch(examples, split, number)`` gives the examples back, and shows how far they are."""


def write_set(
    name: str,
    data_dir: str | os.PathLike | None,
    own: OwnData,
    *,
    overwrite: bool = False,
    watch: Watch = lambda examples, split, number: examples,
) -> Path:
    """Writes examples as a TFDS set that `load`, or ``tfds.builder(name)``, reads back.

    Nothing appears under the final name before every example has been written. Examples with a
    fingerprint, see `fmjax.data.own.Examples`, are kept until then, so that the same call goes on
    where an earlier one was stopped.

    Args:
        name: lower-case letters, digits and underscores, beginning with a letter.
        data_dir: as in `load`.
        own: the examples and what they are; its test part may be None.
        overwrite: replaces a set of that name, all its versions.
        watch: shows the progress.

    Returns:
        The folder of the set.

    Raises:
        InputError: for a bad name, of the set or of a class, an existing set, an example that is
            not what the codec and the conditions say, or a directory that cannot be written.
    """
    root = directory.data_root(data_dir)
    directory.check_new(name, root, overwrite)
    for condition in own.conditions.values():
        check_class_names(getattr(condition, "names", None) or ())

    kept = KeptParts(root, name)

    def build(scratch: str) -> tfds.core.DatasetBuilder:
        return ExampleSet(name=name, own=own, kept=kept, watch=watch, data_dir=scratch)

    with quiet():
        folder = directory.publish(build, root, replaces=root / name if overwrite else None)
    kept.remove()
    return folder


class ExampleSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder for examples that the caller holds; the set reads back without this class."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded; looking it up needs a package TFDS does not declare

    def __init__(self, *, name: str, own: OwnData, kept: KeptParts, watch: Watch, data_dir: str):
        self.name = name  # of the instance: TFDS would name it after the class
        self._own, self._kept, self._watch = own, kept, watch
        super().__init__(data_dir=data_dir, file_format=directory.FORMAT)

    def _info(self) -> tfds.core.DatasetInfo:
        first = self._own.train[0]
        features = {feature_name(role, first): _feature(role, first, self._own) for role in first}
        labels = list(self._own.conditions)
        lone = len(labels) == 1 and isinstance(self._own.conditions[labels[0]], ClassIds)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=(feature_name("x", first), labels[0]) if lone else None,
            metadata=tfds.core.MetadataDict({KEY: describe_set(self._own, first)}),
        )

    def _split_generators(self, dl_manager):
        parts = {"train": self._own.train, "test": self._own.test}
        return {s: self._generate_examples(s, p) for s, p in parts.items() if p is not None}

    def _generate_examples(self, split: str, examples: Examples):
        like = {name: (np.shape(x), np.asarray(x).dtype) for name, x in self._own.train[0].items()}
        content = hashlib.sha256()

        def encode(part: range) -> Encoded:
            encoded, digest = [], hashlib.sha256()
            for i in part:
                example = {name: np.asarray(x) for name, x in examples[i].items()}
                _check_example(f"example {i} of {split}", example, like, self._own)
                for name, x in sorted(example.items()):
                    digest.update(name.encode() + x.tobytes())
                named = {feature_name(n, example): x for n, x in example.items()}
                encoded.append({name: encode_array(x) for name, x in named.items()})
            return encoded, digest.digest()

        fingerprint = getattr(examples, "fingerprint", None)

        def encode_once(part: range) -> Encoded:
            if fingerprint is None:
                return encode(part)
            return self._kept.take(fingerprint(part), lambda: encode(part))

        def encoded() -> Iterator[dict]:
            for part, digest in _in_threads(encode_once, len(examples)):
                content.update(digest)
                yield from part

        yield from enumerate(self._watch(encoded(), split, len(examples)))
        self.info.metadata[KEY]["content"][split] = content.hexdigest()


def _in_threads(encode: Callable[[range], Any], number: int) -> Iterator[Any]:
    """What `encode` makes of the parts of a range, in order, a few parts ahead of who asks."""
    threads = min(8, os.cpu_count() or 1)
    parts = (range(i, min(i + _PART, number)) for i in range(0, number, _PART))
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(pool.submit(encode, part) for part in itertools.islice(parts, 2 * threads))
        try:
            while ahead:
                done = ahead.popleft().result()
                ahead.extend(pool.submit(encode, part) for part in itertools.islice(parts, 1))
                yield done
        finally:  # somebody stopped asking, or a part failed
            pool.shutdown(cancel_futures=True)


def _feature(role: str, example: dict[str, Any], own: OwnData) -> tfds.features.FeatureConnector:
    x = np.asarray(example[role])
    condition = own.conditions.get(role)
    if isinstance(condition, ClassIds):
        assert condition.names is not None, "classes of the user's own have names"
        return tfds.features.ClassLabel(names=list(condition.names))
    if x.dtype == np.uint8:
        return tfds.features.Image(shape=x.shape, encoding_format="png")
    if role == "weights":
        return tfds.features.Scalar(np.float32)
    # As bytes: thirty times as quick to write, for arrays of thousands of numbers.
    return tfds.features.Tensor(shape=x.shape, dtype=x.dtype, encoding="bytes")


def encode_array(x: Shaped[np.ndarray, "..."]) -> Any:
    """One array as TFDS stores it without TensorFlow: an image of uint8 as PNG bytes.

    Args:
        x: uint8 ``(H, W, 1 or 3)``, or anything that TFDS takes as it is.
    """
    if x.dtype != np.uint8:
        return x if x.ndim else x.item()
    png = io.BytesIO()
    Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x).save(png, "PNG")
    png.seek(0)
    return png


def _check_example(what: str, example: dict, like: dict[str, tuple], own: OwnData) -> None:
    if example.keys() != like.keys():
        raise InputError(f"{what} must have {', '.join(like)}, got {', '.join(example)}.")
    for name, x in example.items():
        shape, dtype = like[name]
        if name in ("x", "x0"):
            shape, dtype = own.codec.data_shape, own.codec.data_dtype
        condition = own.conditions.get(name)
        if isinstance(condition, ClassIds):
            if x.shape != () or x.dtype.kind not in "iu" or not 0 <= x < condition.num_classes:
                last = condition.num_classes - 1
                raise InputError(f"{what} must have a {name} from 0 to {last}, got {x}.")
        elif (x.shape, x.dtype) != (tuple(shape), dtype):
            raise InputError(
                f"{what} must have {name} {dtype} of shape {tuple(shape)}, got {x.dtype} {x.shape}."
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what TFDS announces and its bars, which count shards rather than images."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
