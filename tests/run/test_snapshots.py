"""Runs through snapshots: trained by name, sampled from any time to any other, measured."""

import json
import shutil

import jax
import numpy as np
import pytest

from fmjax import solve, solver_spec
from fmjax.data.load import load
from fmjax.data.prepare import main as prepare
from fmjax.data.snapshots import Snapshots, Timeline
from fmjax.errors import InputError
from fmjax.factory import Recipe, settings
from fmjax.factory.settings import DataSettings
from fmjax.likelihood import Exact
from fmjax.run.distill.student import distill
from fmjax.run.likelihood.measure import Question, measure
from fmjax.run.reflow import rounds as reflow_rounds
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.to_disk import sample
from fmjax.run.train.setup import build
from fmjax.run.train.training import train
from tests.run.conftest import small_config
from tests.run.train.test_train import assert_same_bits, read_state

HOURS = (0.0, 6.0, 24.0)
RNG = np.random.default_rng(0)
CELLS = {hour: RNG.normal(size=(60, 2)) + hour for hour in HOURS}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two prepared sets of cells: hours as numbers, and as classes."""
    folder = tmp_path_factory.mktemp("data")
    x = np.concatenate(list(CELLS.values())).astype(np.float32)
    hour = np.repeat(HOURS, 60)
    extra = {"numbers": hour.astype(np.float32)[:, None], "classes": (hour > 3).astype(int)}
    for name, values in extra.items():
        np.savez(folder / f"{name}.npz", x=x, hour=values, dose=np.ones((180, 1), np.float32)
                 + np.arange(180)[:, None])  # fmt: skip
        source, place = f"--source={folder / name}.npz", f"--data_dir={folder}"
        assert prepare([f"--name={name}", source, place, "--test_fraction=0.3"]) == 0
    return folder


def config_of(data_dir, name="numbers", **changes):
    usual = {"data__name": name, "data__dir": str(data_dir), "data__time": "hour"}
    return small_config(**{"labels__drop_rate": 0.0, "eval__num": 10} | usual | changes)


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    assert train(config_of(data_dir, data__held_out_time=6.0), workdir) == 0
    return workdir


@pytest.mark.slow
def test_a_run_knows_its_times_and_leaves_the_one_out_that_is_held_out(run):
    assert open_run(run).spec.timeline == Timeline((0.0, 24.0))
    report = json.loads((run / "evaluation.json").read_text())["snapshots"]
    assert report["from"] == 0
    assert {time: figures["held_out"] for time, figures in report["to"].items()} == {
        "6": True, "24": False,
    }  # fmt: skip
    assert all(figures["W1"] <= figures["W2"] for figures in report["to"].values())


@pytest.mark.slow
def test_samples_go_from_one_time_to_another(run, tmp_path):
    experiment = open_run(run)
    flow = restore_flow(run, experiment)
    codec = experiment.spec.codec
    x0 = np.asarray(codec.encode(CELLS[6.0][:5].astype(np.float32)))
    recipe = Recipe(solver_spec("rk4", 20))
    for name, start, end in (("on", 6.0, 24.0), ("back", 6.0, 0.0)):
        sample(run, tmp_path / name, Request(5, x0=x0, start=start, end=end), recipe)
        found = np.load(tmp_path / name / "samples.npz")["samples"]
        velocity = lambda x, t, labels: experiment.apply_fn(flow.params, x, t, labels)  # noqa: E731
        ends = {"t0": 0.25, "t1": end / 24}
        expected = solve(velocity, x0, None, recipe.solver, **ends).x1
        np.testing.assert_allclose(found, codec.decode(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_without_points_they_start_from_the_snapshot_of_that_time(run):
    experiment = open_run(run)
    request, recipe = resolve(experiment, Request(5, start=6.0), Recipe(solver_spec("euler", 1)))
    known = DataSettings(**dict(experiment.data._asdict())).load().snapshots
    expected = np.concatenate([known.known.points[6.0], known.test.points[6.0]])
    np.testing.assert_array_equal(request.x0, expected)
    assert (recipe.t0, recipe.t1) == (0.25, 1.0)
    usual, whole = resolve(experiment, Request(5), Recipe(solver_spec("euler", 1)))
    assert usual.x0 is None
    assert (whole.t0, whole.t1) == (0.0, 1.0)
    drawn = experiment.source.sample(jax.random.key(0), np.arange(50), (2,))
    assert np.asarray(experiment.spec.codec.decode(drawn)).max() < 5  # those of hour 0


def test_the_table_is_read_once(data_dir, tmp_path, monkeypatch):
    names = []
    once = lambda name, *rest: names.append(name) or load(name, *rest)  # noqa: E731
    monkeypatch.setattr(settings, "load", once)
    run = build(config_of(data_dir), tmp_path / "run", "jit")
    assert names == ["numbers"]
    assert run.experiment.snapshots is run.dataset.snapshots
    resolve(run.experiment, Request(5, start=6.0), Recipe(solver_spec("euler", 1)))
    assert names == ["numbers"]


def test_times_may_be_classes_whose_names_are_numbers(data_dir):
    data = config_of(data_dir, "classes").data
    snapshots = DataSettings(**data).load().snapshots
    assert snapshots.train.times == (0.0, 1.0)
    assert isinstance(snapshots.test, Snapshots)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__held_out_time": 24.0}, "between the first and the last snapshot; got 24"),
        ({"data__time": None, "data__held_out_time": 6.0}, "data.held_out_time needs data.time"),
        ({"data__conditions": "dose"}, "leave the latter out"),
        ({"data__time": "day"}, "day"),
        ({"coupling__name": "ot"}, "leave coupling.name out; got 'ot'"),
        ({"flow_map__name": "meanflow"}, "leave flow_map.name out"),
        ({"loss__prediction": "x1"}, "leave loss.prediction out"),
    ],
)
def test_what_does_not_go_with_snapshots_is_refused(changes, message, data_dir, tmp_path):
    with pytest.raises(InputError, match=message):
        train(config_of(data_dir, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"start": 7.0}, "no snapshot at 7, of those at 0, 6, 24; give points .* by --x0"),
        ({"end": 25.0}, r"the time must lie in \[0, 24\]; got 25"),
        ({"start": 24.0}, "--from and --to must be two times; got 24 for both"),
    ],
)
def test_times_that_cannot_be_reached_are_refused(asked, message, run):
    with pytest.raises(InputError, match=message):
        resolve(open_run(run), Request(5, **asked), Recipe(solver_spec("euler", 1)))


def test_what_needs_one_distribution_is_refused(run, tmp_path):
    for ask in (
        lambda: measure(run, Question(num=4), solver_spec("euler", 1), Exact()),
        lambda: reflow_rounds.reflow(run, 1, reflow_rounds.Plan(num=40)),
        lambda: distill(run, tmp_path / "student"),
    ):
        with pytest.raises(InputError, match="one distribution of data, and this one goes through"):
            ask()


def test_times_are_of_flows_through_snapshots_alone(trained):
    with pytest.raises(InputError, match="not through snapshots: leave --from and --to out"):
        resolve(open_run(trained), Request(5, start=1.0), Recipe(solver_spec("euler", 1)))


@pytest.mark.slow
def test_a_run_through_snapshots_resumes_to_the_same_bits(data_dir, run, tmp_path):
    workdir = shutil.copytree(run, tmp_path / "run")
    for step in ("8", "12"):
        shutil.rmtree(workdir / "checkpoints" / step)
    assert train(config_of(data_dir, data__held_out_time=6.0), workdir) == 0
    assert_same_bits(read_state(workdir), read_state(run))
