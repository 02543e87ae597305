"""Names: of objects, as ``package.module:Name``; of leaves; and frozen dataclasses as JSON.

A configuration may name a piece that is not fmjax's own, and a run's record says what its data are
by objects that have to come back as they were.
"""

import dataclasses
import importlib
import os
import sys
from typing import Any

import jax

from fmjax.errors import InputError, unknown_name

_TYPE = "type"


def load_object(kind: str, name: str) -> Any:
    """The object that ``package.module:Name`` names; the current directory is looked in too.

    Args:
        kind: what the name should have named, as a message says it.
        name: the name, with a colon.

    Raises:
        InputError: there is no such module, it fails, or it has no such object.
    """
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
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


def describe(tree: Any) -> Any:
    """Frozen dataclasses, alone or in dictionaries, as dictionaries that go into JSON.

    Args:
        tree: a dataclass of numbers, strings, None and tuples of them; a dictionary of such; None.
    """
    if isinstance(tree, dict):
        return {name: describe(value) for name, value in tree.items()}
    if not dataclasses.is_dataclass(tree):
        return tree
    fields = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree) if f.init}
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
    return load_object("the type", content[_TYPE])(**fields) if _TYPE in content else fields


def named_leaves(tree: Any, what: str = "labels") -> dict[str, Any]:
    """The leaves of a pytree by name: the way to each, joined by ``/``.

    Args:
        tree: of labels, of conditions, of paths; None has no leaves.
        what: what a leaf is called that is the whole tree.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = (jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in leaves)
    return {name or what: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}
