"""The examples of docstrings run as they stand, after `from fmjax import ...` and `import jax`.

An example may use the public names of `fmjax`, those of its own package, and those of its module.
"""

import doctest
import importlib
import inspect
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fmjax
from fmjax.models import adapters, pretrained
from tests.conftest import ROOT

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
KNOWN = {"jax": jax, "jnp": jnp, "np": np}


def _examples() -> list[doctest.DocTest]:
    """Every docstring of the package that has an example, with the names that it may use."""
    found = []
    for path in sorted((ROOT / "fmjax").rglob("*.py")):
        if ">>>" not in path.read_text():
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(name)
        package = importlib.import_module(name.rpartition(".")[0])
        names = _public(fmjax) | _public(package) | KNOWN | vars(module)
        finder = doctest.DocTestFinder(exclude_empty=True)
        found += [test for test in finder.find(module, globs=names) if test.examples]
    return found


def _public(package: ModuleType) -> dict[str, Any]:
    return {name: getattr(package, name) for name in getattr(package, "__all__", ())}


@pytest.mark.day_cases(27)
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_it_gives_what_it_says(example):
    report = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
    assert not report, "".join(report)


def _without(values: dict[str, Any]) -> list[str]:
    able = {k: v for k, v in values.items() if inspect.isfunction(v) or inspect.isclass(v)}
    assert able
    return [name for name, value in able.items() if ">>>" not in (value.__doc__ or "")]


@pytest.mark.parametrize("package", [fmjax, fmjax.testing, fmjax.training])
def test_every_public_function_and_class_has_one(package):
    assert _without(_public(package)) == []


def _is_network(value: Any) -> bool:
    call = inspect.signature(value.__call__) if inspect.isclass(value) else None
    return call is not None and list(call.parameters) == ["self", "x", "t", "labels"]


def test_every_network_and_preset_has_one():
    found = {}
    for path in sorted((ROOT / "fmjax" / "models").glob("*.py")):
        module = importlib.import_module(f"fmjax.models.{path.stem}")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__
            if own and (name == "preset" or _is_network(value)):
                found[f"{path.stem}.{name}"] = value
    assert len(found) >= 12, found
    assert _without(found) == []
    others = adapters.from_nnx, adapters.from_equinox, adapters.from_linen, pretrained.load
    assert _without({f.__name__: f for f in others}) == []
