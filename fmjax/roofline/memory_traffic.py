"""How many bytes a compiled program moves through a device's main memory."""

import re
from collections.abc import Iterator

from fmjax.roofline.hlo import (
    Computation,
    Instruction,
    Program,
    arrays_of,
    element_of,
    root_of,
    size_of,
    sum_over_execution,
)

_NOT_COUNTED = {  # they move nothing, or what they run or move is counted elsewhere
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("partition-id", "replica-id", "opt-barrier", "domain", "rng-get-and-update-state"),
    *("while", "conditional", "call", "async-start"),
}
_TARGETS_NOT_COUNTED = ("AllocateBuffer", "ConcatBitcast", "AssumeGather", "AsyncCollective")
_SAME_NUMBERS = ("bitcast", "convert", "copy", "reshape", "transpose")
_SLICES = ("dynamic-slice", "slice", "gather")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)\}$")  # the end of the layout of an array that lies there


def memory_traffic(program: Program) -> int:
    """Bytes read from and written to main memory, per device and execution.

    Each instruction reads its operands and writes its result, a fusion as one instruction; of an
    array that is only sliced or updated in place, the slice counts. What lies in a TPU's on-chip
    memory is free. A lower bound where `fmjax.roofline.hlo.loops_are_known` is False.
    """
    sums = sum_over_execution(program, lambda *of: {"bytes": _bytes_of_instruction(program, *of)})
    return sums["bytes"]


def _bytes_of_instruction(program: Program, name: str, instruction: Instruction) -> int:
    opcode, computation = instruction.opcode, program.computations[name]
    if opcode in _NOT_COUNTED or opcode.endswith(("-done", "-update")):
        return 0
    if any(f'custom_call_target="{target}' in instruction.text for target in _TARGETS_NOT_COUNTED):
        return 0
    if opcode == "fusion":
        return _bytes_of_fusion(program, computation, instruction)
    operands = [_size_in_memory(computation[operand].shape) for operand in instruction.operands]
    if opcode == "dynamic-update-slice":
        return 2 * operands[1]
    result = instruction.shape
    if opcode.endswith(
        "-start"
    ):  # a tuple: (operand, result, ...), of a copy (result, operand, ...)
        result = element_of(result, 0 if opcode == "copy-start" else 1)
    if opcode in _SLICES or opcode == "slice-start":
        return _size_in_memory(result) + min(operands[0], size_of(result))
    return _size_in_memory(result) + sum(operands)


def _bytes_of_fusion(program: Program, caller: Computation, fusion: Instruction) -> int:
    """Reads of the operands and writes of the results, slices of either counting as slices."""
    body = program.computations[fusion.called()[0]]
    parameters = _parameters(body)
    total = 0
    for position, operand in enumerate(fusion.operands):
        if whole := _size_in_memory(caller[operand].shape):
            total += min(whole, _bytes_read(program, body, parameters[position]))
    root = root_of(body)
    results = root.operands if root.opcode == "tuple" else (root.name,)
    for result, shape in zip(results, arrays_of(fusion.shape), strict=False):
        total += min(_size_in_memory(shape), _bytes_written(program, body, body[result]))
    return total


def _bytes_written(program: Program, body: Computation, result: Instruction) -> int:
    """How much of a fusion's result it writes: all of it, or what it updates in place."""
    source = result
    while source.opcode in _SAME_NUMBERS:
        source = body[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
        return size_of(body[source.operands[1]].shape)
    if source.opcode == "fusion":  # one inside the other
        inner = program.computations[source.called()[0]]
        if root_of(inner).opcode != "tuple":
            return _bytes_written(program, inner, root_of(inner))
    return size_of(result.shape)


def _bytes_read(program: Program, body: Computation, source: Instruction) -> int:
    """How much of an array a fusion reads: all of it, or the slices that it takes."""
    total = 0
    for user, position in _users(body, source.name):
        if user.opcode in _SLICES and position == 0:
            total += size_of(user.shape)
        elif user.opcode == "dynamic-update-slice" and position == 0:
            pass  # the rest stays where it is
        elif user.opcode in _SAME_NUMBERS:
            # As many numbers as are read of its copy, in this array's own dtype.
            part = _bytes_read(program, body, user)
            total += part * size_of(source.shape) // max(1, size_of(user.shape))
        elif user.opcode == "fusion":  # one inside the other
            inner = program.computations[user.called()[0]]
            total += _bytes_read(program, inner, _parameters(inner)[position])
        else:
            return size_of(source.shape)
    return total


def _parameters(body: Computation) -> dict[int, Instruction]:
    """The parameters of a computation by their position."""
    return {int(i.text.partition(")")[0]): i for i in body.values() if i.opcode == "parameter"}


def _users(body: Computation, name: str) -> Iterator[tuple[Instruction, int]]:
    for instruction in body.values():
        for position, operand in enumerate(instruction.operands):
            if operand == name:
                yield instruction, position


def _size_in_memory(shape: str) -> int:
    """The bytes of an array, or of the arrays of a tuple, that lie in main memory."""
    return sum(size_of(array) for array in arrays_of(shape) if not _ON_CHIP.search(array))
