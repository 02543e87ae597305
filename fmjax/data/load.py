"""Opens a data set by its name: the function that everything else calls."""

import dataclasses
import os
from pathlib import Path

from fmjax.conditions import ClassIds
from fmjax.data import random_images
from fmjax.data.codecs import Codec, Pixels, Vectors
from fmjax.data.dataset import AS_IT_SAYS, Dataset, Reading
from fmjax.data.points import Points, check_points
from fmjax.data.texts import corpus
from fmjax.data.tfds import directory
from fmjax.data.token_codecs import Levels, Tokens
from fmjax.data.toys import TOYS
from fmjax.errors import InputError, unknown_name
from fmjax.names import load_maker

_LOOKED_AT = 1000  # points of a set of one's own, which nothing has checked yet


def load(
    name: str, data_dir: str | os.PathLike | None = None, reading: Reading = AS_IT_SAYS
) -> Dataset:
    """Opens a data set by name.

    Args:
        name: ``"toy/moons"`` and the like; ``"random/32x32x4/1000"``, images of that shape in so
            many classes with nothing in them to learn; ``"text/romeo_and_juliet"``, see
            `fmjax.data.texts.corpus`; ``"digits"``, the embedded set, prepared on first use; the
            name of a set prepared in the data directory, ``"name"`` or ``"name/config"``; or
            ``"package.module:function"``, a function of your own that gives a `Dataset`.
        data_dir: where the sets lie; None for TFDS's own directory (``TFDS_DATA_DIR``).
        reading: of a prepared set: which features and which splits; see `Reading`.

    Returns:
        The data set. One without a test split gives a fixed tenth of its examples to `test`.

    Raises:
        InputError: for a name that does not exist, a set that is not prepared, or one that cannot
            be read here, or not in this way; the message says how to prepare it and lists the sets
            that are.
    """
    drawn = ("toy/", random_images.PREFIX, corpus.PREFIX)
    prepared = not name.startswith(drawn) and ":" not in name
    if not prepared and reading != AS_IT_SAYS:
        given = [f"data.{key}" for key, x in reading._asdict().items() if x is not None]
        raise InputError(
            f"{', '.join(given)} is for prepared sets, and {name!r} is none: leave it out."
        )
    if name.startswith("toy/"):
        return _load_toy(name)
    if name.startswith(random_images.PREFIX):
        return _load_random(name)
    if name.startswith(corpus.PREFIX):
        return corpus.open_corpus(name)
    if ":" in name:
        return _load_own(name)
    return _load_prepared(name, directory.data_root(data_dir), reading)


def in_levels(dataset: Dataset, levels: int) -> Dataset:
    """A set of images with each pixel as a token; see `fmjax.data.token_codecs.Levels`.

    Raises:
        InputError: its data are no images, or the number of levels does not fit.
    """
    if dataset.codec.kind != Levels.kind:
        raise InputError(
            f"data.levels={levels} makes tokens of the pixels of images, and data set "
            f"{dataset.name!r} has {dataset.codec.kind}: leave it out."
        )
    return dataclasses.replace(dataset, codec=Levels(dataset.codec.shape, levels))


def _load_toy(name: str) -> Dataset:
    if name.removeprefix("toy/") not in TOYS:
        raise unknown_name("toy", name, [f"toy/{known}" for known in TOYS])
    toy = TOYS[name.removeprefix("toy/")]
    codec: Codec = Vectors(2) if toy.vocabulary is None else Tokens((2,), toy.vocabulary)
    if toy.manifold is not None:
        codec = Points(toy.manifold, 2)
    return Dataset(name, codec, _numbered(toy.num_classes), toy=toy)


def _load_random(name: str) -> Dataset:
    shape, classes = random_images.parse_shape(name)
    train = random_images.RandomImages(shape, classes)
    test = dataclasses.replace(train, size=2**13, first=train.size)
    return Dataset(name, Pixels(shape), _numbered(classes), train, test)


def _load_own(name: str) -> Dataset:
    dataset = load_maker("data set", name)()
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"data.name={name!r} must be a function without arguments that gives a "
            f"fmjax.data.dataset.Dataset; it gave a {type(dataset).__name__}."
        )
    if isinstance(dataset.codec, Points):
        check_points(f"data.name={name!r}", dataset.arrays("train", _LOOKED_AT)[0], dataset.codec)
    return dataclasses.replace(dataset, name=name)


def _load_prepared(name: str, root: Path, reading: Reading) -> Dataset:
    # Each of these imports tensorflow_datasets, which is slow and which the sets above do without.
    from fmjax.data.tfds.records import open_set

    found = directory.prepared(root)
    if name == "digits" and name not in found:
        from fmjax.data.tfds.digits import prepare_digits

        found[name] = prepare_digits(root)
    if name not in found:
        raise _not_prepared(name, root, found)
    dataset = open_set(name, found[name], reading)
    # The digits are the same wherever they are prepared, in files that may differ.
    return dataclasses.replace(dataset, fingerprint=None) if name == "digits" else dataset


def _not_prepared(name: str, root: Path, found: dict[str, Path]) -> InputError:
    from fmjax.data.tfds.public import public_names

    always = [*(f"toy/{toy}" for toy in TOYS), *(corpus.PREFIX + text for text in corpus.TEXTS)]
    own = (
        f"`{directory.prepare_command('NAME', root)} --source=PATH` (PATH is a folder of images, "
        f"an .npz, an .npy, a .csv or a .txt). Prepared in {root}: {', '.join(found) or 'none'}. "
        f"Always there: digits, {', '.join(always)}."
    )
    if name.split("/")[0] in public_names():
        return InputError(
            f"data set {name!r} is not prepared: run `{directory.prepare_command(name, root)}` "
            "once (needs the network, and tensorflow-cpu installed for this one step), or import "
            f"your own copy with {own}"
        )
    known = {*found, *always, "digits", "mnist", "cifar10"}
    return InputError(f"{unknown_name('data set', name, known)} Import your own data with {own}")


def _numbered(num_classes: int | None) -> ClassIds | None:
    """Classes that have their numbers for names."""
    if num_classes is None:
        return None
    return ClassIds(num_classes, names=tuple(map(str, range(num_classes))))
