"""How many bytes a compiled program moves through a device's main memory.

jax's ``compiled.cost_analysis()`` has a figure of that kind, ``bytes accessed``, which cannot
replace this module: it counts the body of a loop once, and it counts what stays in a TPU's on-chip
memory. (With loops counted once and on-chip memory counted, this module finds 181 MB for the first
program below, 22.3 GB for the third and 20.5 GB for the fourth.) Compiled for v5e:2x2, jax 0.10.2,
libtpu 0.0.42, per chip and execution, with the operations that the analysis counts beside those of
the model:

=================================================  ==============  =========  =======  =========
program                                            bytes accessed  this       its      the
                                                                   module     flops    model's
=================================================  ==============  =========  =======  =========
step of configs/digits.py, which has no loop       283 MB          41 MB      0.75 G   0.70 G
the same with train.accumulate=4                   262 MB          42 MB      0.22 G   0.70 G
step, DiT of width 1152, 8 scanned blocks, remat   26.0 GB         79.1 GB    2.19 T   13.02 T
the same with mesh.fsdp=4                          23.8 GB         86.3 GB    2.19 T   13.02 T
10 Euler steps of configs/digits.py                93 MB           over 5 MB  0.95 G   9.35 G
50 Euler steps of configs/digits.py                93 MB           over 5 MB  0.95 G   46.77 G
=================================================  ==============  =========  =======  =========

No multiplication by the turns of the loops corrects this, as the analysis does not say which part
lies in a loop. It has no key for collectives either; see `fmjax.roofline.collectives`.

The number of turns of a sampler's loop depends on the time that it reaches, and the text does not
tell it: the figures of a sampler are lower bounds.
"""

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
        total += min(_size_in_memory(shape), _bytes_written(body, body[result]))
    return total


def _bytes_written(body: Computation, result: Instruction) -> int:
    """How much of a fusion's result it writes: all of it, or what it updates in place."""
    source = result
    while source.opcode in _SAME_NUMBERS:
        source = body[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
        return size_of(body[source.operands[1]].shape)
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
