"""The likelihood of a run's data, and the command that prints it."""

import dataclasses
import json
import math
import shutil
from functools import partial

import jax
import numpy as np
import pytest
from scipy.stats import norm

from fmjax.data import pixels
from fmjax.data.codecs import Pixels, Vectors
from fmjax.data.load import load
from fmjax.errors import InputError
from fmjax.factory import make_experiment, spec_of
from fmjax.likelihood import Exact, Hutchinson, log_likelihood
from fmjax.run.likelihood.measure import (
    Densities,
    Question,
    _check_finished,
    check_question,
    figures,
    measure,
    measure_arrays,
)
from fmjax.run.likelihood.report import describe_likelihood
from fmjax.run.restore import TrainedFlow, open_run, restore_flow
from fmjax.samplers import solver_spec
from fmjax.training.mesh import make_mesh
from tests.run.conftest import small_config, write_record
from tests.run.forked import finish

COMMAND = ("fmjax/__main__.py", "likelihood")
FIXED = solver_spec("rk4", 4)


@pytest.fixture
def changed(trained, tmp_path):
    """Copies the trained run with another record: no network is trained for it."""

    def copy(**keys):
        workdir = shutil.copytree(trained, tmp_path / "changed")
        record = json.loads((workdir / "run.json").read_text())
        for key, value in keys.items():
            section, name = key.split("__")
            record["config"][section][name] = value
        write_record(workdir, record)
        return workdir

    return copy


@pytest.mark.slow
def test_the_figures_are_those_of_the_examples_at_hand(trained):
    report = measure(trained, Question(num=50), FIXED, Exact(), batch_size=32)
    flow = restore_flow(trained, open_run(trained))
    x, labels = load("toy/moons").arrays("test", 50)
    velocity = partial(flow.experiment.apply_fn, flow.params)
    direct = jax.jit(lambda x, y: log_likelihood(velocity, x, y, FIXED).log_p)(x, labels)
    error = float(np.std(direct, ddof=1)) / math.sqrt(50)
    assert report["nats"]["mean"] == pytest.approx(float(direct.mean()), rel=1e-4)
    assert report["nats"]["std_error"] == pytest.approx(error, rel=1e-4)
    assert report["nats"]["probe_error"] == 0
    assert report["nfe"] == 16
    assert "bits_per_dim" not in report
    assert json.loads(json.dumps(report)) == report
    text = describe_likelihood(report)
    assert "50 examples of the test split, each under its class, step 12" in text
    assert "nats per example" in text
    assert "bits" not in text
    assert "probes" not in text


@pytest.mark.slow
def test_the_probes_of_an_example_do_not_depend_on_the_batch(trained):
    def ask(size, seed=0):
        question = Question(num=50, seed=seed)
        return measure(trained, question, FIXED, Hutchinson(4, "gaussian"), batch_size=size)["nats"]

    whole, exact = ask(50), measure(trained, Question(num=50), FIXED, Exact())["nats"]
    assert ask(16) == pytest.approx(whole, rel=1e-4)
    assert ask(50, seed=1)["mean"] != whole["mean"]
    assert 0 < whole["probe_error"] < whole["std_error"]
    assert abs(whole["mean"] - exact["mean"]) < 4 * whole["probe_error"]
    without = measure(trained, Question(num=50, labels="none"), FIXED, Exact())["nats"]
    assert without["mean"] != exact["mean"]


@pytest.mark.slow
def test_images_are_measured_in_bits_of_their_levels(train_small):
    workdir = train_small(data__name="digits", train__steps=4)
    report = measure(workdir, Question(num=40), FIXED, Hutchinson(2), batch_size=16)
    bits, nats = report["bits_per_dim"], report["nats"]
    assert report["dims"] == 64
    # By the definition: -log2 P / D, with P the density times the volume of a bin.
    expected = -(nats["mean"] + 64 * math.log(2 / 255)) / 64 / math.log(2)
    assert bits["mean"] == pytest.approx(expected, rel=1e-6)
    for name in ("std_error", "probe_error"):
        assert bits[name] == pytest.approx(nats[name] / 64 / math.log(2))
    # Standard normal noise costs log2(127.5) + log2(e) x^2 / 2 + log2(2 pi) / 2 bits: above 8. A
    # flow that has hardly been trained is not far from it, and not below what the levels can be.
    assert 4 < bits["mean"] < 12
    text = describe_likelihood(report)
    assert "an upper bound, by uniform dequantisation" in text
    assert "trained without this noise" in text
    # The noise of the levels is in it: without it, the pixels would be where it is centred.
    other = measure(workdir, Question(num=40, seed=1), FIXED, Exact(), batch_size=16)
    assert other["nats"]["mean"] != nats["mean"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 0.1])
def test_the_bits_of_images_are_those_of_their_levels_under_a_known_density(scale, tmp_path):
    """x1 = scale x0 exactly, so that a level has the probability of its bin under N(0, scale^2)."""
    experiment = make_experiment(small_config(data__name="digits"), spec_of(load("digits")))
    slope = math.log(scale)
    experiment = dataclasses.replace(experiment, apply_fn=lambda params, x, t, labels: slope * x)
    flow = TrainedFlow(tmp_path, experiment, 0, {}, make_mesh())
    levels = np.random.default_rng(0).normal(127.5, 127.5 * scale, (64, 8, 8, 1))
    images = np.clip(levels.round(), 0, 255).astype(np.uint8)
    solver = solver_spec("rk4", 16)
    found = measure_arrays(flow, images, np.zeros(64, np.int32), solver, Exact(), 0, 64)
    edges = (np.stack([images - 0.5, images + 0.5]) / 127.5 - 1) / scale
    exact = -np.log2(np.diff(norm.cdf(edges), axis=0)).mean()
    bits = found["bits_per_dim"]["mean"]
    # Above by what dequantisation costs, w^2 / 24 scale^2 nats a pixel at the most, and by chance.
    assert exact - 2e-3 < bits < exact + (2 / 255 / scale) ** 2 / 24 / math.log(2) + 2e-3


def test_the_error_of_the_probes_is_a_part_of_the_whole():
    rng = np.random.default_rng(0)
    log_p = rng.normal(-3, 2, 400).astype(np.float32)
    found = Densities(log_p, np.full(400, 0.5, np.float32), np.full(400, 26, np.int32))
    report = figures(found, Pixels((4, 4, 1)))
    assert report["nats"]["std_error"] == pytest.approx(2 / 20, rel=0.1)
    assert report["nats"]["probe_error"] == pytest.approx(0.5 / 20)
    assert report["bits_per_dim"]["probe_error"] == pytest.approx(0.025 / 16 / math.log(2))
    assert report["nfe"] == 26
    zero = found._replace(log_p=np.full(400, 16 * math.log(127.5)))
    assert figures(zero, Pixels((4, 4, 1)))["bits_per_dim"]["mean"] == pytest.approx(0, abs=1e-9)
    one = found._replace(std_error=np.full(400, np.nan))
    assert figures(one, Vectors(2))["nats"]["probe_error"] is None


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(num=1), "at least 2"),
        (Question(labels="flase"), "unknown choice of labels 'flase'"),
        (Question(seed=-1), "seed"),
    ],
)
def test_a_wrong_question_is_refused(question, message):
    with pytest.raises(InputError, match=message):
        check_question(question, 8)
    with pytest.raises(InputError, match="batch size"):
        check_question(Question(), 0)


@pytest.mark.parametrize(
    ("keys", "question", "message"),
    [
        ({"path__name": "noisy"}, Question(), "NoisyStraight is stochastic"),
        ({"path__name": "bridge"}, Question(), "BrownianBridge is stochastic"),
        ({"labels__conditional": False}, Question(labels="true"), "write --labels=none"),
        ({}, Question(split="validation"), 'the split must be "train" or "test"'),
    ],
)
def test_a_model_that_has_no_such_likelihood_is_refused(changed, keys, question, message):
    with pytest.raises(InputError, match=message):
        measure(changed(**keys), question, FIXED, Exact())


def test_data_of_another_shape_is_refused(changed, monkeypatch):
    workdir = changed()
    record = json.loads((workdir / "run.json").read_text())
    record["data"]["codec"]["size"] = 3
    write_record(workdir, record)
    with pytest.raises(InputError, match=r"of shape \(3,\); 'toy/moons' now has \(2,\)"):
        measure(workdir, Question(), FIXED, Exact())


@pytest.mark.slow
def test_a_solve_that_gives_up_says_how_far_it_came(trained):
    spec = solver_spec("dopri5", rtol=1e-7, atol=1e-7, max_steps=2)
    with pytest.raises(FloatingPointError, match=r"did not reach t = 0 .* stopped at t = 0\.\d+"):
        measure(trained, Question(num=20), spec, Exact())


def test_a_density_that_is_not_finite_is_named():
    ones = np.ones(4)
    log_p, success = np.array([0.0, 1.0, np.nan, 2.0]), np.array([True, True, False, True])
    with pytest.raises(FloatingPointError, match=r"1 of 4 examples \(the first: number 130\) have"):
        _check_finished(128, log_p, 0 * ones, ones, success, 0 * ones)
    _check_finished(128, log_p, 0 * ones, ones, success | True, 0 * ones)


@pytest.mark.slow
def test_the_command_prints_and_writes_its_figures(trained, commands, tmp_path):
    out = tmp_path / "new" / "nats.json"
    command = commands.start(
        *COMMAND,
        f"--workdir={trained}",
        "--num=20",
        "--steps=4",
        "--solver=rk4",
        "--probes=3",
        "--kind=gaussian",
        "--labels=none",
        f"--out={out}",
        devices=2,
    )
    (said,) = finish(command)
    report = json.loads(out.read_text())
    assert report["solver"] == solver_spec("rk4", 4).describe()
    assert report["trace"] == "3 gaussian probes"
    assert "20 examples of the test split, without a class" in said
    assert f"{report['nats']['mean']:.1f}"[:-1] in said
    again = measure(
        trained, Question("test", 20, "none"), FIXED, Hutchinson(3, "gaussian"), batch_size=128
    )
    assert again["nats"] == pytest.approx(report["nats"], rel=1e-4)
    for flags, message in (
        ([], "--workdir=runs/digits"),
        (["--exact", "--probes=3"], "leave --exact or --probes out"),
        (["--probes=0"], "number of probes"),
        (["--split=all"], "value should be one of <test|train>"),
    ):
        where = [f"--workdir={trained}"] if flags else []
        (said,) = finish(commands.start(*COMMAND, *where, *flags), code=2)
        assert message in said


def test_pixels_and_bits_agree_on_the_width_of_a_bin():
    unit = np.asarray(pixels.to_unit(np.arange(256, dtype=np.uint8)), np.float64)
    np.testing.assert_allclose(np.diff(unit), pixels.BIN_WIDTH, rtol=1e-4)
