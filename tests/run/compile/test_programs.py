"""Training steps and samplers are compiled for TPUs, and mistakes are refused before that."""

import json

import pytest

from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.run.compile.programs import compile_sampling, compile_training, record_of
from fmjax.run.compile.report import compile_report_text, print_report
from fmjax.run.sample.request import Request
from fmjax.samplers import solver_spec
from tests.run.compile.compiler import needs_compiler
from tests.run.conftest import small_config


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
    assert report["memory_traffic"] >= report["memory"]["arguments"]
    matmuls = 3 * 2 * (4 * 256**2 + 64 * 256 + 4 * 256)
    assert report["model_flops"] == pytest.approx(matmuls * 64 / 4)
    assert report["compute_bound_ms"] == pytest.approx(1e3 * report["model_flops"] / 197e12)
    assert json.loads(json.dumps(report)) == report
    assert print_report(report) == 0
    assert capsys.readouterr().out == compile_report_text(report) + "\n"

    recipe = Recipe(solver_spec("euler", 4))
    sampled = compile_sampling(
        record_of(config, None), "v5e:2x2", Request(10), recipe, batch_size=30
    )
    assert sampled["examples"] == 32  # a multiple of the devices
    # 4 steps of two branches, each a third of a training example.
    assert sampled["model_flops"] == pytest.approx(4 * 2 * matmuls / 3 * 32 / 4)
