"""Keys of a configuration: each declared once, with default, range, unit and help.

A range is written as mathematics writes it, ``"[0, 1)"`` or ``"0 or [2, inf)"``. The same
declaration makes the default configuration, checks what a user writes, and prints the list of keys.
"""

import numbers
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fmjax.errors import InputError

TEXT = "a text"
NAME = "a name"
"""Checked where it is looked up: it may be ``package.module:Name``, an object of the user's own."""

_INT32_MAX = 2**31 - 1  # jax counts in int32


class Key(NamedTuple):
    """One key.

    Attributes:
        default: its value where nothing is said; None where something else decides.
        range: an interval, numbers and intervals joined by "or", a tuple of the words to choose
            from, `NAME` or `TEXT`; "" for a bool.
        help: what it is, as a phrase.
        unit: of a number.
        kind: the type of the values of a key whose default is None.
    """

    default: Any
    range: str | tuple[str, ...]
    help: str
    unit: str = ""
    kind: type | None = None

    @property
    def value_type(self) -> type:
        """The type of its values, None aside."""
        return self.kind or type(self.default)

    def expected(self) -> str:
        """What its values are, to follow "must be"."""
        if self.value_type is bool:
            return "True or False"
        if isinstance(self.range, tuple):
            return f"one of {', '.join(self.range)}"
        if self.value_type is str:
            return self.range
        number = "a whole number" if self.value_type is int else "a number"
        if " or " not in self.range:
            return f"{number} in {self.range}"
        return f"{number}, {self.range.replace('or ', 'or in ')}"

    def refusal(self, value: Any) -> str:
        """Why a value is not one of this key; "" for one that is."""
        if value is None:
            return "" if self.default is None else "got None"
        if not self._holds(value):
            return f"got {value!r}"
        if self.value_type is float and not self._contains(near := _in_float32(value)):
            return f"got {value!r}, which is {near!r} in float32"
        return ""

    def _holds(self, value: Any) -> bool:
        if self.value_type in (bool, str):
            words = self.range if isinstance(self.range, tuple) else None
            return isinstance(value, self.value_type) and (value in words if words else value != "")
        number: Any = numbers.Integral if self.value_type is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number):
            return False
        if self.value_type is int and "inf" in self.range and value > _INT32_MAX:
            return False
        return self._contains(value)

    def _contains(self, value: Any) -> bool:
        """Whether a number lies in a range such as ``"0 or [2, inf)"``; NaN lies in none."""
        return any(_in_part(part, value) for part in str(self.range).split(" or "))


class Group:
    """Keys under one name.

    Attributes:
        help: what they are about, as a phrase.
        keys: by their names.
    """

    def __init__(self, help: str, **keys: Key) -> None:
        self.help = help
        self.keys = keys


Groups = Mapping[str, Group]


def walk(groups: Groups) -> Iterator[tuple[str, Key]]:
    """Every key under its dotted name."""
    for group, members in groups.items():
        for name, key in members.keys.items():
            yield f"{group}.{name}", key


def check_keys(groups: Groups, values: Any) -> None:
    """Checks all values at once.

    Args:
        groups: the declarations.
        values: by group and key, a mapping of mappings or a ``ConfigDict``.

    Raises:
        InputError: some lie outside their ranges; each is named, with what it must be.
    """
    wrong = []
    for dotted, key in walk(groups):
        group, name = dotted.split(".")
        if name not in values.get(group, {}):
            wrong.append(f"{dotted} ({key.help}) must be {key.expected()}; it is missing.")
        elif why := key.refusal(values[group][name]):
            wrong.append(f"{dotted} ({key.help}) must be {key.expected()}; {why}.")
    if wrong:
        raise InputError(" ".join(wrong))


def describe_keys(groups: Groups) -> str:
    """The list of keys for a terminal, in groups."""
    lines = []
    for group, members in groups.items():
        lines += ["", f"{group}: {members.help}"]
        for name, key in members.keys.items():
            unit = f", {key.unit}" if key.unit else ""
            lines.append(f"  {group}.{name}={key.default}    {key.expected()}{unit}")
            lines.append(f"      {key.help}")
    return "\n".join(lines[1:])


def table_of_keys(group: Group) -> str:
    """The keys of a group as a table of Markdown."""
    rows = [("key", "default", "range", "unit", "what it is"), ("---",) * 5]
    rows += [
        (f"`{name}`", f"`{key.default}`", key.expected(), key.unit, key.help)
        for name, key in group.keys.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _in_float32(value: float) -> float:
    """The number that the mathematics takes it for."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(value))


def _in_part(part: str, value: float) -> bool:
    if part[0] not in "[(":
        return value == float(part)
    low, high = map(float, part[1:-1].split(","))
    above = low <= value if part[0] == "[" else low < value
    return above and (value <= high if part[-1] == "]" else value < high)
