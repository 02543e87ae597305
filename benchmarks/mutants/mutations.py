"""The mutants of a module: small changes of its code that can change a result, by cosmic-ray.

Left out are changes that no test should see: of annotations, aliases of types, decorators, the
text of errors and ``__repr__``; changes that do not compile; and operators that make almost every
program end with a TypeError, as ``<<`` in the place of ``+``: they would only raise the share of
the killed.
"""

import ast
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

_BINARY = {
    "Add": ("Sub", "Mul"),
    "Sub": ("Add", "Mul"),
    "Mul": ("Add", "Div"),
    "Div": ("Mul", "Sub"),
    "FloorDiv": ("Mul", "Mod"),
    "Mod": ("Mul", "FloorDiv"),
    "Pow": ("Mul", "Div"),
    "BitAnd": ("BitOr",),
    "BitOr": ("BitAnd",),
}
_COMPARISON = {
    "Eq": ("NotEq", "LtE", "GtE"),
    "NotEq": ("Eq", "Lt", "Gt"),
    "Lt": ("LtE", "GtE"),
    "LtE": ("Lt", "Gt"),
    "Gt": ("GtE", "LtE"),
    "GtE": ("Gt", "Lt"),
    "Is": ("IsNot",),
    "IsNot": ("Is",),
}
OPERATORS = (
    *(f"ReplaceBinaryOperator_{a}_{b}" for a, others in _BINARY.items() for b in others),
    *(f"ReplaceComparisonOperator_{a}_{b}" for a, others in _COMPARISON.items() for b in others),
    *(f"ReplaceUnaryOperator_Delete_{a}" for a in ("USub", "Not", "Invert")),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr"),
    *("ReplaceOrWithAnd", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *("ExceptionReplacer", "NumberReplacer", "ZeroIterationForLoop"),
)

Place = tuple[int, int]  # line from 1, column from 0


class Mutant(NamedTuple):
    """A change of one place.

    Attributes:
        module: path of the file from the root of the repository.
        operator: cosmic-ray's name of the change.
        occurrence: which of the places in the file where the operator can be applied.
        line: number of the line.
    """

    module: str
    operator: str
    occurrence: int
    line: int


def _place(lines: list[str], line: int, column: int) -> Place:
    """ast counts columns in bytes, parso in characters."""
    return line, len(lines[line - 1].encode()[:column].decode())


def _is_alias(node: ast.AST) -> bool:
    """Whether a statement of a module gives a type another name, e.g. ``State = Array | dict``."""
    if not isinstance(node, ast.Assign):
        return False
    is_union = isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr)
    return is_union or (isinstance(node.value, ast.Subscript) and node.targets[0].id[0].isupper())


def _without_behaviour(tree: ast.Module) -> Iterator[ast.AST]:
    """The parts of a module whose change no test should see."""
    yield from (node for node in tree.body if _is_alias(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            yield node
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield from node.decorator_list
            if node.name in ("__repr__", "__str__"):
                yield node
            if getattr(node, "returns", None):
                yield node.returns
        elif isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.keyword) and node.arg == "repr":
            yield node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "InputError":
                yield node
            if node.func.id == "isinstance":
                yield node.args[1]


def _left_out(source: str) -> list[tuple[Place, Place]]:
    lines = source.split("\n")
    return [
        (
            _place(lines, node.lineno, node.col_offset),
            _place(lines, node.end_lineno, node.end_col_offset),
        )
        for node in _without_behaviour(ast.parse(source))
    ]


def mutated(source: str, operator: str, occurrence: int) -> str:
    """The source with one change."""
    return mutate_code(source, get_operator(f"core/{operator}")(), occurrence)


def _changes(root: Path, mutant: Mutant) -> bool:
    """Whether a mutant compiles, and to something else."""
    source = (root / mutant.module).read_text()
    try:
        after = ast.parse(mutated(source, mutant.operator, mutant.occurrence))
    except SyntaxError:  # the * of `def f(x, *, y)` is an operator for cosmic-ray
        return False
    return ast.dump(after) != ast.dump(ast.parse(source))


def mutants(root: Path, module: str) -> list[Mutant]:
    """All mutants of a module, in the order of their lines."""
    source = (root / module).read_text()
    left_out = _left_out(source)
    nodes = list(ast_nodes(get_ast(source)))
    found = []
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(places):
            if not any(first <= start and end <= last for first, last in left_out):
                found.append(Mutant(module, name, occurrence, start[0]))
    return sorted(found, key=lambda mutant: mutant.line)


def draw(root: Path, every: list[Mutant], number: int, seed: int) -> list[Mutant]:
    """Draws one mutant from each of `number` equal parts: each module has its share, within one."""
    rng = random.Random(seed)
    edges = [len(every) * part // number for part in range(number + 1)]
    parts = [every[a:b] for a, b in itertools.pairwise(edges)]
    mixed = [rng.sample(part, len(part)) for part in parts]
    return [next(mutant for mutant in part if _changes(root, mutant)) for part in mixed]
