"""The text of an optimised HLO program, read as far as it takes to count what an execution does.

``compiled.as_text()`` prints computations, each a list of instructions

    %name = shape opcode(%operand, ...), attribute=value, ...

What jax's own ``compiled.cost_analysis()`` counts is no substitute, as
`fmjax.roofline.memory_traffic` says with numbers.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_ARRAY_SHAPE = re.compile(r"\b[a-z][a-z0-9]*\[[\d,<= ]*\](?:\{[^}]*\})?")
_DTYPE_AND_SIZES = re.compile(r"([a-z][a-z0-9]*)\[([\d,<= ]*)\]")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'"?known_trip_count"?:\{"n":"(\d+)"')
_SAME_NUMBER = ("copy", "bitcast", "convert", "reshape", "opt-barrier")

Key = TypeVar("Key", bound=Hashable)


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        name: its name, unique in the program.
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


Computation = dict[str, Instruction]
"""Instructions by name."""


class Program(NamedTuple):
    """A program: its computations by name, and the name of the one that begins."""

    computations: dict[str, Computation]
    entry: str


def read_program(text: str) -> Program:
    """Reads ``compiled.as_text()`` of a compiled jax function."""
    computations: dict[str, Computation] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif found := _INSTRUCTION.match(line):
            root, name, shape, opcode, rest = found.groups()
            operands = tuple(_OPERAND.findall(rest[: _end_of_operands(rest)]))
            current[name] = Instruction(name, shape, opcode, operands, rest, bool(root))
    return Program(computations, entry)


def arrays_of(shape: str) -> list[str]:
    """The shapes of the arrays of a tuple, however deep; of an array, that array alone."""
    return _ARRAY_SHAPE.findall(shape)


def size_of(shape: str) -> int:
    """The bytes of an array or of all arrays of a tuple, without padding."""
    total = 0
    for dtype, sizes in _DTYPE_AND_SIZES.findall(shape):
        bits = 8 if dtype == "pred" else int((re.findall(r"\d+", dtype) or ["0"])[0])
        sides = [int(size.strip("<= ")) for size in sizes.split(",") if size.strip()]
        total += math.ceil(bits * math.prod(sides) / 8)
    return total


def element_of(shape: str, index: int) -> str:
    """One element of a tuple's shape, itself as printed."""
    parts, depth = [""], 0
    for character in shape[1:-1]:
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts[index]


def root_of(computation: Computation) -> Instruction:
    """The instruction whose result is the computation's."""
    return next(i for i in computation.values() if i.root)


def sum_over_execution(
    program: Program,
    amounts: Callable[[str, Instruction], dict[Key, int]],
    follow: tuple[str, ...] = (),
) -> Counter[Key]:
    """Sums amounts over all instructions of one execution, each as often as it runs.

    What a loop does counts once for each of its turns, and once where the text does not tell how
    many they are (see `loops_are_known`). Of a conditional, the branch with the largest sum counts.

    Args:
        program: the program.
        amounts: of an instruction in the computation of that name, without what it calls.
        follow: opcodes whose computations count, beside loops, conditionals, calls and
            asynchronous computations.
    """
    followed = ("while", "conditional", "call", "async-start", *follow)
    sums: dict[str, Counter] = {}

    def of_computation(name: str) -> Counter:
        if name not in sums:
            sums[name] = Counter()
            for instruction in program.computations[name].values():
                sums[name].update(amounts(name, instruction))
                if instruction.opcode in followed:
                    sums[name].update(of_called(name, instruction))
        return sums[name]

    def of_called(name: str, instruction: Instruction) -> Counter:
        parts = [of_computation(computation) for computation in instruction.called()]
        if instruction.opcode == "conditional":
            return max(parts, key=Counter.total)
        known = trip_count(program, name, instruction) if instruction.opcode == "while" else 1
        turns = 1 if known is None else known
        return Counter({key: turns * n for key, n in sum(parts, Counter()).items()})

    return of_computation(program.entry)


def loops_are_known(program: Program) -> bool:
    """Whether the text tells the number of turns of every loop."""
    return all(
        trip_count(program, name, instruction) is not None
        for name, computation in program.computations.items()
        for instruction in computation.values()
        if instruction.opcode == "while"
    )


def trip_count(program: Program, computation: str, loop: Instruction) -> int | None:
    """How many turns a while loop takes; None where the text does not tell.

    XLA writes it down on CPUs. On TPUs it is worked out for a counter that starts at a constant,
    grows by a constant and stays below a constant, as that of a `jax.lax.scan` does.
    """
    if known := _KNOWN_TRIPS.search(loop.text):
        return int(known[1])
    # A loop names both.
    condition = program.computations[str(loop.attribute("condition"))]
    body = program.computations[str(loop.attribute("body"))]
    caller = program.computations[computation]
    start, test, result = _origin(caller, loop.operands[0]), root_of(condition), root_of(body)
    if test.opcode != "compare" or test.attribute("direction") != "LT":
        return None
    # The condition compares an element of the loop's tuple, the counter, with its bound.
    counter, bound = (_origin(condition, name) for name in test.operands)
    index = counter.attribute("index")
    if index is None or {start.opcode, result.opcode} != {"tuple"}:
        return None
    first = _constant(_origin(caller, start.operands[int(index)]))
    # The bound is a constant of the condition, or another element that the caller sets.
    if (last := _constant(bound)) is None and (at := bound.attribute("index")) is not None:
        last = _constant(_origin(caller, start.operands[int(at)]))
    step = _step(body, _origin(body, result.operands[int(index)]), index)
    if first is None or last is None or not step:
        return None
    return max(0, math.ceil((last - first) / step))


def _step(body: Computation, last: Instruction, index: str) -> int | None:
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


def _origin(computation: Computation, name: str) -> Instruction:
    """The instruction that made a number, past those that only hand it on."""
    instruction = computation[name]
    while instruction.opcode in _SAME_NUMBER:
        instruction = computation[instruction.operands[0]]
    return instruction


def _constant(instruction: Instruction) -> int | None:
    found = re.match(r"(-?\d+)\)", instruction.text) if instruction.opcode == "constant" else None
    return int(found[1]) if found else None


def _end_of_operands(text: str) -> int:
    depth = 1
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return position
    return len(text)
