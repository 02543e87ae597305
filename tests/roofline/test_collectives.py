"""Collectives are counted as a hand would count them, in programs and in text of known content."""

import json
import textwrap

import pytest

from fmjax.roofline.collectives import Collectives, collectives
from fmjax.roofline.hlo import read_program
from tests.roofline.texts import loop_text

# Eight devices, an array of 128 numbers over them: 16 on each, 64 bytes in float32.
PROGRAMS = """
    import json

    import jax
    import jax.numpy as jnp
    from jax import lax
    from jax.sharding import AxisType
    from jax.sharding import PartitionSpec as P

    from fmjax.roofline.collectives import collectives
    from fmjax.roofline.hlo import loops_are_known, read_program

    mesh = jax.make_mesh((8,), ("x",), (AxisType.Auto,))
    ring = [(i, (i + 1) % 8) for i in range(8)]


    def repeat(f, turns):
        return lambda x: lax.scan(lambda c, _: (f(c), None), x, None, length=turns)[0]


    def total(x):
        return lax.psum(x, "x") * 0.1


    def until(x):
        return lax.while_loop(lambda c: c.sum() < 100, lambda c: lax.psum(c, "x"), x)


    def either(x):
        return lax.cond(
            x[0] > 0, total, lambda x: lax.all_gather(x, "x", tiled=True).reshape(8, 16).sum(0), x
        )


    programs = {
        "psum": (total, P("x"), P(), "float32"),
        "psum of two": (lambda x: lax.psum((x, x[:4] * 2), "x"), P("x"), P(), "float32"),
        "all_gather": (lambda x: lax.all_gather(x, "x", tiled=True), P("x"), P(), "bfloat16"),
        "psum_scatter": (lambda x: lax.psum_scatter(x, "x", tiled=True), P(), P("x"), "float32"),
        "all_to_all": (
            lambda x: lax.all_to_all(x, "x", 0, 0, tiled=True), P("x"), P("x"), "float32"
        ),
        "ppermute": (lambda x: lax.ppermute(x, "x", ring), P("x"), P("x"), "int8"),
        "in a scan": (
            repeat(lambda x: lax.ppermute(x, "x", ring) * 1.5, 5), P("x"), P("x"), "float32"
        ),
        "in two scans": (repeat(repeat(total, 3), 4), P("x"), P("x"), "float32"),
        "in a while": (until, P("x"), P(), "float32"),
        "in a branch": (either, P("x"), P("x"), "float32"),
        "none": (lambda x: x * 2, P("x"), P("x"), "float32"),
    }
    found = {}
    for name, (f, ins, outs, dtype) in programs.items():
        f = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=ins, out_specs=outs, check_vma=False))
        compiled = f.lower(jax.ShapeDtypeStruct((128,), dtype)).compile()
        program = read_program(compiled.as_text())
        found[name] = collectives(program) | {"loops are known": loops_are_known(program)}
    print(json.dumps(found))
"""
EXPECTED = {
    "psum": {"all-reduce": [1, 64]},
    "all_gather": {"all-gather": [1, 256]},  # the result, 128 numbers of 2 bytes
    "psum_scatter": {"reduce-scatter": [1, 512]},  # the operand
    "all_to_all": {"all-to-all": [1, 64]},
    "ppermute": {"collective-permute": [1, 16]},
    "in a scan": {"collective-permute": [5, 320]},
    "in two scans": {"all-reduce": [12, 768]},
    "in a while": {"all-reduce": [1, 64]},
    "in a branch": {"all-gather": [1, 512]},  # the branch that sends more
    "none": {},
}


@pytest.mark.slow
def test_compiled_programs_are_counted_as_by_hand(run_python):
    found = json.loads(run_python(PROGRAMS, devices=8))
    assert {name for name in found if not found[name].pop("loops are known")} == {"in a while"}
    both = found.pop("psum of two")["all-reduce"]  # combined into one or not, by the backend
    assert both[1] == 80
    assert both[0] in (1, 2)
    # XLA's CPU backend computes bfloat16 in float32, and may gather what it has widened.
    assert found["all_gather"]["all-gather"][1] in (256, 512)
    found["all_gather"]["all-gather"][1] = 256
    assert found == EXPECTED


def _collectives(text: str) -> dict[str, Collectives]:
    return collectives(read_program(text))


@pytest.mark.parametrize("way", ["ag", "rs"])
def test_permutes_in_a_matmul_are_told_apart(way):
    found = _collectives(loop_text(f"wide.windowed_dot_general_body_{way}.1.sunk", 0, 8, 1))
    kind = {"ag": "all-gather in matmul", "rs": "reduce-scatter in matmul"}[way]
    assert found == {kind: Collectives(8, 512)}


ASYNC = """
    %scatter (q: f32[8,4]) -> f32[1,4] {
      %q = f32[8,4]{1,0} parameter(0)
      ROOT %rs = f32[1,4]{1,0} reduce-scatter(%q), dimensions={0}, to_apply=%add
    }

    %all-reduce-scatter.3 (q.2: bf16[8,4]) -> bf16[1,4] {
      %q.2 = bf16[8,4]{1,0} parameter(0)
      %ar = bf16[8,4]{1,0} all-reduce(%q.2), to_apply=%add
      %zero = s32[] constant(0)
      ROOT %slice = bf16[1,4]{1,0} dynamic-slice(%ar, %zero, %zero), dynamic_slice_sizes={1,4}
    }

    ENTRY %main (a: f32[8,4], b: bf16[8,4], c: u32[]) -> f32[1,4] {
      %a = f32[8,4]{1,0} parameter(0)
      %b = bf16[8,4]{1,0} parameter(1)
      %c = u32[] parameter(2)
      %s = ((f32[8,4]{1,0}), f32[1,4]{1,0}, u32[]{:S(2)}) async-start(%a), calls=%scatter
      %u = ((f32[8,4]{1,0}), f32[1,4]{1,0}, u32[]{:S(2)}) async-update(%s), calls=%scatter
      %d = f32[1,4]{1,0} async-done(%u), calls=%scatter
      %ags = (bf16[8,4]{1,0}, bf16[64,4]{1,0}) all-gather-start(%b), dimensions={0}
      %agd = bf16[64,4]{1,0} all-gather-done(%ags)
      %g2s = ((bf16[8,4], u32[]), (bf16[64,4], u32[8])) all-gather-start(%b, %c), dimensions={0}
      %g2d = (bf16[64,4], u32[8]) all-gather-done(%g2s)
      %ars = (f32[8,4]{1,0}, bf16[8,4]{1,0}) all-reduce-start(%a, %b), to_apply=%add
      %ard = (f32[8,4]{1,0}, bf16[8,4]{1,0}) all-reduce-done(%ars)
      %cps = (bf16[8,4]{1,0:T(8,128)(2,1)S(1)}, bf16[8,4], u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%b), source_target_pairs={{0,1}}
      %cpd = bf16[8,4]{1,0} collective-permute-done(%cps)
      %f = bf16[1,4]{1,0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.3
      ROOT %r = f32[1,4]{1,0} copy(%d)
    }
"""


def test_asynchronous_pairs_count_once_and_fusions_are_looked_into():
    assert _collectives(textwrap.dedent(ASYNC)) == {
        "all-gather": Collectives(2, 512 + 512 + 32),
        "reduce-scatter": Collectives(2, 128 + 64),  # one of them a fusion around an all-reduce
        "all-reduce": Collectives(1, 128 + 64),
        "collective-permute": Collectives(1, 64),
    }


CHAIN = """
    %first (q: bf16[8,4]) -> (bf16[8,4], bf16[64,4], u32[]) {
      %q = bf16[8,4]{1,0} parameter(0)
      %ag.1 = bf16[64,4]{1,0} all-gather(%q), channel_id=7, frontend_attributes={chain_id="1"}
      ROOT %begin = (bf16[8,4], bf16[64,4], u32[]) custom-call(%ag.1, %q), \
custom_call_target="AsyncCollectiveStart"
    }

    %next (q.1: bf16[8,4], r.1: bf16[64,4]) -> bf16[64,4] {
      %q.1 = bf16[8,4]{1,0} parameter(0)
      %r.1 = bf16[64,4]{1,0} parameter(1)
      ROOT %ag.2 = bf16[64,4]{1,0} all-gather(%q.1), channel_id=7, \
frontend_attributes={chain_id="1"}
    }

    %last (q.2: bf16[8,4], r.2: bf16[64,4]) -> bf16[64,4] {
      %q.2 = bf16[8,4]{1,0} parameter(0)
      %r.2 = bf16[64,4]{1,0} parameter(1)
      %ag.3 = bf16[64,4]{1,0} all-gather(%q.2), channel_id=7, frontend_attributes={chain_id="1"}
      ROOT %end = bf16[64,4]{1,0} custom-call(%ag.3), custom_call_target="AsyncCollectiveDone"
    }

    ENTRY %main (a: bf16[8,4]) -> bf16[64,4] {
      %a = bf16[8,4]{1,0} parameter(0)
      %one = (bf16[8,4], bf16[64,4], u32[]) fusion(%a), kind=kCustom, calls=%first
      %g = bf16[64,4] get-tuple-element(%one), index=1
      %two = bf16[64,4] fusion(%a, %g), kind=kCustom, calls=%next
      ROOT %three = bf16[64,4] fusion(%a, %two), kind=kCustom, calls=%last
    }
"""


def test_a_chain_through_several_fusions_is_one_collective():
    assert _collectives(textwrap.dedent(CHAIN)) == {"all-gather": Collectives(1, 512)}
