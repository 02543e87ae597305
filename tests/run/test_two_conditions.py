"""Several conditions, vectors and a codec through training, sampling, export and likelihood."""

import json
from functools import partial

import jax
import jax.export
import numpy as np
import pytest

from fmjax import solve
from fmjax.conditions import nulls
from fmjax.data.codecs import Vectors
from fmjax.data.load import load
from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe, make_experiment, spec_of
from fmjax.likelihood import Exact
from fmjax.run.likelihood.measure import Question, measure
from fmjax.run.reflow.rounds import Plan, reflow
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.export import export_run
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.to_disk import sample
from fmjax.run.train.training import train
from fmjax.samplers import sde_spec, solver_spec
from tests.run import two_conditions
from tests.run.conftest import small_config

NAME = "tests.run.two_conditions:load"
RECIPE = Recipe(solver_spec("euler", 2), Guidance())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "two"
    config = small_config(
        data__name=NAME, labels__drop_rate=0.25, labels__drop_all=0.1, train__sample_every=12
    )
    assert train(config, folder) == 0
    return folder


@pytest.mark.slow
def test_each_condition_has_its_null_its_rate_and_its_embedding(trained):
    experiment = open_run(trained)
    rates = {name: c.drop_rate for name, c in experiment.conditions.items()}
    assert rates == {"moon": 0.25, "height": 0.5}
    assert isinstance(experiment.spec.codec, Vectors)
    params = jax.eval_shape(experiment.init_params, jax.random.key(0))["condition"]
    assert params.keys() == {"time", "label_moon", "label_height"}
    n = 4096
    x1, labels = two_conditions.Moons("a").read(np.arange(n) % 256)
    batch = {"x1": x1, "labels": labels, "index": np.arange(n)}
    args = jax.jit(experiment.draw)(jax.random.key(1), batch)
    np.testing.assert_allclose(args.x1, experiment.spec.codec.encode(x1), rtol=1e-5, atol=1e-6)
    dropped = [args.labels["moon"] == 2, args.labels["height"][:, 0] == 9.0]
    expected = [0.1 + 0.9 * p for p in (0.25, 0.5, 0.125)]
    found = [np.mean(x) for x in (*dropped, dropped[0] & dropped[1])]
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / n))


@pytest.mark.slow
def test_samples_take_the_conditions_of_held_out_data_and_are_data(trained, tmp_path):
    sample(trained, tmp_path, Request(40, w=(1.0, 3.0)), RECIPE)
    with np.load(tmp_path / "samples.npz") as content:
        assert sorted(content) == ["height", "moon", "samples", "seed", "solver", "w"]
        # Each of the first twenty at both scales.
        held_out = two_conditions.load().arrays("test", 20)[1]
        np.testing.assert_array_equal(content["moon"], np.tile(held_out["moon"], 2))
        np.testing.assert_array_equal(content["height"], np.tile(held_out["height"], (2, 1)))
        np.testing.assert_array_equal(content["w"], np.repeat([1, 3], 20))
        # In the unit of the data, whose columns have other means and spreads than states.
        spread = content["samples"].std(axis=0) / two_conditions.POINTS["a"][0].std(axis=0)
        assert np.all((spread > 0.2) & (spread < 5))
    assert (tmp_path / "grid.png").exists()
    assert (trained / "samples" / "final.png").exists()


@pytest.mark.slow
def test_the_guidance_of_several_conditions_is_one_call_with_all_nulls(trained, tmp_path):
    both = {}
    for w in (0.0, 300.0):  # hardly trained, it hardly heeds its conditions
        sample(trained, tmp_path / str(w), Request(8, w=(w,)), RECIPE)
        both[w] = np.load(tmp_path / str(w) / "samples.npz")["samples"]
    sample(trained, tmp_path / "none", Request(8, None), RECIPE)
    none = np.load(tmp_path / "none" / "samples.npz")["samples"]
    np.testing.assert_allclose(both[0.0], none, rtol=1e-5, atol=1e-5)  # w = 0 is unconditional
    assert not np.allclose(both[300.0], none, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("in_turn", [False, True])
def test_each_condition_has_a_scale_of_its_own(in_turn, trained, tmp_path):
    guidance = Guidance(scales=(("moon", 2.0), ("height", 50.0)), in_turn=in_turn)
    result = sample(trained, tmp_path, Request(6), Recipe(solver_spec("euler", 2), guidance))
    assert (result.nfe, result.calls) == (2, 6)  # three branches in each of two steps
    flow = restore_flow(trained, open_run(trained))
    experiment = flow.experiment
    with np.load(tmp_path / "samples.npz") as content:
        labels = {name: content[name] for name in ("moon", "height")}
        samples = content["samples"]
    none = nulls(experiment.conditions, 6)

    def velocity(x, t, labels=None):
        u = partial(experiment.apply_fn, flow.params, x, t)
        zero, moon = u(none), u({**none, "moon": labels["moon"]})
        last = u(labels) - moon if in_turn else u({**none, "height": labels["height"]}) - zero
        return zero + 2 * (moon - zero) + 50 * last

    x0 = experiment.source.sample(jax.random.key(0), np.arange(6), (2,))
    x1 = solve(velocity, x0, labels, solver_spec("euler", 2)).x1
    np.testing.assert_allclose(samples, experiment.spec.codec.decode(x1), rtol=1e-4, atol=1e-4)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("guidance", "w", "message"),
    [
        (Guidance(scales=(("moon", 2.0),)), None, "height has none. Write 1"),
        (Guidance(scales=(("sun", 2.0),)), None, "unknown condition 'sun'"),
        (Guidance(scales=(("moon", 2.0), ("height", 2.0))), (3.0,), "leave --guidance out"),
        (Guidance(in_turn=True), None, "a scale for each: write --scales"),
        (Guidance(scales=(("moon", float("nan")),)), None, "the scale of moon"),
        (Guidance(scales=(("moon", 1.0), ("height", 1.0)), negative=0), None, "no negative class"),
    ],
)
def test_scales_that_do_not_fit_are_refused(guidance, w, message, trained):
    recipe = Recipe(solver_spec("euler", 2), guidance)
    with pytest.raises(InputError, match=message):
        resolve(open_run(trained), Request(4, w=w), recipe)


@pytest.mark.slow
def test_an_exported_sampler_takes_the_conditions_by_name(trained, tmp_path):
    request, recipe = Request(6, w=(2.0,)), RECIPE
    export_run(trained, tmp_path / "sampler", request, recipe)
    sampler = jax.export.deserialize(bytearray((tmp_path / "sampler").read_bytes()))
    sample(trained, tmp_path / "out", request, recipe)
    with np.load(tmp_path / "out" / "samples.npz") as content:
        labels = {name: content[name] for name in ("moon", "height")}
        drawn = sampler.call(
            np.uint32(0), np.arange(6, dtype=np.int32), labels, np.full(6, 2.0, "f4")
        )
        np.testing.assert_allclose(drawn, content["samples"], rtol=1e-5, atol=1e-5)


def own(tmp_path, **arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    return tmp_path / "own.npz"


def drawn(folder):
    with np.load(folder / "samples.npz") as content:
        return dict(content)


@pytest.mark.slow
def test_samples_under_own_conditions_are_those_under_the_same_labels(trained, tmp_path):
    held_out = two_conditions.load().arrays("test", 12)[1]
    sample(trained, tmp_path / "a", Request(24, w=(2.0, 1.0)), RECIPE)
    sample(trained, tmp_path / "b", Request(None, own(tmp_path, **held_out), (2.0, 1.0)), RECIPE)
    one, other = drawn(tmp_path / "a"), drawn(tmp_path / "b")
    assert one.keys() == other.keys()
    jax.tree.map(np.testing.assert_array_equal, one, other)
    np.testing.assert_array_equal(one["w"], [2] * 12 + [1] * 12)
    assert json.loads(str(one["solver"])) == json.loads(json.dumps(RECIPE.solver.describe()))
    assert one["seed"] == 0


@pytest.mark.slow
def test_one_row_is_for_all_samples(trained, tmp_path):
    lone = {"moon": np.array([1]), "height": np.array([[0.25]])}
    sample(trained, tmp_path / "out", Request(5, own(tmp_path, **lone)), RECIPE)
    content = drawn(tmp_path / "out")
    np.testing.assert_array_equal(content["height"], [[0.25]] * 5)
    np.testing.assert_array_equal(content["moon"], [1] * 5)
    assert resolve(open_run(trained), Request(None, own(tmp_path, **lone)), RECIPE)[0].num == 100


@pytest.mark.slow
def test_other_conditions_or_points_do_not_go_on_in_the_same_shards(trained, tmp_path):
    height = np.linspace(-1, 1, 6)[:, None]
    points = np.random.default_rng(0).normal(size=(6, 2))

    def ask(points, height):
        file = own(tmp_path, moon=np.zeros(6, int), height=height)
        np.save(tmp_path / "x0.npy", points)
        request = Request(None, file, (1.0,), x0=tmp_path / "x0.npy")
        return sample(trained, tmp_path / "shards", request, RECIPE, batch_size=3, shard_size=3)

    assert ask(points, height).drawn == 6
    assert ask(points, height).drawn == 0
    with pytest.raises(InputError, match="holds other samples, with x0="):
        ask(points + 1e-3, height)
    with pytest.raises(InputError, match="holds other samples, with labels="):
        ask(points, height + 1e-3)
    file = own(tmp_path, moon=np.zeros(6, int), height=height)
    with pytest.raises(InputError, match="holds other samples, with x0="):
        sample(trained, tmp_path / "shards", Request(6, file, (1.0,)), RECIPE, shard_size=3)


@pytest.mark.slow
def test_samples_start_from_own_points(trained, tmp_path):
    points = np.random.default_rng(1).normal(size=(7, 2)).astype(np.float32)
    np.save(tmp_path / "x0.npy", points)
    request = Request(None, None, x0=tmp_path / "x0.npy")
    sample(trained, tmp_path / "out", request, RECIPE, batch_size=4)
    experiment = open_run(trained)
    flow = restore_flow(trained, experiment)
    null = nulls(experiment.conditions, 7)
    x1 = RECIPE.solver.solve(partial(experiment.apply_fn, flow.params), points, null).x1
    expected = experiment.spec.codec.decode(x1)
    np.testing.assert_allclose(drawn(tmp_path / "out")["samples"], expected, rtol=1e-5, atol=1e-5)


def test_own_arrays_that_do_not_fit_are_refused_before_anything_is_read(trained, tmp_path):
    experiment = open_run(trained)
    file = own(tmp_path, moon=np.zeros(3, int), height=np.zeros((3, 1)))
    np.save(tmp_path / "x0.npy", np.zeros((3, 2)))
    with pytest.raises(InputError, match="one row for each of 4 samples, or one for all; got 3"):
        resolve(experiment, Request(4, file), RECIPE)
    with pytest.raises(InputError, match=r"the points of .* must have one row for each of 4"):
        resolve(experiment, Request(4, x0=tmp_path / "x0.npy"), RECIPE)
    with pytest.raises(InputError, match="leave --x0 out"):
        export_run(trained, tmp_path / "f", Request(3, x0=tmp_path / "x0.npy"), RECIPE)


@pytest.mark.slow
def test_the_likelihood_is_that_of_states_under_their_conditions(trained):
    fixed = solver_spec("euler", 2)
    reports = [
        measure(trained, Question(num=16, labels=labels), fixed, Exact())
        for labels in ("true", "none")
    ]
    means = [report["nats"]["mean"] for report in reports]
    assert np.isfinite(means).all()
    assert means[0] != means[1]
    assert "bits_per_dim" not in reports[0]


def test_a_model_may_take_one_condition_of_two():
    dataset = two_conditions.load()
    config = small_config(data__name=NAME, labels__only="height")
    experiment = make_experiment(config, spec_of(dataset))
    assert experiment.conditions.keys() == {"height"}
    x1, labels = dataset.train.read([0, 1])
    args = experiment.draw(jax.random.key(0), {"x1": x1, "labels": labels, "index": np.arange(2)})
    assert args.labels.keys() == {"height"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels__only": "hight"}, "unknown condition of .* 'hight'. Did you mean 'height'"),
        ({"labels__null": 1}, "the labels are not one array of class ids"),
        ({"labels__drop_rate": 1.5}, r"labels.drop_rate .* must be"),
        ({"labels__drop_all": -0.5}, "labels.drop_all .* must be"),
        ({"model__name": "dit", "model__patch_size": 1, "model__width": 8, "model__depth": 1,
          "model__heads": 1}, "x has shape"),
    ],
)  # fmt: skip
def test_conditions_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make_experiment(small_config(data__name=NAME, **changes), spec_of(two_conditions.load()))


def test_class_ids_are_not_asked_of_other_conditions(trained):
    experiment = open_run(trained)
    with pytest.raises(InputError, match="not one array of class ids; write --labels=all"):
        resolve(experiment, Request(4, (0, 1)), RECIPE)
    negative = Recipe(solver_spec("euler", 2), Guidance(negative=1))
    with pytest.raises(InputError, match="a negative class needs labels"):
        resolve(experiment, Request(4, w=(2.0,)), negative)


SOURCES = {
    "uniform": {"source__name": "uniform", "source__low": -3.0, "source__high": 3.0},
    "data": {"source__name": "data", "source__data": "toy/8gaussians", "source__size": 100},
}


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("changes", SOURCES.values(), ids=SOURCES)
def test_a_run_from_another_source_is_sampled_from_it(changes, tmp_path):
    config = small_config(train__steps=4, labels__conditional=False, **changes)
    assert train(config, tmp_path / "run") == 0
    experiment = open_run(tmp_path / "run")
    x0 = experiment.source.sample(jax.random.key(0), np.arange(50), (2,))
    assert np.abs(x0).max() > 2.5
    # Hardly trained, a flow hardly moves: samples lie near their source points.
    one = Recipe(solver_spec("euler", 1), None)
    sample(tmp_path / "run", tmp_path / "out", Request(50), one)
    moved = np.load(tmp_path / "out" / "samples.npz")["samples"] - x0
    assert np.sqrt(np.mean(moved**2)) < 0.5 * np.std(x0)
    with pytest.raises(InputError, match=r"needs the score.* standard normal and independent"):
        resolve(experiment, Request(4), Recipe(sde_spec("churn", 2)))
    if "source__data" in changes:
        # Own points are data of the source's set, whose codec is another than the data's.
        own_points = np.asarray(experiment.source_codec.decode(x0[:5]))
        np.save(tmp_path / "x0.npy", own_points)
        assert experiment.source_codec == load("toy/8gaussians").codec
        own_request = Request(None, None, x0=tmp_path / "x0.npy")
        again = resolve(experiment, own_request, one)[0].x0
        np.testing.assert_allclose(again, x0[:5], rtol=1e-5, atol=1e-5)
        with pytest.raises(InputError, match="no density"):
            measure(tmp_path / "run", Question(num=4), solver_spec("euler", 2), Exact())
    else:  # far outside of the box there is no density
        nats = measure(tmp_path / "run", Question(num=4), solver_spec("euler", 2), Exact())
        np.testing.assert_allclose(nats["nats"]["mean"], -2 * np.log(6), atol=0.5)


def test_a_coupled_run_is_not_sampled_with_noise():
    experiment = make_experiment(
        small_config(coupling__name="ot", labels__conditional=False),
        spec_of(two_conditions.load()),
    )
    with pytest.raises(InputError, match="StandardNormal points, coupled with the data"):
        resolve(experiment, Request(4), Recipe(sde_spec("churn", 2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source__name": "normall"}, "unknown source 'normall'. Did you mean 'normal'"),
        ({"source__name": "data"}, "source.data, the name of its data set, go together"),
        ({"source__data": "toy/moons"}, "go together"),
        ({"source__name": "uniform", "source__low": 2.0}, "source.high must be above source.low"),
        (
            {"source__name": "data", "source__data": "random/4x4x1"},
            r"has examples of shape \(4, 4, 1\), and the data of shape \(2,\)",
        ),
        ({"source__name": "uniform", "coupling__name": "host_ot"}, "draws standard normal points"),
    ],
)
def test_sources_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make_experiment(small_config(**changes), spec_of(two_conditions.load()))


def test_the_record_of_a_run_holds_its_conditions(trained):
    stored = json.loads((trained / "run.json").read_text())["data"]
    assert stored["conditions"]["height"]["null"] == [9.0]
    assert stored["codec"]["type"] == "fmjax.data.codecs:Vectors"


def test_reflow_stores_class_ids_alone(trained):
    with pytest.raises(InputError, match=r"the conditions of .* are height, moon; train with"):
        reflow(trained, 1, Plan(num=64))
