"""Loops and branches are counted as they run, in text of known content."""

import textwrap

import pytest

from fmjax.roofline.hlo import Instruction, loops_are_known, read_program, sum_over_execution
from tests.roofline.texts import loop_text


def _count(text: str, opcode: str, follow: tuple[str, ...] = ()) -> int:
    """How often one execution runs an opcode."""

    def amounts(_: str, instruction: Instruction) -> dict[str, int]:
        return {opcode: int(instruction.opcode == opcode)}

    return sum_over_execution(read_program(text), amounts, follow)[opcode]


@pytest.mark.parametrize(
    ("start", "stop", "step", "turns"), [(0, 28, 1, 28), (2, 9, 2, 4), (5, 5, 1, 0), (-1, 3, 1, 4)]
)
def test_turns_are_worked_out_where_the_compiler_does_not_write_them(start, stop, step, turns):
    text = loop_text("body", start, stop, step)
    assert _count(text, "collective-permute") == turns
    assert loops_are_known(read_program(text))


def test_a_loop_of_another_form_is_counted_once_and_said_to_be_unknown():
    text = loop_text("body", 9, 0, -1, "GT")
    assert _count(text, "collective-permute") == 1
    assert not loops_are_known(read_program(text))


BRANCHES = textwrap.dedent("""
    HloModule m

    %one (p.1: f32[8]) -> f32[8] {
      %p.1 = f32[8]{0} parameter(0)
      ROOT %s.1 = f32[8]{0} sine(%p.1)
    }

    %fused (p.2: f32[8]) -> f32[8] {
      %p.2 = f32[8]{0} parameter(0)
      ROOT %s.2 = f32[8]{0} sine(%p.2)
    }

    %two (p.3: f32[8]) -> f32[8] {
      %p.3 = f32[8]{0} parameter(0)
      %s.3 = f32[8]{0} sine(%p.3)
      %s.4 = f32[8]{0} sine(%s.3)
      ROOT %f = f32[8]{0} fusion(%s.4), kind=kLoop, calls=%fused
    }

    ENTRY %main (i: s32[], a: f32[8]) -> f32[8] {
      %i = s32[] parameter(0)
      %a = f32[8]{0} parameter(1)
      ROOT %c = f32[8]{0} conditional(%i, %a, %a), branch_computations={%one, %two}
    }
""")


@pytest.mark.parametrize(("follow", "sines"), [((), 2), (("fusion",), 3)])
def test_the_larger_branch_counts_and_fusions_only_where_they_are_followed(follow, sines):
    assert _count(BRANCHES, "sine", follow) == sines
