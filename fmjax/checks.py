"""Checks of numbers and of names: each raises a sentence with what was expected and what came."""

import math
import numbers
import unicodedata
from collections.abc import Iterable

from fmjax.errors import InputError, unknown_name

FLOAT32_MAX = (2 - 2**-23) * 2.0**127


def is_number(value: object) -> bool:
    """Whether a value is one real number: of Python, of numpy, or an array of shape ()."""
    if isinstance(value, numbers.Real):
        return True
    real = getattr(getattr(value, "dtype", None), "kind", "") in "iuf" and hasattr(value, "shape")
    return real and value.shape == ()  # type: ignore[attr-defined]


def check_name(kind: str, name: object, known: Iterable[str]) -> None:
    """Checks that a name is one of those that exist.

    Args:
        kind: what the name should have named, e.g. ``"solver"``.
        name: what came in.
        known: the names that exist.

    Raises:
        InputError: it is none of them; they are listed, the nearest first.
    """
    if not (isinstance(name, str) and name in known):
        raise unknown_name(kind, name, known)


def check_positive(what: str, value: float, *, advice: str = "") -> None:
    """Checks that a parameter is a positive number.

    Args:
        what: the parameter, as the message names it.
        value: what came in.
        advice: a sentence that says what to write instead, for the end of the message.

    Raises:
        InputError: it is 0, negative, infinite or NaN.
    """
    if not (is_number(value) and math.isfinite(value) and value > 0):
        raise _refusal(what, "be a positive number", value, advice)


def check_at_least(what: str, value: int, least: int = 1, *, advice: str = "") -> int:
    """Checks that a parameter is a whole number, of Python or numpy, and not too small.

    Args:
        what: as in `check_positive`.
        value: as in `check_positive`.
        least: the smallest number that is right.
        advice: as in `check_positive`.

    Returns:
        The number as one of Python, for what goes into JSON or is static under jit.

    Raises:
        InputError: it is a bool, a float or of another type, or below ``least``.
    """
    if not _is_whole(value) or value < least:
        raise _refusal(what, f"be a whole number of at least {least}", value, advice)
    return int(value)


def check_between(
    what: str, value: float, low: float, high: float, bounds: str = "[]", *, advice: str = ""
) -> None:
    """Checks that a number lies in an interval.

    Args:
        what: as in `check_positive`.
        value: as in `check_positive`.
        low: the lower end.
        high: the upper end; ``math.inf`` for none.
        bounds: the brackets of the interval, ``"[]"``, ``"[)"``, ``"(]"`` or ``"()"``: a square one
            where the end belongs to it.
        advice: as in `check_positive`.

    Raises:
        InputError: it lies outside, or is NaN.

    Example:
        >>> check_between("ema", 1.0, 0, 1, "[)")
        Traceback (most recent call last):
        fmjax.errors.InputError: ema must lie in [0, 1); got 1.0.
    """
    inside = is_number(value)
    if inside:
        above = low <= value if bounds[0] == "[" else low < value
        inside = above and (value <= high if bounds[1] == "]" else value < high)
    if not inside:
        interval = f"{bounds[0]}{low:.10g}, {high:.10g}{bounds[1]}"
        raise _refusal(what, f"lie in {interval}", value, advice)


def check_flag(what: str, value: bool) -> None:
    """Checks that a parameter is True or False: any text would count as True.

    Args:
        what: as in `check_positive`.
        value: as in `check_positive`.

    Raises:
        InputError: it is neither.
    """
    if not (isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"):
        raise _refusal(what, "be True or False", value)


def check_multiple(what: str, value: int, parts: int, of: str) -> None:
    """Checks that a number splits into equal parts.

    Args:
        what: as in `check_positive`.
        value: as in `check_positive`.
        parts: the number of parts.
        of: what the parts are, as the message names them.

    Raises:
        InputError: it does not; the nearest multiples are named.
    """
    if rest := value % parts:
        near = " or ".join(str(n) for n in (value - rest, value - rest + parts) if n)
        raise _refusal(what, f"be a multiple of {parts} ({of})", value, f"Write {near}.")


def check_methods(what: str, value: object, *methods: str, such_as: str) -> None:
    """Checks that an object can do what is asked of it, and is no class in its place.

    Args:
        what: the argument, as the message names it.
        value: what came in.
        *methods: what it must have; none for something that must be called itself.
        such_as: an example that is right, as one would write it.

    Raises:
        InputError: it is a class, or lacks a method.
    """
    if isinstance(value, type):
        raise InputError(f"{what} is the class {value.__name__}; write {value.__name__}(...).")
    missing = [name for name in methods if not hasattr(value, name)]
    if missing or not (methods or callable(value)):
        needed = f"an object with {', '.join(methods)}" if methods else "a function"
        raise InputError(f"{what} must be {needed}, such as {such_as}; got {value!r}.")


def check_seed(value: int, what: str = "the seed") -> int:
    """Checks a seed of ``jax.random.key``, which takes a larger one modulo 2^32 and says nothing.

    Args:
        value: as in `check_positive`.
        what: as in `check_positive`.

    Returns:
        As `check_at_least`.

    Raises:
        InputError: it is no whole number, negative, or 2^32 or more.
    """
    if not _is_whole(value) or not 0 <= value < 2**32:
        raise _refusal(what, "be a whole number from 0 to 2^32 - 1", value)
    return int(value)


def check_finite_number(what: str, value: float) -> None:
    """Checks that a number is finite, in float32 as well.

    Args:
        what: as in `check_positive`.
        value: as in `check_positive`.

    Raises:
        InputError: it is infinite or NaN, or too large for float32, in which it is taken.
    """
    if not (is_number(value) and abs(value) <= FLOAT32_MAX):
        raise _refusal(what, "be a finite number", value)


def check_utf8(what: str, text: str) -> None:
    """Checks that a text can be written: the name of a file may be bytes that are no UTF-8.

    Args:
        what: as in `check_positive`.
        text: what came in.

    Raises:
        InputError: it cannot.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{what} {text!a} is not UTF-8; rename the file that it names.")
    if "\0" in text:
        raise InputError(f"{what} {text!a} has a null character, which no name of a file holds.")


def check_given(what: str, value: object) -> None:
    """Checks that a value is no empty text: a path would be the current folder, or the usual one.

    Args:
        what: as in `check_positive`.
        value: what came in.

    Raises:
        InputError: it is.
    """
    if value == "":
        raise InputError(f"{what} is empty; give a value, or leave it out.")


def check_class_names(names: Iterable[str]) -> None:
    """Checks that names of classes stay as they are in a set, a UTF-8 file of one name a line.

    Args:
        names: what came in.

    Raises:
        InputError: one is no such name, or is there twice.
    """
    seen = set()
    for name in names:
        if not name or name != name.strip() or any(map(_ends_line, name)):
            raise InputError(
                f"the class name {name!a} cannot be kept exactly: it must be UTF-8 and not empty, "
                "without spaces at its ends, line ends and control characters; rename it."
            )
        if name in seen:
            raise InputError(f"the class name {name!r} is there twice; names must differ.")
        seen.add(name)


def _ends_line(letter: str) -> bool:
    """Control characters, surrogates, and the separators of lines and paragraphs."""
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _refusal(what: str, expected: str, value: object, advice: str = "") -> InputError:
    return InputError(f"{what} must {expected}; got {value!r}.{advice and ' ' + advice}")
