"""Names: of objects, as ``package.module:Name``; of leaves; and frozen dataclasses as JSON.

A configuration may name a piece that is not fmjax's own, and a run's record says what its data are
by objects that have to come back as they were.
"""

import dataclasses
import fnmatch
import functools
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fmjax.errors import InputError, unknown_name
from fmjax.first_process import say

_TYPE = "type"
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d][\w.]*")


def load_object(kind: str, name: str) -> Any:
    """The object that ``package.module:Name`` names; the current directory is looked in too.

    Args:
        kind: what the name should have named, as a message says it.
        name: the name, with a colon.

    Raises:
        InputError: there is no such module, it is Python's own, it fails, or it has no such object.
    """
    module_name, _, attribute = name.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise InputError(
            f"{kind} {name!r} is of Python's standard library, which holds nothing of that kind; "
            "write package.module:Name, of a module of your own."
        )
    _look_here()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{kind} {name!r}: {error}. Write package.module:Name, of a module that is installed "
            f"or lies in {os.getcwd()}."
        ) from error
    except Exception as error:  # a module is a program: anything may go wrong in it
        raise InputError(f"{kind} {name!r} fails with {type(error).__name__}: {error}.") from error
    if not hasattr(module, attribute):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise unknown_name(f"{kind} in {module_name}", attribute, public)
    return getattr(module, attribute)


def load_maker(kind: str, name: str) -> Callable[..., Any]:
    """The function or class of that name, whose own mistakes are told in one sentence.

    Args:
        kind: as in `load_object`.
        name: as in `load_object`.

    Raises:
        InputError: as `load_object`, or what was found cannot be called. Calling the result raises
            it where the function fails.
    """
    make = load_object(kind, name)
    if not callable(make):
        raise InputError(f"{kind} {name!r} must be a function or a class; got {make!r}.")

    @functools.wraps(make, updated=())
    def made(*args: Any, **kwargs: Any) -> Any:
        try:
            return make(*args, **kwargs)
        except InputError:
            raise
        except Exception as error:  # it is the user's own: anything may go wrong in it
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"{kind} {name!r} fails with {what}.") from error

    return made


def _look_here() -> None:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())


def describe(tree: Any) -> Any:
    """Frozen dataclasses, alone or in dictionaries, as dictionaries that go into JSON.

    Args:
        tree: a dataclass of numbers (numpy's become Python's), strings, None and tuples of them; a
            dictionary of such; None.
    """
    if isinstance(tree, dict):
        return {name: describe(value) for name, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map(describe, tree))
    if isinstance(tree, np.generic):
        return tree.item()
    if not dataclasses.is_dataclass(tree):
        return tree
    fields = {f.name: describe(getattr(tree, f.name)) for f in dataclasses.fields(tree) if f.init}
    return {_TYPE: f"{type(tree).__module__}:{type(tree).__qualname__}"} | fields


def rebuild(content: Any) -> Any:
    """What `describe` described, from JSON: lists become tuples.

    Raises:
        InputError: a type cannot be found.
    """
    if isinstance(content, list):
        return tuple(map(rebuild, content))
    if not isinstance(content, dict):
        return content
    fields = {name: rebuild(value) for name, value in content.items() if name != _TYPE}
    if _TYPE not in content:
        return fields
    kind = load_object("the type", str(content[_TYPE]))
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise InputError(f"the type {content[_TYPE]!r} is no dataclass, and nothing else is made.")
    return kind(**fields)


def check_names(content: Any, folder: Path) -> None:
    """Checks the names ``module:name`` in a folder that may come from somebody else.

    To use them imports their modules, which is to run them. Those of fmjax are its own. Others must
    be the user's: modules that Python finds from where the user stands, neither in that folder nor
    in the standard library. Each is said.

    Args:
        content: of a JSON file in the folder.
        folder: whose modules are not imported.

    Raises:
        InputError: a name of another module.
    """
    for name in sorted(_names_in(content)):
        module = name.partition(":")[0]
        top = module.partition(".")[0]
        if top == "fmjax":
            continue
        origin = _origin(top)
        inside = origin is not None and folder.resolve() in origin.parents
        if inside or top in sys.stdlib_module_names:
            where = f"lies in {folder}" if inside else "is Python's own"
            raise InputError(
                f"it names {name}, and the module {module} {where}: it may name modules of "
                "fmjax, and of yours, elsewhere"
            )
        if origin is not None:
            say(f"{folder} names {name}, which is imported from {origin}", file=sys.stderr)


def _names_in(content: Any) -> set[str]:
    if isinstance(content, str):
        return {content} if _NAME.fullmatch(content) else set()
    children = content.values() if isinstance(content, dict) else content
    return set().union(*map(_names_in, children)) if isinstance(content, dict | list) else set()


def _origin(module: str) -> Path | None:
    """The file of a top-level module, found as `load_object` finds it; None where there is none."""
    _look_here()
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if found is None:
        return None
    places = [found.origin] if found.origin else list(found.submodule_search_locations or ())
    return Path(places[0]).resolve() if places else None


def named_leaves(tree: Any, what: str = "labels") -> dict[str, Any]:
    """The leaves of a pytree by name: the way to each, joined by ``/``.

    Args:
        tree: of labels, of conditions, of paths; None has no leaves.
        what: what a leaf is called that is the whole tree.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = (jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in leaves)
    return {name or what: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}


def matching(patterns: Sequence[str], tree: Any, what: str) -> frozenset[str]:
    """The names of the leaves that patterns such as ``blocks/attention/*`` choose.

    Args:
        patterns: as of a shell, in which ``*`` stands for anything, slashes too.
        tree: of arrays, or of their shapes.
        what: what holds the patterns, as a message calls it.

    Returns:
        Names as `named_leaves` gives them.

    Raises:
        InputError: they are no sequence of texts, or one matches no leaf; some names are told.
    """
    if isinstance(patterns, str) or not all(isinstance(one, str) for one in patterns):
        raise InputError(
            f'{what} must be a tuple of patterns such as ("out/*",); got {patterns!r}.'
        )
    names, found = list(named_leaves(tree, "params")), set()
    for pattern in patterns:
        chosen = set(fnmatch.filter(names, pattern))
        if not chosen:
            some = ", ".join(names[:: max(1, len(names) // 5)][:6])
            raise InputError(
                f"{what}: no parameter matches {pattern!r}; there are {some} and {len(names)} "
                "in all."
            )
        found |= chosen
    return frozenset(found)
