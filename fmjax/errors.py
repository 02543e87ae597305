"""What a user reads when the input is wrong: one sentence, and what to write instead."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class InputError(ValueError):
    """The caller's input is wrong; the message says what came, what was expected, what to write.

    Example:
        >>> Draw(drop_all=2.0)
        Traceback (most recent call last):
        fmjax.errors.InputError: drop_all must lie in [0, 1]; got 2.0.
    """


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that does not exist: it lists the known ones, the nearest first.

    Args:
        kind: what the name should have named, e.g. ``"solver"``.
        name: what came in.
        known: the names that exist.

    Returns:
        An `InputError` to raise.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")


def changed_keys(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """How what is asked differs from what is there: ``"key=stored (asked: ...)"`` for each key."""
    return [
        f"{key}={stored.get(key)!r} (asked: {asked.get(key)!r})"
        for key in dict.fromkeys([*stored, *asked])
        if stored.get(key) != asked.get(key)
    ]
