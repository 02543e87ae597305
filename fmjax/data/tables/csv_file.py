"""A table from a ``.csv``: one row a line, separated by commas, its first line the names."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fmjax.data.tables.checks import check_condition_name
from fmjax.data.tables.files import Arrays
from fmjax.errors import InputError, unknown_name
from fmjax.files import first_line

_QUOTED = 30  # letters of a cell that a message shows


def read_csv(path: Path, conditions: Sequence[str] = (), weights: str | None = None) -> Arrays:
    """The columns of a table: those that are conditions under their own names, the others x.

    Args:
        path: of the file, UTF-8.
        conditions: which columns are conditions. ``"age,organ"``: two, called as their columns; of
            whole numbers or of texts they are classes, of other numbers vectors of one number.
            ``"dose:morning,evening"``: one, called dose, a vector of two columns of numbers;
            ``"dose:morning"``: one column under another name.
        weights: which column says how often a row counts; None for none.

    Raises:
        InputError: it cannot be read, a row has another number of cells than the first, a cell is
            empty or no number, or a column is unknown or has two uses.
    """
    names, rows = _read_rows(path)
    groups = _groups(conditions)
    used = [*(one for group in groups.values() for one in group), *([weights] if weights else [])]
    for name in used:
        if name not in names:
            raise unknown_name(f"column of {path}", name, names)
        if used.count(name) > 1:
            raise InputError(
                f"column {name!r} of {path} has two uses: a column is one condition, a part of "
                "one, or the weights."
            )
    columns: dict[str, Sequence[str]] = dict(zip(names, zip(*rows, strict=True), strict=True))
    train = {name: _condition(path, columns, group) for name, group in groups.items()}
    if weights is not None:
        train["weights"] = _numbers(path, weights, columns[weights])
    left = [name for name in names if name not in used]
    if not left:
        raise InputError(f"{path} has no column left that is data: each is a condition or weight.")
    train["x"] = np.stack([_numbers(path, name, columns[name]) for name in left], axis=1)
    called = {name: f"column {', '.join(group)}" for name, group in groups.items()}
    called |= {"x": "the table", "weights": f"column {weights}"}
    return Arrays(path, train, None, called, {"x": left} | groups)


def _groups(conditions: Sequence[str]) -> dict[str, list[str]]:
    """The columns of each condition, by its name."""
    groups: dict[str, list[str]] = {}
    for given in conditions:
        name, colon, listed = given.partition(":")
        new = {name: listed.split(",")} if colon else {one: [one] for one in given.split(",")}
        for name, columns in new.items():
            check_condition_name(f"{name!r} in --condition={given}", name)
            if name in groups:
                raise InputError(f"--condition names {name!r} twice; give each condition one name.")
            groups[name] = columns
    return groups


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names, and the cells of all rows, without spaces around them; empty lines are left out.

    Raises:
        InputError: there are none, or they do not fit together.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a .csv ({first_line(error)}).") from error
    if len(lines) < 2:
        raise InputError(f"{path} has no rows: a line of names and at least two rows are needed.")
    names, *rows = lines
    _check_names(path, names)
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                f"row {number} of {path} (counted from 0, after the names) has {len(row)} cells, "
                f"and there are {len(names)} columns."
            )
    return names, rows


def _check_names(path: Path, names: list[str]) -> None:
    if all(map(_is_number, names)):
        raise InputError(f"the first line of {path} must name the columns; it holds numbers.")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise InputError(f"the cells of {path} must be separated by commas; got {names[0]!r:.60}.")
    for name in names:
        if not name or names.count(name) > 1:
            what = f"two columns named {name!r}" if name else "a column without a name"
            raise InputError(f"{path} has {what}; give each column a name of its own.")


def _condition(path: Path, columns: dict[str, Sequence[str]], group: Sequence[str]) -> np.ndarray:
    """One column: as texts, which name classes, unless its numbers are floats; several: floats."""
    if len(group) > 1:
        return np.stack([_numbers(path, name, columns[name]) for name in group], axis=1)
    (name,) = group
    cells = columns[name]
    if all(map(_is_whole, cells)):
        return np.array([str(int(cell)) for cell in cells])
    if all(map(_is_number, cells)):
        return _numbers(path, name, cells)
    if "" in cells:
        raise _empty(path, name, cells.index(""))
    return np.array(cells)


def _numbers(path: Path, name: str, cells: Sequence[str]) -> np.ndarray:
    try:
        return np.array(cells, np.float64)
    except ValueError as error:
        row = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        if not cells[row]:
            raise _empty(path, name, row) from error
        shown = cells[row][:_QUOTED]
        raise InputError(
            f"column {name!r} of {path} holds text, {shown!r} in row {row}: make it a condition of "
            f"its own with --condition={name}, or leave it out of the file."
        ) from error


def _empty(path: Path, name: str, row: int) -> InputError:
    return InputError(
        f"column {name!r} of {path} is empty in row {row}: fill it in, or leave out that row or "
        "that column."
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_whole(cell: str) -> bool:
    return cell.removeprefix("-").isascii() and cell.removeprefix("-").isdigit()
