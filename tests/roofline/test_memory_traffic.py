"""Bytes through memory are those a hand would count, in compiled programs and in known text."""

import textwrap

import jax
import jax.numpy as jnp
import pytest

from fmjax.roofline.hlo import loops_are_known, read_program
from fmjax.roofline.memory_traffic import memory_traffic


def _compiled(function, *shapes, **options) -> int:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function, **options).lower(*arguments).compile()
    return memory_traffic(read_program(compiled.as_text()))


def _traffic(text: str) -> int:
    return memory_traffic(read_program(textwrap.dedent(text)))


def test_what_is_elementwise_reads_and_writes_once():
    assert _compiled(lambda x, y: jnp.sin(x) * 2 + y, (1000,), (1000,)) == 3 * 4000


def test_a_loop_reads_its_slices_once_for_each_turn():
    """Five turns, each with its own 16 KB of the stack, and the carried array in and out."""

    def total(stack, x):
        return jax.lax.scan(lambda h, w: (jnp.cos(h) + w, None), x, stack)[0]

    bytes_ = _compiled(total, (5, 64, 64), (64, 64))
    needed = 5 * 3 * 64 * 64 * 4
    assert needed <= bytes_ < 1.3 * needed


def test_an_update_in_place_counts_what_it_updates():
    def update(x, y):
        return jax.lax.dynamic_update_slice(x, y, (5,))

    assert _compiled(update, (100_000,), (10,), donate_argnums=0) < 500


TPU = """
    HloModule m

    %scaled (p: f32[8,100], i: s32[]) -> f32[1,100] {
      %p = f32[8,100]{1,0:T(8,128)} parameter(0)
      %i = s32[]{:T(128)S(6)} parameter(1)
      %zero = s32[] constant(0)
      %cast = bf16[8,100]{1,0} convert(%p)
      %slice = bf16[1,100]{1,0} dynamic-slice(%cast, %i, %zero), dynamic_slice_sizes={1,100}
      ROOT %out = f32[1,100]{1,0} convert(%slice)
    }

    ENTRY %main (a: f32[8,100], i: s32[]) -> f32[1,100] {
      %a = f32[8,100]{1,0:T(8,128)} parameter(0)
      %i.1 = s32[]{:T(128)S(6)} parameter(1)
      %near = (f32[8,100]{1,0:T(8,128)S(1)}, f32[8,100]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
      %there = f32[8,100]{1,0:T(8,128)S(1)} copy-done(%near)
      %cheap = f32[8,100]{1,0:T(8,128)S(1)} add(%there, %there)
      %far = (f32[8,100]{1,0}, f32[8,100]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%cheap)
      %back = f32[8,100]{1,0:T(8,128)} copy-done(%far)
      %held = f32[8,100]{1,0} custom-call(), custom_call_target="AllocateBuffer"
      ROOT %f = f32[1,100]{1,0:T(8,128)} fusion(%back, %i.1), kind=kLoop, calls=%scaled
    }
"""


def test_on_chip_memory_is_free_and_the_way_to_it_is_not():
    whole, row = 8 * 100 * 4, 100 * 4
    # Out to the chip, back, and a fusion that reads a row, which it casts, and writes one.
    assert _traffic(TPU) == 2 * whole + 2 * row


UPDATE = """
    HloModule m

    %stored (stack: f32[8,100], row: f32[1,100], i: s32[]) -> f32[8,100] {
      %stack = f32[8,100]{1,0} parameter(0)
      %row = f32[1,100]{1,0} parameter(1)
      %i = s32[] parameter(2)
      %zero = s32[] constant(0)
      %twice = f32[1,100]{1,0} add(%row, %row)
      ROOT %u = f32[8,100]{1,0} dynamic-update-slice(%stack, %twice, %i, %zero)
    }

    ENTRY %main (a: f32[8,100], b: f32[1,100], k: s32[]) -> f32[8,100] {
      %a = f32[8,100]{1,0} parameter(0)
      %b = f32[1,100]{1,0} parameter(1)
      %k = s32[] parameter(2)
      ROOT %f = f32[8,100]{1,0} fusion(%a, %b, %k), kind=kLoop, calls=%stored
    }
"""


def test_a_fusion_that_updates_in_place_leaves_the_rest_alone():
    index, row = 4, 100 * 4
    assert _traffic(UPDATE) == index + 2 * row


NESTED = """
    HloModule m

    %taken (p: f32[8,100], i: s32[]) -> f32[1,100] {
      %p = f32[8,100]{1,0} parameter(0)
      %i = s32[] parameter(1)
      %zero = s32[] constant(0)
      ROOT %slice = f32[1,100]{1,0} dynamic-slice(%p, %i, %zero), dynamic_slice_sizes={1,100}
    }

    %outer (q: f32[8,100], j: s32[]) -> f32[1,100] {
      %q = f32[8,100]{1,0} parameter(0)
      %j = s32[] parameter(1)
      %inner = f32[1,100]{1,0} fusion(%q, %j), kind=kLoop, calls=%taken
      ROOT %twice = f32[1,100]{1,0} add(%inner, %inner)
    }

    ENTRY %main (a: f32[8,100], k: s32[]) -> f32[1,100] {
      %a = f32[8,100]{1,0} parameter(0)
      %k = s32[] parameter(1)
      ROOT %f = f32[1,100]{1,0} fusion(%a, %k), kind=kOutput, calls=%outer
    }
"""


def test_a_fusion_inside_a_fusion_is_looked_into():
    index, row = 4, 100 * 4
    assert _traffic(NESTED) == index + 2 * row


def test_a_loop_of_unknown_length_is_said_to_be_one():
    program = jax.jit(lambda x: jax.lax.while_loop(lambda c: c.sum() < 100, lambda c: c * 2, x))
    text = program.lower(jax.ShapeDtypeStruct((1000,), jnp.float32)).compile().as_text()
    assert not loops_are_known(read_program(text))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_size_is_that_of_the_dtype(dtype):
    program = jax.jit(lambda x: -x).lower(jax.ShapeDtypeStruct((1000,), dtype)).compile()
    size = jnp.dtype(dtype).itemsize
    assert memory_traffic(read_program(program.as_text())) == 2 * 1000 * size


def test_cost_analysis_still_counts_a_loop_once():
    """Where it does not, `fmjax.roofline` may read less of the text."""

    def bytes_and_flops(turns: int) -> tuple[float, float]:
        def f(stack, x):
            return jax.lax.scan(lambda h, w: (jnp.sin(h @ w), None), x, stack)[0]

        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((turns, 64, 64), (64, 64))]
        costs = jax.jit(f).lower(*shapes).compile().cost_analysis()
        return costs["bytes accessed"], costs["flops"]

    few, many = bytes_and_flops(4), bytes_and_flops(32)
    assert many[1] < 1.1 * few[1]
    assert many[0] < 2 * few[0]
