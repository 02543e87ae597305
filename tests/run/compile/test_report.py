"""The report of a program: what the compiler's own analyses do not give, and a text of it all."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.errors import InputError
from fmjax.roofline.collectives import collectives
from fmjax.roofline.hlo import read_program
from fmjax.roofline.memory_traffic import memory_traffic
from fmjax.run.compile.report import compile_and_report, compile_report_text, print_report
from fmjax.run.compile.topology import devices_of
from fmjax.training.mesh import make_mesh
from tests.run.compile.compiler import needs_compiler

REPORT = {
    "program": "p",
    "topology": "v5e:2x2",
    "devices": 4,
    "chip": "TPU v5e",
    "mesh": {"data": 1, "fsdp": 4},
    "examples": 64,
    "model_flops": 2e9,
    "fits": True,
    "memory": {
        "arguments": 2**20,
        "outputs": 0,
        "temporaries": 3 * 2**30,
        "program": 2**19,
        "total": 4 * 2**30,
        "chip": 16 * 2**30,
    },
    "collectives": {"all-gather": {"count": 3, "bytes": 1_250_000}},
    "memory_traffic": 5_000_000_000,
    "loops_are_known": True,
    "compile_seconds": 3.0,
    "compute_bound_ms": 1.5,
    "memory_bound_ms": 6.25,
    "examples_per_second_at_peak": 1000.0,
}


def test_the_text_has_every_figure():
    assert compile_report_text(REPORT).splitlines() == [
        "p: 64 examples on 4 x TPU v5e (v5e:2x2), mesh.data=1 mesh.fsdp=4; compiled in 3 s. Per "
        "device and execution:",
        "  memory: 4.00 GiB of 16.00 GiB, it fits: arguments 1.0 MiB, temporaries 3.00 GiB, "
        "outputs 0.0 MiB, program 0.5 MiB",
        "  memory traffic: 5 GB, 6.25 ms at the memory's bandwidth",
        "  operations of the model: 2 G, 1.5 ms at the chip's peak, which is 1000 examples/s on "
        "all devices",
        "  all-gather: 3, 1.25 MB in all",
    ]


def test_counts_are_lower_bounds_where_a_loop_is_not_known():
    lines = compile_report_text(REPORT | {"loops_are_known": False}).splitlines()
    assert lines[2].startswith("  memory traffic: at least 5 GB")
    assert lines[4] == "  all-gather: at least 3, 1.25 MB in all"


@needs_compiler
def test_what_the_compilers_own_analyses_do_not_give():
    """Where one of these fails, `fmjax.roofline` may read less of the program's text."""
    mesh = make_mesh(devices_of("v5e:2x2"))
    rows, whole = NamedSharding(mesh, P(mesh.axis_names)), NamedSharding(mesh, P())

    def compiled(function, turns):
        shapes = ((turns, 1024, 1024), whole), ((4096, 1024), rows)
        arguments = [jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=at) for s, at in shapes]
        return jax.jit(lambda w, x: function(w, x).sum()).lower(*arguments).compile()

    def scan(weights, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]

    loops = {turns: compiled(scan, turns) for turns in (4, 32)}
    costs = {turns: program.cost_analysis() for turns, program in loops.items()}
    texts = {turns: read_program(program.as_text()) for turns, program in loops.items()}
    # Eight times the turns: the text knows, the analysis does not.
    assert costs[32]["flops"] < 1.1 * costs[4]["flops"]
    assert memory_traffic(texts[32]) > 4 * memory_traffic(texts[4])
    # The collectives are in the text, and no key of the analysis speaks of them.
    assert collectives(texts[4])["all-reduce"].count == 1
    assert not [key for key in costs[4] if "reduce" in key or "collective" in key]


@needs_compiler
def test_a_program_too_large_is_refused_in_a_sentence():
    mesh = make_mesh(devices_of("v5e:1x1"))
    x = jax.ShapeDtypeStruct((60_000, 60_000), jnp.float32, sharding=NamedSharding(mesh, P()))
    lowered = jax.jit(lambda x: (jnp.sin(x).T + x).sum(0)[None] * x + x.T).lower(x)
    report = compile_and_report(lowered, mesh, 1, None)
    assert report["fits"] is False
    assert report["memory"]["chip"] == pytest.approx(15.75 * 2**30)
    assert report["memory"]["total"] > 2 * 60_000**2 * 4 * 0.9
    with pytest.raises(InputError, match=r"does not fit: it needs \d+\.\d+ GiB at least on each"):
        print_report({"program": "p", "topology": "v5e:1x1"} | report)
