"""A pytest plugin that holds every call to its signature: the shapes and dtypes in it are true.

    python -m pytest -p tests.signature_checker -m "not slow"

jaxtyping checks a call twice: its arguments before it, and its arguments with its result after it.
Only the second is wanted here. A call that is refused keeps its own error, which other tests read;
a call that returns must have had the arguments that its signature promises, and such a result.
"""

import inspect
from collections.abc import Callable

import jaxtyping
import typeguard


def check(function: Callable) -> Callable:
    """The function under typeguard, where jaxtyping gives it the result as one more argument."""
    has_result = any(name.startswith("ret") for name in inspect.signature(function).parameters)
    return typeguard.typechecked(function) if has_result else function


jaxtyping.install_import_hook("fmjax", f"{__name__}.{check.__name__}")
