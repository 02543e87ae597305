"""Optimised HLO text, as far as it must be understood to count what a program does.

The text is what ``compiled.as_text()`` prints: computations, each a list of instructions

    %name = shape opcode(%operand, ...), attribute=value, ...
"""

import math
import re
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<= ]*)\]")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"?known_trip_count"?:\{"n":"(\d+)"')
_SAME_VALUE = ("copy", "bitcast", "convert", "reshape", "opt-barrier")


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        name: its name, unique in the module.
        shape: its result's shape as printed, layout and all.
        opcode: what it does.
        operands: the names of its operands.
        text: all that is printed after the opcode.
        root: whether it is the result of its computation.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    text: str
    root: bool

    def attribute(self, name: str) -> str | None:
        """The value of an attribute that is a name or a number, None where it is not there."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.text)
        return found[1] if found else None

    def called(self) -> list[str]:
        """The names of the computations that this one refers to."""
        names = _CALLED.findall(self.text)
        for branches in _BRANCHES.findall(self.text):
            names += [name.strip().lstrip("%") for name in branches.split(",")]
        return names


class Module(NamedTuple):
    """A program: its computations by name, each its instructions by name, and where it begins."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


def parse(hlo: str) -> Module:
    """Reads the text of an optimised HLO module."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", {}
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif found := _INSTRUCTION.match(line):
            root, name, shape, opcode, text = found.groups()
            operands = tuple(_NAME.findall(text[: _end_of_operands(text)]))
            current[name] = Instruction(name, shape, opcode, operands, text, bool(root))
    return Module(computations, entry)


def size_of(shape: str) -> int:
    """The bytes of an array or of all arrays of a tuple, without padding."""
    total = 0
    for dtype, dims in _ARRAY.findall(shape):
        bits = 8 if dtype == "pred" else int((re.findall(r"\d+", dtype) or ["0"])[0])
        sizes = [int(d.strip("<= ")) for d in dims.split(",") if d.strip()]
        total += math.ceil(bits * math.prod(sizes) / 8)
    return total


def element(shape: str, index: int) -> str:
    """One element of a tuple's shape, itself as printed."""
    parts, depth = [""], 0
    for character in shape[1:-1]:
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts[index]


def trip_count(module: Module, computation: str, loop: Instruction) -> int | None:
    """How many turns a while loop takes; None where the text does not tell.

    XLA writes it down on some backends. Elsewhere it is worked out for a counter that starts at a
    constant, grows by a constant and stays below a constant, as that of a `jax.lax.scan`.
    """
    if known := _TRIPS.search(loop.text):
        return int(known[1])
    condition = module.computations[loop.attribute("condition")]
    body = module.computations[loop.attribute("body")]
    caller = module.computations[computation]
    start = _origin(caller, loop.operands[0])
    test, result = _root(condition), _root(body)
    if test.opcode != "compare" or test.attribute("direction") != "LT":
        return None
    counter, bound = (_origin(condition, name) for name in test.operands)
    index = counter.attribute("index")
    if index is None or {start.opcode, result.opcode} != {"tuple"}:
        return None
    first = _constant(_origin(caller, start.operands[int(index)]))
    if (last := _constant(bound)) is None and (at := bound.attribute("index")) is not None:
        last = _constant(_origin(caller, start.operands[int(at)]))
    step = _step(body, _origin(body, result.operands[int(index)]), index)
    if first is None or last is None or not step:
        return None
    return max(0, math.ceil((last - first) / step))


def all_turns_known(module: Module) -> bool:
    """Whether the text tells the number of turns of every loop."""
    return all(
        trip_count(module, name, instruction) is not None
        for name, computation in module.computations.items()
        for instruction in computation.values()
        if instruction.opcode == "while"
    )


def _step(body: dict[str, Instruction], last: Instruction, index: str) -> int | None:
    """By how much a turn of the body raises the counter, an element of the loop's tuple."""
    total = 0
    while last.opcode == "add":
        sides = [_origin(body, name) for name in last.operands]
        constants = [value for value in map(_constant, sides) if value is not None]
        others = [side for side in sides if side.opcode != "constant"]
        if len(constants) != 1 or len(others) != 1:
            return None
        total, last = total + constants[0], others[0]
    return total if last.attribute("index") == index else None


def _origin(computation: dict[str, Instruction], name: str) -> Instruction:
    """The instruction that made a value, past those that only hand it on."""
    instruction = computation[name]
    while instruction.opcode in _SAME_VALUE:
        instruction = computation[instruction.operands[0]]
    return instruction


def _constant(instruction: Instruction) -> int | None:
    found = re.match(r"(-?\d+)\)", instruction.text) if instruction.opcode == "constant" else None
    return int(found[1]) if found else None


def _root(computation: dict[str, Instruction]) -> Instruction:
    return next(i for i in computation.values() if i.root)


def _end_of_operands(text: str) -> int:
    depth = 1
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return position
    return len(text)
