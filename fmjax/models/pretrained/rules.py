"""Rules: which tensors of a published file make which parameter of ours.

A family declares its names as a table of rules,

    Rule("x_embedder.proj.weight", "patch/kernel", patches(2))
    Rule("blocks.*.mlp.fc1.weight", "blocks/mlp/up/kernel", DENSE)
    Rule(("blocks.*.q.weight", "blocks.*.k.weight", "blocks.*.v.weight"),
         "blocks/attention/qkv/kernel", joined(3, by_head(16, DENSE)))
    Rule("encoder.{i}.conv.{j}.weight", "encoder/layer_{i}/conv_{j}/kernel", CONV)
    Rule("blocks.*.qkv.weight", "blocks/attention/k/kernel", DENSE, rows=Rows(1, 2, of=3))

where ``*`` counts the leading axis of a parameter that is stacked, and ``{i}``, ``{j}`` stand for
the same numbers on both sides. The last is one of the rules that share a tensor, each its rows.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from fmjax.models.pretrained.changes import DENSE, SAME, Change
from fmjax.storage.safetensors import Shapes


class Rows(NamedTuple):
    """Some rows of a tensor there, the first axis of which is cut into equal parts.

    Attributes:
        first: the first part, from 0 on.
        last: the first part that is not of them any more.
        of: how many parts the whole tensor has.
    """

    first: int
    last: int
    of: int

    def take(self, whole: Shaped[np.ndarray, " rows *rest"]) -> Shaped[np.ndarray, " taken *rest"]:
        """These rows of a tensor."""
        part = whole.shape[0] // self.of
        return whole[self.first * part : self.last * part]

    def shape_of_whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tensor, of which these rows have `shape`."""
        return shape[0] * self.of // (self.last - self.first), *shape[1:]


class Rule(NamedTuple):
    """How one parameter of ours is made.

    Attributes:
        theirs: the name of a tensor there, or a tuple of names that make one array together.
        ours: the path of the parameter, with slashes.
        change: from theirs to ours and back; for a stacked parameter, of one entry of its stack.
        copies: how many equal copies ``*`` counts there, for a parameter that is single here.
        first: the number that ``*`` begins with.
        hint: what to do where the shape differs, after "; ".
        rows: which rows of theirs it is made of; None for all. Other rules name the other rows.
    """

    theirs: str | tuple[str, ...]
    ours: str
    change: Change = SAME
    copies: int = 0
    first: int = 0
    hint: str = ""
    rows: Rows | None = None


def layer(theirs: str, ours: str, change: Change = DENSE, **more: Any) -> tuple[Rule, Rule]:
    """The rules of weight and bias of one layer; `change` is the weight's."""
    return (
        Rule(f"{theirs}.weight", f"{ours}/kernel", change, **more),
        Rule(f"{theirs}.bias", f"{ours}/bias", **more),
    )


class Origin(NamedTuple):
    """Where one parameter comes from.

    Attributes:
        path: of the parameter.
        names: the tensors of each entry of its stack, or of each copy; one row without either.
        shapes: of the tensors of a row.
        rule: which gave this.
        stacked: whether the rows are entries of a stack.
    """

    path: str
    names: tuple[tuple[str, ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    rule: Rule
    stacked: bool


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, in the order of the tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def origins(rules: Sequence[Rule], params: Any) -> list[Origin]:
    """Where each parameter comes from.

    Args:
        rules: of the family.
        params: the parameters, or their shapes.

    Raises:
        LookupError: no rule names a parameter: the table is not whole.
    """
    return [_origin(rules, path, leaf) for path, leaf in by_path(params).items()]


def _origin(rules: Sequence[Rule], path: str, leaf: Any) -> Origin:
    for rule in rules:
        numbers = _match(rule.ours, path)
        if numbers is not None:
            break
    else:
        raise LookupError(f"no rule says where {path} comes from")
    theirs = (rule.theirs,) if isinstance(rule.theirs, str) else rule.theirs
    theirs = tuple(_fill(name, numbers) for name in theirs)
    stacked = "*" in theirs[0] and not rule.copies
    count = leaf.shape[0] if stacked else max(rule.copies, 1)
    names = tuple(
        tuple(name.replace("*", str(rule.first + k)) for name in theirs) for k in range(count)
    )
    # Without numbers behind it, an array of any shape costs nothing.
    entry = np.broadcast_to(np.zeros((), bool), leaf.shape[1:] if stacked else leaf.shape)
    shapes = tuple(part.shape for part in rule.change.backward(entry))
    if rule.rows is not None:
        shapes = tuple(rule.rows.shape_of_whole(shape) for shape in shapes)
    return Origin(path, names, shapes, rule, stacked)


def _match(pattern: str, path: str) -> dict[str, str] | None:
    """The numbers for which a path is the pattern's, None where it is not."""
    parts = re.split(r"\{(\w+)\}", pattern)
    regex = "".join(
        f"(?P<{part}>[0-9]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)
    )
    found = re.fullmatch(regex, path)
    return None if found is None else found.groupdict()


def _fill(name: str, numbers: dict[str, str]) -> str:
    for key, value in numbers.items():
        name = name.replace(f"{{{key}}}", value)
    return name


def expected(where: Sequence[Origin]) -> Iterator[tuple[str, tuple[int, ...], Origin]]:
    """Each tensor that a file must hold, once: its name, its shape and what it is for."""
    seen = set()
    for origin in where:
        for row in origin.names:
            for name, shape in zip(row, origin.shapes, strict=True):
                if name not in seen:
                    yield name, shape, origin
                seen.add(name)


def expected_shapes(where: Sequence[Origin]) -> Shapes:
    """The shape of each tensor by name."""
    return {name: shape for name, shape, _ in expected(where)}
