"""A pytest plugin that holds every call to its signature: the shapes and dtypes in it are true.

    python -m pytest -p tests.signature_checker -m "not slow"

jaxtyping checks a call twice: its arguments before it, and its arguments with its result after it.
Only the second is wanted here. A call that is refused keeps its own error, which other tests read;
a call that returns must have had the arguments that its signature promises, and such a result.
Functions that begin with an underscore may be on the way to a refusal, and are left alone, as are
annotations that say nothing of shapes: type checkers read those.
"""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import jaxtyping
import numpy as np
import typeguard

_UNIONS = (typing.Union, types.UnionType)
_HOLDING = (*_UNIONS, tuple, list, dict)


def check(function: Callable) -> Callable:
    """The function under typeguard, where jaxtyping gives it the result as one more argument."""
    names = inspect.signature(function).parameters
    own = function.__name__.startswith("_") and not function.__name__.startswith("__")
    if own or not any(name.startswith("ret") for name in names):
        return function
    hints = function.__annotations__.items()
    function.__annotations__ = {
        name: _checked(hint) if _has_shape(hint) else Any for name, hint in hints
    }
    return typeguard.typechecked(function)


def _has_shape(hint: Any) -> bool:
    """Whether an annotation is an array's, or holds one in a union, a tuple, a list, a dict."""
    if typing.get_origin(hint) in _HOLDING:
        return any(map(_has_shape, typing.get_args(hint)))
    return inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)


def _checked(hint: Any) -> Any:
    """The annotation with numpy's arrays where it has jax's: functions of jax take both.

    A named tuple is one by its class alone: typeguard would hold its fields to the axes outside.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if not _has_shape(hint):
        return tuple if inspect.isclass(hint) and hasattr(hint, "_fields") else hint
    if origin in _UNIONS:
        return typing.Union[tuple(map(_checked, parts))]  # noqa: UP007
    if origin in _HOLDING:
        return origin[tuple(map(_checked, parts))]
    if hint.array_type is jax.Array:
        return typing.Union[hint, hint.dtype[np.ndarray, hint.dim_str]]  # noqa: UP007
    return hint


jaxtyping.install_import_hook("fmjax", f"{__name__}.{check.__name__}")
