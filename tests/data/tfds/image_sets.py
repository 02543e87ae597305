"""Sets of random images, written and compared by the tests of the sets on disk."""

import json

import numpy as np
import tensorflow_datasets as tfds

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Pixels
from fmjax.data.load import load
from fmjax.data.own import OwnData
from fmjax.data.tfds.example_set import quiet, write_set

RNG = np.random.default_rng(0)


def examples(n, shape=(4, 5, 3), classes=3):
    """Random images with their labels, or None."""
    images = RNG.integers(0, 256, size=(n, *shape), dtype=np.uint8)
    labels = [None] * n if classes is None else (np.arange(n) % classes).tolist()
    return list(zip(images, labels, strict=True))


def own_images(train, test, names, shape):
    """Pairs of image and label as `write_set` takes them."""

    def part(pairs):
        return [{"x": x} if label is None else {"x": x, "label": label} for x, label in pairs]

    conditions = {} if names is None else {"label": ClassIds(len(names), names=tuple(names))}
    return OwnData(Pixels(tuple(shape)), conditions, part(train), test and part(test))


def write_images(name, data_dir, train, test, names, shape, **options):
    """Writes pairs of image and label as a set; returns its folder."""
    return write_set(name, data_dir, own_images(train, test, names, shape), **options)


def write(data_dir, name="blobs", train=12, test=6, shape=(4, 5, 3), classes=3, **options):
    """Writes a set; returns its folder and the examples of both splits."""
    train, test = examples(train, shape, classes), examples(test, shape, classes) if test else None
    names = None if classes is None else [f"kind {k}" for k in range(classes)]
    folder = write_images(name, data_dir, train, test, names, shape, **options)
    return folder, train, test


def multiset(images, labels):
    """The examples in an order of their own, to be compared."""
    labels = [None] * len(images) if labels is None else labels
    return sorted((x.tobytes(), y) for x, y in zip(images, labels, strict=True))


def rewrite(path, **changes):
    """Changes some keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class Odd(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set whose features and splits the test chooses."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def __init__(self, *, features, splits, example, **kwargs):
        self._features, self._named, self._example = features, splits, example
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(self._features)
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in self._named}

    def _generate_examples(self):
        yield 0, self._example


def odd(data_dir, features, example, splits=("train",)):
    """Writes a set of these features by TFDS alone, and opens it."""
    with quiet():
        Odd(
            features=features, splits=splits, example=example, data_dir=data_dir
        ).download_and_prepare()
    return load("odd")
