"""Makes signatures.json: the arguments of all public functions and classes that have defaults.

    python -m tests.golden.make_signatures

`tests/test_signatures.py` holds the package to it: another default changes the numbers of every
program that leaves it out, and says nothing. Whoever means to change one runs this again, and says
so in the changelog.
"""

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fmjax

FILE = Path(__file__).resolve().parent / "signatures.json"
COMMANDS = ("fmjax.run", "fmjax.__main__")  # two of them define flags of one name


def modules() -> Iterator[ModuleType]:
    """The modules of the package, but for the commands, which no program imports."""
    for found in pkgutil.walk_packages(fmjax.__path__, "fmjax."):
        if not found.name.startswith(COMMANDS):
            yield importlib.import_module(found.name)


def _public(module: ModuleType) -> Iterator[tuple[str, Callable]]:
    """The functions, classes and methods without underscore that are defined in a module."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(inspect.unwrap(value)):  # jax.jit, for one, wraps functions
            yield name, value
        elif inspect.isclass(value):
            yield name, value
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", function


class _Shown:
    """A default as it is written in a signature: a function by its name, all else as it is."""

    def __init__(self, value: Any):
        self.text = getattr(value, "__qualname__", None) or repr(value).partition(" at 0x")[0]

    def __repr__(self) -> str:
        return self.text


def _signature(function: Callable) -> str | None:
    """The arguments, their kinds and their defaults; None for a function without defaults."""
    try:
        found = inspect.signature(function)
    except ValueError:  # a class that Python makes, such as a protocol
        return None
    empty, shown = inspect.Parameter.empty, []
    for argument in found.parameters.values():
        if argument.name == "parent":  # it and a name come last in every Linen module
            break
        default = empty if argument.default is empty else _Shown(argument.default)
        shown.append(argument.replace(annotation=empty, default=default))
    if all(argument.default is empty for argument in shown):
        return None
    return str(found.replace(parameters=shown, return_annotation=empty))


def signatures() -> dict[str, str]:
    """The signature of each public name that has a default."""
    found = {
        f"{module.__name__}.{name}": _signature(value)
        for module in modules()
        for name, value in _public(module)
    }
    return {name: text for name, text in sorted(found.items()) if text is not None}


if __name__ == "__main__":
    FILE.write_text(json.dumps(signatures(), indent=0) + "\n")
