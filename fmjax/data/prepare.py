"""Prepares a data set once, so that it trains by name.

Your own images, from a folder of class folders:

    python -m fmjax prepare --name=flowers --source=~/flowers --size=32

Two folders of images in pairs, whose files have the same names: from sketches to photos:

    python -m fmjax prepare --name=photos --source=~/photos --x0=~/sketches --size=32

Your own numbers: a table from a .csv, whose columns are data unless they are said to be conditions;
or an .npz, where x (or images) is the data, x0 beside it the points that it is paired with, weights
how often an example counts, and every other array a condition under its own name. Arrays whose
names end in _test are held out; else a tenth of the examples is.

    python -m fmjax prepare --name=cells --source=cells.csv --condition=tissue,age
    python -m fmjax prepare --name=cells --source=cells.csv --condition=dose:morning,evening

A condition of whole numbers or of texts is a class, one of other numbers a vector; NAME:COLUMN,...
makes one vector of several columns, or gives one column another name.

Points on a manifold, kept as they are: the sphere, torus (angles in radians), so3, hyperbolic, spd,
simplex, and products in slices of the columns, such as so3,euclidean3. The columns latitude and
longitude, in degrees, are places on the sphere:

    python -m fmjax prepare --name=flood --source=flood.csv --manifold=sphere

Your own text, as blocks of characters or, with --bytes, of bytes; or an .npz or .npy of tokens,
whole numbers from 0 to K - 1:

    python -m fmjax prepare --name=letters --source=letters.txt --length=128
    python -m fmjax prepare --name=codes --source=codes.npy --tokens=512

A public set of tensorflow_datasets (needs the network, and TensorFlow for this one step):

    python -m fmjax prepare --name=mnist

A preparation that was stopped goes on when the same command is given again; until it is finished
there is no set of that name.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from fmjax.checks import check_given, check_utf8
from fmjax.data.dataset import Dataset
from fmjax.data.load import load
from fmjax.data.own import LARGE, large_vectors
from fmjax.data.points import space_of
from fmjax.data.read_own import read_own
from fmjax.data.tfds import directory
from fmjax.data.train_command import train_command
from fmjax.errors import InputError
from fmjax.progress_bar import progress_bar


def main(argv: Sequence[str]) -> int:
    """Prepares what the arguments ask for.

    Args:
        argv: the arguments.

    Returns:
        0: nothing stops it halfway, or an error does.

    Raises:
        InputError: a mistake in the arguments, or in what they name.
        OSError: the system does not let a file be read or written.
    """
    options = parser().parse_args(argv)
    for name, given in vars(options).items():
        if given == [] and name != "condition":  # argparse gives this for --name=--
            raise InputError(f"--{name} needs a value; got '--'.")
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, str):
                check_utf8(f"--{name}", value)
                check_given(f"--{name}", value)
    try:
        _prepare(options)
    except KeyboardInterrupt:
        print("the set is not there yet; the same command goes on with it.", file=sys.stderr)
        raise
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are errors like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `fmjax prepare --help` lists the flags.")


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    parser = _Parser(
        prog="python -m fmjax prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--name", required=True, help="what the set will be called")
    add("--source", help="a folder, .npz, .npy, .csv, .txt; without it, a public set is downloaded")
    add("--x0", help="the folder of the images that those of --source are paired with")
    add("--size", type=int, help="resize the shorter side to this and crop the centre (folders)")
    add("--channels", type=int, help="1 (grey) or 3 (colour); default: as the images (folders)")
    add("--test_fraction", type=float, help="share to test on where there is no test part (0.1)")
    add(
        "--condition",
        action="append",
        default=[],
        help="columns of a .csv that are conditions: COLUMN,COLUMN, or NAME:COLUMN,COLUMN for one "
        "vector of several columns; may be given more than once",
    )
    add("--weights", help="the column of a .csv that says how often a row counts")
    add("--tokens", type=int, help="x of an .npz or .npy are tokens from 0 to this, exclusively")
    add("--manifold", help="where x lies: sphere, torus, so3, ..., or so3,euclidean3")
    add("--project", action="store_true", help="move x to the nearest points of --manifold")
    add("--length", type=int, help="how many symbols of a .txt an example has (128)")
    add("--bytes", action="store_true", help="the symbols of a .txt are bytes, not characters")
    add("--data_dir", help="where sets are kept; default: TFDS_DATA_DIR, or TFDS's own")
    add("--overwrite", action="store_true", help="replace a set of that name")
    return parser


def _prepare(options: argparse.Namespace) -> None:
    root = directory.data_root(options.data_dir)
    prepare = _download if options.source is None else _import_own
    folder = prepare(options, root)
    _print_summary(load(options.name, root), folder, options)


def _download(options: argparse.Namespace, root: Path) -> Path:
    # Slow to import, and --help should not wait for it.
    from fmjax.data.tfds.public import prepare_public

    of_own = ("size", "channels", "test_fraction", "condition", "weights", "tokens", "length")
    for name in (*of_own, "x0", "manifold", "project", "bytes"):
        if getattr(options, name) not in (None, False, []):
            raise InputError(f"--{name} needs --source: a public set is stored as it is.")
    return prepare_public(options.name, root, overwrite=options.overwrite)


def _import_own(options: argparse.Namespace, root: Path) -> Path:
    from fmjax.data.tfds.example_set import write_set

    directory.check_new(options.name, root, options.overwrite)
    found = read_own(
        options.source,
        size=options.size,
        channels=options.channels,
        test_fraction=options.test_fraction,
        conditions=options.condition,
        weights=options.weights,
        tokens=options.tokens,
        manifold=options.manifold,
        project=options.project,
        length=options.length,
        by_bytes=options.bytes,
        x0=options.x0,
    )
    folder = write_set(options.name, root, found, overwrite=options.overwrite, watch=_with_bar)
    for name in large_vectors(found):
        print(
            f"the condition {name} has numbers above {LARGE:g}, and networks learn best from "
            "numbers of the order of one: divide it, here and where you ask for samples.",
            file=sys.stderr,
        )
    return folder


def _with_bar(examples: Iterable, split: str, number: int) -> Iterable:
    with progress_bar(number, "examples", f"writing {split}") as bar:
        for example in examples:
            yield example
            bar.update()


def _print_summary(dataset: Dataset, folder: Path, options: argparse.Namespace) -> None:
    """Says what was written and the command that trains on it."""
    what = {"pixels": "images", "text": "texts"}.get(dataset.codec.kind, "examples")
    paired = ", paired with x0" if hasattr(dataset.train, "read_pairs") else ""
    weighted = ", with weights" if getattr(dataset.train, "weights", None) is not None else ""
    train, test = (len(dataset.stored(split)) for split in ("train", "test"))
    space = space_of(dataset.codec)
    where = "" if space is None else f" on {space}"
    print(
        f"{options.name}: {train} train and {test} test {what} of shape "
        f"{dataset.shape}{where}{paired}{weighted}, {_described(dataset)}, in {folder}"
    )
    place = options.data_dir and str(directory.data_root(options.data_dir))
    print(f"Train on it with:\n  {train_command(dataset, place)}")


def _described(dataset: Dataset) -> str:
    """The conditions of a set in words."""
    if dataset.conditions is None:
        return "no classes"
    if dataset.classes is not None:
        return f"{dataset.classes.num_classes} classes"
    kinds = (f"{name} ({one.kind})" for name, one in dataset.conditions.items())
    return f"conditions {', '.join(kinds)}"
