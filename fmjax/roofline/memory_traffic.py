"""How many bytes a compiled program moves through a device's memory, read from its HLO text.

XLA's own ``cost_analysis()["bytes accessed"]`` counts the body of a loop once, however often it
runs; here it counts as often. What lies in a TPU's on-chip memory (layouts with ``S(1)``) is free.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from fmjax.roofline.hlo import (
    Instruction,
    Module,
    all_turns_known,
    element,
    parse,
    size_of,
    trip_count,
)

_FREE = {  # they move nothing, or what they move is counted at the other end
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("partition-id", "replica-id", "opt-barrier", "domain", "rng-get-and-update-state"),
}
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGather", "AsyncCollective")
_HAND_ON = ("bitcast", "convert", "copy", "reshape", "transpose")
_SLICES = ("dynamic-slice", "slice", "gather")
_ARRAY = re.compile(r"[a-z][a-z0-9]*\[[\d,<= ]*\](?:\{[^}]*\})?")


class Traffic(NamedTuple):
    """Bytes, and whether they are exact: else a loop of unknown length was counted once."""

    bytes: int
    exact: bool


def memory_traffic(hlo: str) -> Traffic:
    """Bytes read from and written to main memory, per device and execution.

    Each instruction reads its operands and writes its result, a fusion as one instruction; of an
    array that is only sliced, the slice counts, and of a conditional's branches the dearest.

    Args:
        hlo: the optimised HLO, ``compiled.as_text()`` of a compiled jax function.
    """
    module = parse(hlo)
    return Traffic(_of_computation(module, module.entry, {}), all_turns_known(module))


def _of_computation(module: Module, name: str, known: dict[str, int]) -> int:
    if name not in known:
        instructions = module.computations[name].values()
        known[name] = sum(_of_instruction(module, name, i, known) for i in instructions)
    return known[name]


def _of_instruction(
    module: Module, name: str, instruction: Instruction, known: dict[str, int]
) -> int:
    opcode, called = instruction.opcode, instruction.called()
    if opcode in _FREE or opcode.endswith(("-done", "-update")):
        return 0
    if opcode == "while":
        turns = trip_count(module, name, instruction)
        return (1 if turns is None else turns) * sum(
            _of_computation(module, computation, known) for computation in called
        )
    if opcode == "conditional":
        return max(_of_computation(module, branch, known) for branch in called)
    if opcode in ("call", "async-start"):
        return sum(_of_computation(module, computation, known) for computation in called)
    if opcode == "custom-call" and any(target in instruction.text for target in _FREE_CALLS):
        return 0
    if opcode == "fusion":
        return _of_fusion(module, name, instruction)
    computation = module.computations[name]
    operands = [_size(computation[operand].shape) for operand in instruction.operands]
    if opcode == "dynamic-update-slice":
        return 2 * operands[1]
    if opcode.endswith("-start"):
        result = _size(element(instruction.shape, 0 if opcode == "copy-start" else 1))
    else:
        result = _size(instruction.shape)
    if opcode in _SLICES or opcode == "slice-start":
        return result + min(operands[0], _logical(instruction))
    return result + sum(operands)


def _logical(instruction: Instruction) -> int:
    """The size of what a slice takes, wherever it is put."""
    shape = instruction.shape
    return size_of(element(shape, 1) if instruction.opcode == "slice-start" else shape)


def _of_fusion(module: Module, name: str, fusion: Instruction) -> int:
    """Reads of the operands and the write of the result, slices of either counting as slices."""
    body, caller = module.computations[fusion.called()[0]], module.computations[name]
    total = 0
    parameters = _parameters(body)
    for position, operand in enumerate(fusion.operands):
        whole = _size(caller[operand].shape)
        total += min(whole, _read(module, body, parameters[position])) if whole else 0
    root = next(i for i in body.values() if i.root)
    results = root.operands if root.opcode == "tuple" else (root.name,)
    for result, shape in zip(results, _ARRAY.findall(fusion.shape), strict=False):
        total += min(_size(shape), _written(module, body, body[result]))
    return total


def _written(module: Module, body: dict[str, Instruction], result: Instruction) -> int:
    """How much of a fusion's result it writes: all of it, or what it updates in place."""
    source = result
    while source.opcode in _HAND_ON:
        source = body[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
        return size_of(body[source.operands[1]].shape)
    if source.opcode == "fusion":
        inner = module.computations[source.called()[0]]
        root = next(i for i in inner.values() if i.root)
        if root.opcode != "tuple":
            return _written(module, inner, root)
    return size_of(result.shape)


def _read(module: Module, body: dict[str, Instruction], source: Instruction) -> int:
    """How much of an array a fusion reads: all of it, or the slices that it takes."""
    total = 0
    for user, position in _users(body, source.name):
        if user.opcode in _SLICES and position == 0:
            total += size_of(user.shape)
        elif user.opcode == "dynamic-update-slice" and position == 0:
            pass  # the rest stays where it is
        elif user.opcode in _HAND_ON:
            # As many numbers as are read of what it is handed on as, in this array's own dtype.
            part = _read(module, body, user)
            total += part * size_of(source.shape) // max(1, size_of(user.shape))
        elif user.opcode == "fusion":  # one inside the other
            inner = module.computations[user.called()[0]]
            total += _read(module, inner, _parameters(inner)[position])
        else:
            return size_of(source.shape)
    return total


def _parameters(body: dict[str, Instruction]) -> dict[int, Instruction]:
    """The parameters of a computation by their position."""
    return {int(i.text.partition(")")[0]): i for i in body.values() if i.opcode == "parameter"}


def _users(body: dict[str, Instruction], name: str) -> Iterator[tuple[Instruction, int]]:
    for instruction in body.values():
        for position, operand in enumerate(instruction.operands):
            if operand == name:
                yield instruction, position


def _size(shape: str) -> int:
    """The bytes of an array, or of the arrays of a tuple, that lie in main memory."""
    arrays = _ARRAY.findall(shape)
    return sum(size_of(array) for array in arrays if not re.search(r"S\([1-9]\d*\)\}$", array))
