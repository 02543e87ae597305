"""Runs of flow maps that take the scale of guidance, or give a divergence or a second head."""

import jax
import numpy as np
import pytest

from fmjax import Span
from fmjax.data.load import load
from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe, make_experiment, spec_of
from fmjax.flow_maps import Jumps, few_step_log_likelihood
from fmjax.likelihood import Exact
from fmjax.run.likelihood.measure import Question, measure
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.to_disk import sample
from fmjax.run.train.setup import build, check, with_teacher
from fmjax.run.train.training import train
from fmjax.run.weights.initial import Initial, initial_params
from fmjax.samplers import solver_spec
from tests.run.conftest import small_config
from tests.run.test_flow_maps import LABELS, N, T, X, velocity_of

SCALED = {"flow_map__name": "improved_meanflow", "flow_map__guidance_max": 4.0}
MEASURED = {
    "flow_map__name": "lagrangian",
    "flow_map__divergence": True,
    "flow_map__second_head": True,
    "flow_map__span": "any",
}


def make_experiment_of(**changes):
    return make_experiment(small_config(**changes), spec_of(load("toy/moons")))


@pytest.fixture(scope="module")
def scaled(trained, tmp_path_factory):
    """A run whose network takes the scale, taught by another; to be read only."""
    workdir = tmp_path_factory.mktemp("scaled") / "run"
    config = small_config(flow_map__teacher=str(trained), **SCALED)
    assert train(config, workdir, init_from=trained) == 0
    return workdir


@pytest.mark.nightly
def test_a_network_that_takes_the_scale_is_sampled_in_one_evaluation_at_each(scaled, tmp_path):
    assert open_run(scaled).guidance_scale == 1.5
    result = sample(scaled, tmp_path, Request(10, w=(1.0, 3.0)), Recipe(Jumps(1)))
    assert result.nfe == 1
    flow = restore_flow(scaled, open_run(scaled))
    with np.load(tmp_path / "samples.npz") as content:
        samples, labels = content["samples"], content["labels"]
    x0 = flow.experiment.source.sample(jax.random.key(0), np.arange(10), (2,))
    span = Span(np.zeros(10, np.float32), np.ones(10, np.float32))
    scale = np.array([1.0, 3.0] * 5, np.float32)
    u = flow.experiment.scaled_fn(flow.params, x0, span, {"labels": labels, "guidance": scale})
    expected = flow.experiment.spec.codec.decode(x0 + u)
    np.testing.assert_allclose(samples, expected, rtol=1e-5, atol=1e-5)
    at_one = flow.experiment.apply_fn(flow.params, x0, span, labels)
    np.testing.assert_allclose(at_one[::2], u[::2], rtol=1e-5, atol=1e-6)
    assert np.abs(at_one - u)[1::2].max() > np.abs(at_one - u)[::2].max()


@pytest.mark.slow
def test_it_learns_from_a_teacher_guided_at_each_scale(trained, tmp_path):
    config = small_config(flow_map__teacher=str(trained), **SCALED, flow_map__diagonal=1.0)
    run = with_teacher(build(config, tmp_path / "run", "jit"))
    plain, null = velocity_of(trained), np.full(N, 2, np.int32)
    batch = {"x1": X, "labels": LABELS % 2, "index": np.arange(N)}
    args = run.experiment.draw(jax.random.key(0), batch)
    w = np.asarray(args.noise["w"])
    assert w.min() >= 1
    assert w.max() <= 4
    assert np.ptp(w) > 0.5
    params = initial_params(Initial(trained), run.experiment, run.layout.mesh)
    x_t = run.experiment.path.sample(args.x0, args.x1, args.t.s).x_t
    without, conditional = plain(x_t, args.t.s, null), plain(x_t, args.t.s, args.labels)
    taught = without + w[:, None] * (conditional - without)
    u = run.experiment.scaled_fn(params, x_t, args.t, {"labels": args.labels, "guidance": w})
    loss = run.experiment.loss_fn(params, *args, noise=args.noise)
    np.testing.assert_allclose(loss, np.mean((u - taught) ** 2), rtol=1e-4)


@pytest.mark.parametrize(
    ("w", "guidance", "message"),
    [
        ((5.0,), Guidance(), "learned scales of guidance from 1 to 4; got 5"),
        ((0.5, 2.0), Guidance(), "learned scales of guidance from 1 to 4; got 0.5, 2"),
        ((2.0,), Guidance(rule="zero_star"), "takes the scale as an input, and no guidance by two"),
    ],
)
def test_guidance_that_was_not_learned_is_refused(w, guidance, message):
    with pytest.raises(InputError, match=message):
        resolve(make_experiment_of(**SCALED), Request(4, w=w), Recipe(Jumps(1), guidance))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run that learned the average divergence and a second head; to be read only."""
    workdir = tmp_path_factory.mktemp("measured") / "run"
    assert train(small_config(**MEASURED), workdir) == 0
    return workdir


@pytest.mark.nightly
def test_likelihood_by_jumps_is_that_of_the_trained_network(measured):
    report = measure(measured, Question(num=8), Jumps(2), Exact())
    flow = restore_flow(measured, open_run(measured))
    experiment = flow.experiment
    x, labels = load("toy/moons").arrays("test", 8)
    assert experiment.divergence_scale == 2
    log_p = few_step_log_likelihood(
        lambda x, span, y: experiment.average_fn(flow.params, x, span, y),
        experiment.spec.codec.encode(x),
        labels,
        scale=2.0,
        steps=2,
    )
    np.testing.assert_allclose(report["nats"]["mean"], np.mean(log_p), rtol=1e-5)
    assert report["nfe"] == 2
    assert report["trace"] == "the average divergence, learned"


@pytest.mark.slow
def test_its_velocity_serves_samplers_and_likelihood_by_solving(measured, tmp_path):
    for recipe in (Recipe(Jumps(2)), Recipe(solver_spec("heun", 2))):
        drawn = sample(measured, tmp_path / recipe.solver.describe()["solver"], Request(4), recipe)
        assert drawn.nfe > 0
    assert np.isfinite(measure(measured, Question(num=4), solver_spec("euler", 2), Exact())["nfe"])


@pytest.mark.slow
def test_jumps_tell_no_likelihood_without_the_divergence(scaled):
    with pytest.raises(InputError, match="has not learned the average divergence"):
        measure(scaled, Question(num=8), Jumps(2), Exact())


@pytest.mark.slow
def test_outputs_and_inputs_that_are_new_begin_at_the_trained_flow(trained, tmp_path):
    config = small_config(**MEASURED, flow_map__guidance_max=3.0, flow_map__teacher=str(trained))
    run = build(config, tmp_path / "run", "jit")
    check(run, False, Initial(trained))
    params = initial_params(Initial(trained), run.experiment, run.layout.mesh)
    output = run.experiment.average_fn(params, X, Span(T, T[::-1]), LABELS)
    labels = {"labels": LABELS, "guidance": np.full(N, 2.0, np.float32)}
    scaled = run.experiment.scaled_fn(params, X, Span(T, T[::-1]), labels)
    expected = velocity_of(trained)(X, T, LABELS)
    for part in (output.parts["velocity"], output.parts["diagonal"], scaled):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(output.parts["divergence"], 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "none", "divergence": True}, "flow_map.divergence is of a flow map"),
        ({"guidance_max": 3.0, "guidance": 2.0}, "goes with flow_map.guidance=1"),
        ({"guidance_max": 1.0}, r"flow_map.guidance_max .* must be a number in \(1, inf\)"),
        ({"divergence": True}, "write flow_map.span=any"),
        ({"name": "shortcut", "from_source": 0.5}, "spans of any length"),
    ],
)
def test_keys_that_do_not_fit_are_refused(changes, message):
    changes = {"name": "meanflow"} | changes
    with pytest.raises(InputError, match=message):
        make_experiment_of(**{f"flow_map__{key}": value for key, value in changes.items()})


def test_parts_are_of_networks_that_predict_velocities():
    with pytest.raises(InputError, match=r"write loss.prediction=velocity; got 'x1'"):
        make_experiment_of(**MEASURED, loss__prediction="x1")


def test_a_network_without_the_field_is_named():
    with pytest.raises(InputError, match=r"with parts=\('divergence',\), and .* OnlySpan"):
        make_experiment_of(**MEASURED | {"flow_map__second_head": False},
                           model__name="tests.run.test_flow_map_outputs:only_span")  # fmt: skip


def only_span(config, conditions):
    class OnlySpan:
        span = init = apply = None

    return OnlySpan()
