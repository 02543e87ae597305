"""The examples of docstrings run as they stand, after `from fmjax import ...` and `import jax`."""

import doctest
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fmjax
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
        public = {name: getattr(fmjax, name) for name in fmjax.__all__}
        names = public | KNOWN | vars(module)
        finder = doctest.DocTestFinder(exclude_empty=True)
        found += [test for test in finder.find(module, globs=names) if test.examples]
    return found


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_it_gives_what_it_says(example):
    report = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
    assert not report, "".join(report)


def test_every_public_function_and_class_has_one():
    values = {name: getattr(fmjax, name) for name in fmjax.__all__}
    able = {k: v for k, v in values.items() if inspect.isfunction(v) or inspect.isclass(v)}
    assert len(able) > 30
    assert [name for name, value in able.items() if ">>>" not in (value.__doc__ or "")] == []
