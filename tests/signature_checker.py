"""A pytest plugin that holds every call to its signature: the shapes and dtypes in it are true.

    python -m pytest -p tests.signature_checker -m "not slow"

jaxtyping checks a call twice: its arguments before it, and its arguments with its result after it.
Only the second is wanted here. A call that is refused keeps its own error, which other tests read;
a call that returns must have had the arguments that its signature promises, and such a result.
Functions that begin with an underscore may be on the way to a refusal, and are left alone.
"""

import collections.abc
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
import typeguard


def check(function: Callable) -> Callable:
    """The function under typeguard, where jaxtyping gives it the result as one more argument."""
    names = inspect.signature(function).parameters
    own = function.__name__.startswith("_") and not function.__name__.startswith("__")
    of_linen = "parent" in names  # a module looks at its fields when it is called
    has_result = any(name.startswith("ret") for name in names)
    return typeguard.typechecked(function) if has_result and not (own or of_linen) else function


def check_callable(name: str, value: Any, expected: Any, memo: Any) -> None:
    """Refuses what cannot be called with so many arguments.

    typeguard's own check leaves out the arguments that have a default.
    """
    del memo
    if not callable(value):
        raise TypeError(f"{name} must be a callable; got {value!r:.60}")
    wanted = typing.get_args(expected)
    try:
        signature = inspect.signature(value)
    except ValueError:  # a function of C, which does not tell
        return
    if wanted and wanted[0] is not Ellipsis:
        signature.bind(*wanted[0])


for kind in (typing.Callable, collections.abc.Callable):
    typeguard.origin_type_checkers[kind] = check_callable
jaxtyping.install_import_hook("fmjax", f"{__name__}.{check.__name__}")
