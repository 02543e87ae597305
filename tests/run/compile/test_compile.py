"""A program is compiled for TPUs that are not there, and what is wrong is said before that."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.run.compile import topology
from fmjax.run.compile.programs import compile_sampling, compile_training, print_report, record_of
from fmjax.run.compile.report import compile_and_report, describe
from fmjax.run.sample.request import Request
from fmjax.samplers.ode import solver_spec
from fmjax.training.mesh import make_mesh
from tests.run.conftest import small_config

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v5e", "is written like v5e:4x4"),
        ("v5e-16", "is written like v5e:4x4"),
        ("v5e:4x4*0", "has 2 axes of at least one chip"),
        ("v5e:4x4x4", "a v5e slice has 2 axes"),
        ("v4:4x4", "a v4 slice has 3 axes"),
        ("v5:4x4", "unknown TPU 'v5'. Did you mean 'v5p'?"),
    ],
)
def test_a_topology_that_is_none(name, sentence):
    with pytest.raises(InputError) as error:
        topology.parse(name)
    assert sentence in str(error.value)


def test_a_topology_is_read():
    parsed = topology.parse("v4:2x2x4*3")
    assert parsed == topology.Topology("v4:2x2x4*3", "v4", (2, 2, 4), 3)
    assert parsed.options == {"num_slices": 3, "chip_config_name": "megacore"}


def test_without_the_compiler_the_wheel_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "jax\[tpu\]=='):
        topology.devices_of("v5e:4x4")


@needs_compiler
@pytest.mark.parametrize(("name", "devices"), [("v5e:4x4", 16), ("v4:2x2x1", 4), ("v5e:2x2*2", 8)])
def test_the_devices_of_a_topology(name, devices):
    found = topology.devices_of(name)
    assert len(found) == devices
    assert {device.platform for device in found} == {"tpu"}
    assert make_mesh(found).size == devices


@needs_compiler
def test_a_topology_that_the_compiler_refuses():
    with pytest.raises(InputError, match=r"does not know 'v5e:3x3'.*sizes above 1 are even"):
        topology.devices_of("v5e:3x3")


def test_only_a_mesh_compiles_for_a_topology():
    with pytest.raises(InputError, match="only --parallel=jit"):
        compile_training(small_config(), "v5e:2x2", "pmap")


def test_data_that_are_not_there_have_a_stand_in():
    with pytest.raises(InputError, match=r"random/32x32x3/10"):
        compile_training(small_config(data__name="cifar10", data__dir="/nowhere"), "v5e:2x2")


@needs_compiler
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mesh__fsdp": 3}, "multiply to the 4 devices"),
        ({"train__batch_size": 30}, "a global batch of 30"),
    ],
)
def test_what_does_not_fit_the_topology_is_said_before_compilation(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        compile_training(small_config(**changes), "v5e:2x2")


def test_either_a_run_or_a_configuration_is_sampled(tmp_path):
    for given in ((None, None), (small_config(), tmp_path)):
        with pytest.raises(InputError, match="either --workdir"):
            record_of(*given)


@needs_compiler
def test_a_program_too_large_is_refused_in_a_sentence():
    mesh = make_mesh(topology.devices_of("v5e:1x1"))
    x = jax.ShapeDtypeStruct((60_000, 60_000), jnp.float32, sharding=NamedSharding(mesh, P()))
    lowered = jax.jit(lambda x: (jnp.sin(x).T + x).sum(0)[None] * x + x.T).lower(x)
    report = compile_and_report(lowered, mesh, 1, None)
    assert report["fits"] is False
    assert report["memory"]["chip"] == pytest.approx(15.75 * 2**30)
    assert report["memory"]["total"] > 2 * 60_000**2 * 4 * 0.9
    with pytest.raises(InputError, match=r"does not fit: it needs \d+\.\d+ GiB at least on each"):
        print_report({"program": "p", "topology": "v5e:1x1"} | report)


@needs_compiler
@pytest.mark.slow
def test_a_training_step_and_a_sampler_are_compiled_for_four_chips(capsys):
    sizes = {"model__width": 256, "model__depth": 2, "mesh__data": 1, "mesh__fsdp": -1}
    config = small_config(**sizes, train__batch_size=64)
    report = compile_training(config, "v5e:2x2")
    assert report["devices"] == 4
    assert report["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}
    state = 4 * 4 * (4 * 256**2 + 64 * 256)  # parameters, average, two moments: all large layers
    assert 0.9 * state / 4 < report["memory"]["arguments"] < 1.3 * state / 4  # held in shards
    assert report["memory"]["total"] > report["memory"]["arguments"]
    moved = {kind: sums["bytes"] for kind, sums in report["collectives"].items()}
    assert sum(moved.values()) > 3 * 256**2 * 2  # weights gathered, gradients summed
    assert report["memory_traffic"]["bytes"] >= report["memory"]["arguments"]
    products = 3 * 2 * (4 * 256**2 + 64 * 256 + 4 * 256)
    assert report["model_flops"] == pytest.approx(products * 64 / 4)
    assert report["compute_floor_ms"] == pytest.approx(1e3 * report["model_flops"] / 197e12)
    assert json.loads(json.dumps(report)) == report
    assert print_report(report) == 0
    assert capsys.readouterr().out == describe(report) + "\n"

    request = Request(10, (), None)
    sampled = compile_sampling(
        record_of(config, None), "v5e:2x2", request, Recipe(solver_spec("euler", 4)), batch_size=30
    )
    assert sampled["examples"] == 32  # a multiple of the devices
    # 4 steps of two branches, each a third of a training example.
    assert sampled["model_flops"] == pytest.approx(4 * 2 * products / 3 * 32 / 4)
