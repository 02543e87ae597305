"""A family: one published layout, how it is recognised, and what it becomes here."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from flax import linen as nn

from fmjax.errors import InputError, unknown_name
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.rules import Rule
from fmjax.storage.safetensors import Shapes
from fmjax.storage.weight_files import WeightFiles

Config = Mapping[str, Any]


Shape = tuple[int | None, ...]
"""Of one example; None for a length that is not known."""


NO_CONFIG: Config = MappingProxyType({})


def nothing(*_: Any) -> dict:
    """No names."""
    return {}


@dataclass(frozen=True)
class Family:
    """One published layout of weights.

    Attributes:
        name: what ``layout=`` calls it.
        what: the same in words, for messages: "an official SiT".
        kind: the class of the network.
        accepts: whether names and shapes, and the content of ``config.json`` (empty without), are
            of this family.
        build: the network of ours for the same; raises InputError where it cannot be known.
        shape: of the examples that the weights were trained on, as far as the file says.
        rules: the table of names of a network.
        inputs: arguments of the network's ``init`` for examples of a shape, as shapes.
        finish: what `load` returns, from the family, the network, its parameters, the report and
            the weights.
        left_out: names that are known and not needed, and why, of the weights and a network.
        added: tensors that are saved beside the parameters', of a network and a shape of examples.
        of_examples: whether the parameters depend on the shape of an example: its channels.
        fixed: fields of the network that shapes do not tell and that the layout fixes, from the
            content of ``config.json``.
        halves: whether it is published as two files, ``x_encoder`` and ``x_decoder``.
    """

    name: str
    what: str
    kind: type[nn.Module]
    accepts: Callable[[Shapes, Config], bool]
    build: Callable[[Shapes, Config], nn.Module]
    shape: Callable[[WeightFiles], Shape]
    rules: Callable[[Any], Sequence[Rule]]
    inputs: Callable[[Any, Shape], tuple]
    finish: Callable[["Family", Any, Any, Report, WeightFiles], Any]
    left_out: Callable[[WeightFiles, Any], Mapping[str, str]] = nothing
    added: Callable[[Any, Shape], Mapping[str, Any]] = nothing
    fixed: Callable[[Config], Mapping[str, Any]] = nothing
    of_examples: bool = True
    halves: bool = False

    def abstract_params(self, model: nn.Module, shape: Shape, config: Config = NO_CONFIG) -> Any:
        """The shapes of a network's parameters; nothing is computed.

        Args:
            model: the network.
            shape: of an example.
            config: the content of ``config.json``.

        Raises:
            InputError: the network is of another class, or a field of it does not fit.
        """
        self.check_kind(model)
        for name, value in self.fixed(config).items():
            if getattr(model, name) != value:
                raise InputError(
                    f"{self.what} has {name}={value!r}, and model has {getattr(model, name)!r}, "
                    f"with which the same weights mean another function: write {name}={value!r}."
                )
        key = jax.eval_shape(lambda: jax.random.key(0))
        try:
            return jax.eval_shape(model.init, key, *self.inputs(model, shape))["params"]
        except InputError as error:  # its conditions are others
            raise InputError(f"{self.what} cannot be this {self.kind.__name__}: {error}") from error

    def check_kind(self, model: nn.Module) -> None:
        """Checks that a network is of the class that the layout holds.

        Raises:
            InputError: it is of another.
        """
        if not isinstance(model, self.kind):
            raise InputError(
                f"{self.what} is a {self.kind.__name__}; got model of type {type(model).__name__}."
            )


def count_blocks(shapes: Shapes, pattern: str) -> int:
    """How many blocks there are: one more than the largest number that the pattern finds."""
    return 1 + max(int(found[1]) for name in shapes if (found := re.match(pattern, name)))


def family_named(name: str, families: Sequence[Family]) -> Family:
    """The family of that name.

    Raises:
        InputError: there is none.
    """
    known = {family.name: family for family in families}
    if name not in known:
        raise unknown_name("layout", name, known)
    return known[name]


def recognise(files: WeightFiles, layout: str | None, families: Sequence[Family]) -> Family:
    """The family of some weights, by names and shapes.

    Args:
        files: the weights.
        layout: the name of a family, or None to recognise it.
        families: those that are known.

    Raises:
        InputError: none fits, more than one does, or not the one that was named.
    """
    asked = None if layout is None else family_named(layout, families)
    fits = [family for family in families if family.accepts(files.shapes, files.config)]
    if asked is not None and asked not in fits:
        raise InputError(f"{files.path} is no {asked.name}: {_found(files, fits, families)}.")
    if asked is not None:
        return asked
    if len(fits) > 1:
        names = " or ".join(f"layout={family.name!r} ({family.what})" for family in fits)
        raise InputError(
            f"{files.path} has the names and shapes of more than one kind of network, which use "
            f"them differently: write {names}."
        )
    if not fits:
        raise InputError(f"{files.path}: {_found(files, fits, families)}.")
    return fits[0]


def _found(files: WeightFiles, fits: Sequence[Family], families: Sequence[Family]) -> str:
    if fits:
        return f"its names are those of {' and of '.join(family.what for family in fits)}"
    first = ", ".join(sorted(files.shapes)[:3])
    known = ", ".join(sorted(family.name for family in families))
    return f"its names ({first}, ...) are of no known layout; known are {known}"


def check_path(path: str | Path) -> Path:
    """The path as such.

    Raises:
        InputError: it is none.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise InputError(f"path must be that of a file or folder, such as 'DiT.pt'; got {path!r}.")
    return Path(path)
