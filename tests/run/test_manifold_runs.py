"""Runs on a manifold: trained, sampled, shown, measured and refused by the commands of all runs."""

import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from fmjax.data.points import Points
from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe
from fmjax.factory.registry import make_solver
from fmjax.likelihood import Exact
from fmjax.manifolds import Torus
from fmjax.run.distill.student import Plan as Distillation
from fmjax.run.distill.student import distill
from fmjax.run.evaluate.measure import describe_evaluation, evaluate_flow
from fmjax.run.likelihood.measure import Question, measure
from fmjax.run.likelihood.report import describe_likelihood
from fmjax.run.reflow.rounds import Plan, reflow
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.export import export_run
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.train.training import train
from fmjax.samplers import sde_spec, solver_spec
from tests.run.conftest import small_config
from tests.run.train.test_train import assert_same_bits, read_state

TORUS = {
    "data__name": "toy/torus_checkerboard",
    "path__name": "geodesic",
    "source__name": "uniform",
    "train__sample_every": 12,
    "eval__num": 40,
}
RECIPE = Recipe(make_solver("geodesic_heun", 3), Guidance())


@pytest.fixture(scope="module")
def torus(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("torus") / "run"
    assert train(small_config(**TORUS), workdir) == 0
    return workdir


@pytest.mark.nightly
def test_points_and_a_picture_of_them_are_written(torus, tmp_path):
    assert open_run(torus).spec.codec == Points("torus", 2)
    sample(torus, tmp_path, Request(9, (0, 2), (1.5,)), RECIPE, trajectory=True)
    with np.load(tmp_path / "samples.npz") as content:
        x = content["samples"]
    assert (x.shape, x.dtype) == ((9, 2), np.float32)
    Torus(2).check("the samples", x)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (320, 320)
    with Image.open(torus / "samples" / "final.png") as picture:
        assert picture.size == (656, 320)  # beside real points
    with Image.open(tmp_path / "trajectory.gif") as gif:
        assert gif.size == (320, 320)


@pytest.mark.slow
def test_held_out_points_have_a_likelihood_in_nats(torus):
    solver = solver_spec("geodesic_heun", 4)
    report = measure(torus, Question(num=30), solver, Exact(), batch_size=16)
    assert report["dims"] == 2
    assert "bits_per_dim" not in report
    assert report["solver"]["manifold"] == "Torus(n=2)"
    assert report["nats"]["mean"] == pytest.approx(-np.log(4 * np.pi**2), abs=0.5)
    assert "nats per example" in describe_likelihood(report)
    flow = restore_flow(torus, open_run(torus))
    found = evaluate_flow(flow, flow.experiment.data.load(), Request(10), RECIPE)
    assert found["examples"] == 40
    assert found["nll_uniform"] == pytest.approx(2 * np.log(2 * np.pi))
    assert found["nll"]["mean"] == pytest.approx(found["nll_uniform"], abs=0.5)
    said = describe_evaluation(found)
    assert said.startswith("negative log-likelihood of 40 held-out points: ")
    assert "(of the uniform distribution: 3.6758)" in said


@pytest.mark.slow
def test_points_to_start_from_are_on_the_manifold(torus, tmp_path):
    np.save(tmp_path / "x0.npy", np.full((4, 2), 0.5, np.float32))
    sample(torus, tmp_path / "out", Request(4, x0=tmp_path / "x0.npy"), RECIPE)
    np.save(tmp_path / "x0.npy", np.full((4, 2), 90, np.float32))
    with pytest.raises(InputError, match=r"angles in radians .* got points off by up to 83.7"):
        sample(torus, tmp_path / "none", Request(4, x0=tmp_path / "x0.npy"), RECIPE)


@pytest.mark.slow
def test_what_flat_space_alone_has_is_refused(torus, tmp_path):
    with pytest.raises(InputError, match="adds noise by the score, which a flow on a manifold"):
        sample(torus, tmp_path / "a", Request(2), Recipe(sde_spec("stochastic_heun", 3)))
    with pytest.raises(InputError, match=r"reflow, .*, is of flows in flat space, and this one is"):
        reflow(torus, 1, Plan())
    with pytest.raises(InputError, match=r"the command distill .* is of flows in flat space"):
        distill(torus, tmp_path / "c", Distillation())


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits(torus, train_small):
    workdir = train_small(**TORUS)
    for step in ("8", "12"):
        shutil.rmtree(workdir / "checkpoints" / step)
    train_small(workdir, **TORUS)
    assert_same_bits(read_state(workdir), read_state(torus))


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["fsdp", "tensor", "pmap"])
def test_two_devices_train_as_one_does(how, torus, tmp_path, run_python):
    changes = {"fsdp": {"mesh__fsdp": 2}, "tensor": {"mesh__tensor": 2}}.get(how, {})
    keys = flatten_dict(small_config(**TORUS, **changes).to_dict(), sep=".")
    run_python(
        f"""
        from pathlib import Path
        import jax
        from fmjax.config import default_config
        from fmjax.run.train.training import train
        assert jax.device_count() == 2
        config = default_config()
        config.update_from_flattened_dict({keys!r})
        train(config, Path({str(tmp_path / "run")!r}), {"pmap" if how == "pmap" else "jit"!r})
        """,
        devices=2,
    )
    one, two = read_state(torus)["params"], read_state(tmp_path / "run")["params"]
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_an_exported_sampler_draws_the_same_points(torus, tmp_path):
    asked = Request(4, (0, 1), (1.5,))
    sample(torus, tmp_path / "out", asked, RECIPE)
    export_run(torus, tmp_path / "sampler", asked, RECIPE)
    exported = jax.export.deserialize(bytearray((tmp_path / "sampler").read_bytes()))
    index = np.arange(4, dtype=np.int32)
    samples = exported.call(np.uint32(0), index, index % 2, np.full(4, 1.5, np.float32))
    with np.load(tmp_path / "out" / "samples.npz") as content:
        expected = content["samples"]
    np.testing.assert_allclose(samples, expected, atol=1e-5)
    Torus(2).check("the samples", np.asarray(samples))


@pytest.mark.slow
def test_adapters_train_on_a_manifold_and_leave_the_base(torus, train_small, tmp_path):
    config = small_config(**TORUS, lora__rank=2)
    assert train(config, tmp_path / "tuned", init_from=torus) == 0
    base, tuned = (restore_flow(run, open_run(run)).params for run in (torus, tmp_path / "tuned"))
    before = flatten_dict(base, sep="/")
    after = flatten_dict(tuned, sep="/")
    changed = [name for name, x in after.items() if np.abs(x - before[name]).max() > 0]
    assert changed
    assert all(name.endswith("kernel") for name in changed)
    sample(tmp_path / "tuned", tmp_path / "out", Request(9, (0, 2), (1.5,)), RECIPE)
    with np.load(tmp_path / "out" / "samples.npz") as content:
        Torus(2).check("the samples", content["samples"])
