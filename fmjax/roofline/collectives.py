"""What a compiled program sends between devices, read from its optimised HLO text.

Each collective is counted as often as it runs: loops multiply by their number of turns, fusions,
calls and asynchronous computations are followed, and of a conditional's branches the one that
moves most counts. An asynchronous pair, ``-start`` and ``-done``, is one collective, and so is a
chain of a TPU compiler: one collective that goes on beside several fusions, and is printed in each.

XLA may overlap a gather or a scatter with the matrix product that needs it: a loop of permutes that
pass the shards round, with a part of the product in each turn. Those permutes are kinds of their
own, ``all-gather in matmul`` and ``reduce-scatter in matmul``.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fmjax.roofline.hlo import Instruction, Module, element, parse, size_of, trip_count

_PLAIN = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_OPCODES = {kind: kind for kind in _PLAIN} | {f"{kind}-start": kind for kind in _PLAIN}
_OPCODES |= {"ragged-all-to-all": "all-to-all", "collective-broadcast": "collective-permute"}
_WINDOWED = {  # the names that XLA gives the bodies of the loops described above
    "windowed_dot_general_body_ag": "all-gather in matmul",
    "windowed_dot_general_body_rs": "reduce-scatter in matmul",
}
KINDS = (*_PLAIN, *_WINDOWED.values())
# The TPU compiler's reduce-scatter: a fusion of this name around an all-reduce and a slice.
_SCATTERING_FUSION = "all-reduce-scatter"
_CHAIN = "chain_id="  # an attribute of each part of a chain
_CHAIN_START = 'custom_call_target="AsyncCollectiveStart"'  # in its first part alone


class Collective(NamedTuple):
    """All collectives of a kind that one device takes part in during one run of a program.

    Attributes:
        count: how many.
        bytes: their sizes added up. The size of one is that of its operand or of its result on one
            device, whichever is larger: the whole array for an all-gather (its result) and for a
            reduce-scatter (its operand), the array itself for the others. Padding does not count.
        exact: False where a loop has a number of turns that the text does not tell; what is inside
            is then counted once, and the sums are lower bounds.
    """

    count: int
    bytes: int
    exact: bool = True

    def __add__(self, other: "Collective") -> "Collective":
        """Both together."""
        return Collective(
            self.count + other.count, self.bytes + other.bytes, self.exact and other.exact
        )

    def times(self, turns: int | None) -> "Collective":
        """So many times this; None for an unknown number of times, at least one."""
        if turns is None:
            return self._replace(exact=False)
        return Collective(self.count * turns, self.bytes * turns, self.exact)


Sums = dict[str, Collective]


def collectives(hlo: str) -> Sums:
    """The collectives of a program by kind, per device and per execution.

    Args:
        hlo: the optimised HLO, ``compiled.as_text()`` of a compiled jax function.

    Returns:
        For each of `KINDS` that occurs, how many and how many bytes.
    """
    module = parse(hlo)
    sums = _of_computation(module, module.entry, {})
    return {kind: sums[kind] for kind in KINDS if kind in sums}


def _of_computation(module: Module, name: str, known: dict[str, Sums]) -> Sums:
    """The sums of one computation; `known` holds those of the computations seen before."""
    if name not in known:
        sums: Sums = {}
        for kind, collective in _of_instructions(module, name, known):
            sums[kind] = sums.get(kind, Collective(0, 0)) + collective
        known[name] = sums
    return known[name]


def _of_instructions(
    module: Module, name: str, known: dict[str, Sums]
) -> Iterator[tuple[str, Collective]]:
    instructions = module.computations[name].values()
    begins_chain = any(_CHAIN_START in instruction.text for instruction in instructions)
    for instruction in instructions:
        opcode, called = instruction.opcode, instruction.called()
        if opcode in _OPCODES:
            if _CHAIN not in instruction.text or begins_chain:
                yield _OPCODES[opcode], Collective(1, _full_size(module, name, instruction))
        elif opcode == "while":
            yield from _of_loop(module, name, instruction, known)
        elif opcode == "conditional":
            branches = [_of_computation(module, branch, known) for branch in called]
            yield from max(branches, key=lambda b: sum(s.bytes for s in b.values())).items()
        elif opcode == "fusion":
            for kind, collective in _of_computation(module, called[0], known).items():
                scatters = kind == "all-reduce" and _SCATTERING_FUSION in called[0]
                yield "reduce-scatter" if scatters else kind, collective
        elif not opcode.endswith(("-update", "-done")):  # those name the computation once more
            for computation in called:
                yield from _of_computation(module, computation, known).items()


def _of_loop(
    module: Module, name: str, loop: Instruction, known: dict[str, Sums]
) -> Iterator[tuple[str, Collective]]:
    turns, body = trip_count(module, name, loop), loop.attribute("body")
    permutes = next((kind for part, kind in _WINDOWED.items() if part in body), None)
    for computation in (loop.attribute("condition"), body):
        for kind, total in _of_computation(module, computation, known).items():
            here = permutes if permutes and kind == "collective-permute" else kind
            yield here, total.times(turns)


def _full_size(module: Module, computation: str, instruction: Instruction) -> int:
    operands = sum(
        size_of(module.computations[computation][name].shape) for name in instruction.operands
    )
    result = instruction.shape
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        result = element(result, 1)  # of (operand, result, contexts that hold no data)
    return max(operands, size_of(result))
