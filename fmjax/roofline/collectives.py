"""What a compiled program sends between devices, by kind: how many collectives, how many bytes.

An asynchronous pair, ``-start`` and ``-done``, is one collective, and so is a chain of the TPU
compiler: one collective that goes on beside several fusions, and is printed in each.

XLA may overlap a gather or a scatter with the matmul that needs it: a loop of permutes that pass
the shards round, with a part of the matmul in each turn. Those permutes are kinds of their own,
``all-gather in matmul`` and ``reduce-scatter in matmul``.
"""

from typing import NamedTuple

from fmjax.roofline.hlo import (
    Instruction,
    Program,
    element_of,
    size_of,
    sum_over_execution,
)

_PLAIN = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_KIND_OF_OPCODE = {kind: kind for kind in _PLAIN} | {f"{kind}-start": kind for kind in _PLAIN}
_KIND_OF_OPCODE |= {"ragged-all-to-all": "all-to-all"}
_KIND_OF_OPCODE |= {"collective-broadcast": "collective-permute"}
# An opcode means another kind in the computations whose names the compiler builds from these.
_KIND_IN_COMPUTATION = {
    ("collective-permute", "windowed_dot_general_body_ag"): "all-gather in matmul",
    ("collective-permute", "windowed_dot_general_body_rs"): "reduce-scatter in matmul",
    # The TPU compiler's reduce-scatter: a fusion of an all-reduce and a slice.
    ("all-reduce", "all-reduce-scatter"): "reduce-scatter",
}
KINDS = (*_PLAIN, "all-gather in matmul", "reduce-scatter in matmul")
_CHAIN = "chain_id="  # an attribute of each part of a chain
_CHAIN_START = 'custom_call_target="AsyncCollectiveStart"'  # in its first part alone


class Collectives(NamedTuple):
    """All collectives of a kind that one device takes part in during one execution.

    Attributes:
        count: how many.
        bytes: their sizes added up. The size of one is that of its operand or of its result on one
            device, whichever is larger: the whole array for an all-gather (its result) and for a
            reduce-scatter (its operand), the array itself for the others. Padding does not count.
    """

    count: int  # type: ignore[assignment]  # it hides tuple.count
    bytes: int


def collectives(program: Program) -> dict[str, Collectives]:
    """Those of `KINDS` that occur in a program, per device and per execution.

    Lower bounds where `fmjax.roofline.hlo.loops_are_known` is False.
    """
    starts_chain = {
        name: any(_CHAIN_START in instruction.text for instruction in computation.values())
        for name, computation in program.computations.items()
    }

    def amounts(name: str, instruction: Instruction) -> dict[tuple[str, str], int]:
        kind = _kind(name, instruction.opcode)
        if kind is None or (_CHAIN in instruction.text and not starts_chain[name]):
            return {}
        return {(kind, "count"): 1, (kind, "bytes"): _full_size(program, name, instruction)}

    sums = sum_over_execution(program, amounts, follow=("fusion",))
    return {
        kind: Collectives(sums[kind, "count"], sums[kind, "bytes"])
        for kind in KINDS
        if sums[kind, "count"]
    }


def _kind(computation: str, opcode: str) -> str | None:
    plain = _KIND_OF_OPCODE.get(opcode)
    special = (
        k for (of, part), k in _KIND_IN_COMPUTATION.items() if of == plain and part in computation
    )
    return next(special, plain)


def _full_size(program: Program, computation: str, instruction: Instruction) -> int:
    siblings = program.computations[computation]
    operands = sum(size_of(siblings[name].shape) for name in instruction.operands)
    result = instruction.shape
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        result = element_of(result, 1)  # of (operand, result, contexts that hold no data)
    return max(operands, size_of(result))
