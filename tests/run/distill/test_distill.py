"""Distillation of the small run: the student, its report, going on, and what is refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from fmjax import Draw, solve, solver_spec, times
from fmjax.conditions import ClassIds
from fmjax.conventions import Span, diagonal
from fmjax.data.pairs.records import read_info
from fmjax.errors import InputError
from fmjax.flow_maps import Jumps, Lagrangian, make_flow_map_loss_fn
from fmjax.guidance import Guided, classifier_free
from fmjax.models.adapters import extend_params, from_linen
from fmjax.models.mlp import MLP
from fmjax.run.distill import student as student_module
from fmjax.run.distill.student import METHODS, Plan, distill, student_config
from fmjax.run.reflow import compare as compare_module
from fmjax.run.restore import open_run
from fmjax.run.train import report as report_module
from fmjax.run.workdir import load_record
from fmjax.storage.fingerprint import fingerprint
from fmjax.testing import GaussianFlow
from fmjax.training import fit
from tests.run.conftest import small_config
from tests.run.forked import finish
from tests.run.train.test_train import assert_same_bits, read_state

X0 = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
PLAN = Plan(guidance=2.0, solver=solver_spec("euler", 3), train_steps=8)


@pytest.fixture(scope="module", autouse=True)
def small_reports(trained):  # which has its picture
    """Reports of few points and short paths: their figures are not the subject here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(compare_module, "_VECTORS", 64)
    patch.setattr(compare_module, "_PATHS", 16)
    patch.setattr(compare_module, "_STEPS", 4)
    patch.setattr(report_module, "save_overview", lambda *arguments: None)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def distilled(trained, tmp_path_factory):
    """The small run and a student of it, to be read only."""
    out = tmp_path_factory.mktemp("distill") / "one"
    assert distill(trained, out, PLAN) == 0
    return out


@pytest.mark.slow
def test_the_report_has_teacher_and_student_side_by_side(trained, distilled):
    report = json.loads((distilled / "distill.json").read_text())
    assert report["method"] == "lagrangian"
    assert report["guidance"] == 2.0
    states = [read_state(run)["ema_params"] for run in (trained, distilled)]
    assert report["parameters"] == [int(fingerprint(jax.device_put(s))) for s in states]
    teacher, student = report["flows"]["teacher"], report["flows"]["student"]
    assert teacher.keys() == {*compare_module.PATH_FIGURES, "many_step"}
    assert student.keys() == {*compare_module.PATH_FIGURES, "jumps_1", "jumps_2", "jumps_4"}
    assert all(np.isfinite(value) for flow in (teacher, student) for value in flow.values())
    table = compare_module.describe_comparison(report).splitlines()
    assert table[0].split() == ["teacher", "student"]
    (many,) = [line for line in table if line.startswith("many_step ")]
    assert many.split()[2] == "-"
    assert table[-2].startswith("many_step, jumps_1, jumps_2, jumps_4: W2")


@pytest.mark.slow
def test_the_student_is_a_run_that_samples_in_one_evaluation(distilled):
    experiment = open_run(distilled)
    assert experiment.two_times
    assert experiment.solver == Jumps(1)
    assert experiment.guidance_scale == 1.0
    assert experiment.train.steps == 8


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"pairs"}))
def test_a_student_differs_from_its_teacher_in_what_it_learns(method, trained):
    source = small_config(
        time__stratified=True, loss__target="rf", sample__solver="euler", loss__c=0.5,
        loss__distance="pseudo_huber",
    )  # fmt: skip
    config = student_config(source, trained, PLAN._replace(method=method), 2.0)
    before, after = (flatten_dict(c.to_dict(), sep=".") for c in (source, config))
    changed = {key for key, value in after.items() if before[key] != value}
    groups = ("flow_map.", "loss.", "time.stratified", "sample.", "train.steps")
    assert all(key.startswith(groups) for key in changed), changed
    assert config.flow_map.teacher == str(trained)
    assert (config.sample.solver, config.time.stratified, config.loss.c) == (None, False, None)


def test_the_scale_of_the_teacher_is_the_runs_own_unless_it_is_given(trained):
    teacher = open_run(trained)
    assert student_module._scale(Plan(), teacher) == 1.5
    assert student_module._scale(PLAN, teacher) == 2.0


@pytest.mark.slow
def test_a_second_call_leaves_everything_as_it_is(trained, distilled, tmp_path, capsys):
    out = shutil.copytree(distilled, tmp_path / "one")
    files = [out / "distill.json", *out.glob("checkpoints/*")]
    before = [path.stat().st_mtime_ns for path in files]
    assert distill(trained, out, PLAN) == 0
    assert [path.stat().st_mtime_ns for path in files] == before
    said = capsys.readouterr().out
    assert "is finished: 8 steps" in said
    assert f"next: python -m fmjax sample --workdir={out} --steps=1" in said


@pytest.mark.slow
def test_a_call_goes_on_where_another_was_stopped(trained, distilled, tmp_path):
    out = shutil.copytree(distilled, tmp_path / "one")
    (out / "distill.json").unlink()
    shutil.rmtree(out / "checkpoints" / "8")
    assert distill(trained, out, PLAN) == 0
    assert_same_bits(read_state(out), read_state(distilled))
    assert (out / "distill.json").read_text() == (distilled / "distill.json").read_text()


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("method", ["eulerian", "progressive"])
def test_every_method_distills(method, trained, tmp_path):
    assert distill(trained, tmp_path / "one", PLAN._replace(method=method, train_steps=4)) == 0
    config = load_record(tmp_path / "one").config
    assert config.flow_map.name == METHODS[method]["flow_map"]["name"]
    assert (tmp_path / "one" / "distill.json").exists()


@pytest.mark.nightly
def test_pairs_are_learned_at_the_starts_of_k_steps(trained, tmp_path):
    out = tmp_path / "two"
    plan = PLAN._replace(method="pairs", k=2, num=100, train_steps=4, batch_size=32)
    assert distill(trained, out, plan) == 0
    experiment = open_run(out)
    assert not experiment.two_times
    assert experiment.solver.describe()["solver"] == "euler"
    assert experiment.solver.steps == 2
    batch = {"x1": X0, "x0": X0, "labels": np.zeros(len(X0), np.int32)}
    args = experiment.draw(jax.random.key(0), batch | {"index": np.arange(len(X0))})
    assert set(np.unique(args.t)) == {0.0, 0.5}
    report = json.loads((out / "distill.json").read_text())
    assert {"euler_1", "euler_2", "euler_4"} <= report["flows"]["student"].keys()
    origin = read_info(out / "pairs").origin
    assert (origin["guidance"], origin["run"]) == (2.0, "run")
    assert "distill" in read_info(out / "pairs").resume


def test_the_signal_that_stopped_the_training_comes_through(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(student_module, "train", lambda *arguments, **how: 15)
    assert distill(trained, tmp_path / "one", PLAN) == 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "lagrange"}, "unknown method .--method. 'lagrange'. Did you mean 'lagrangian'"),
        ({"guidance": np.inf}, "the guidance scale must be a finite number"),
        ({"train_steps": 0}, "number of training steps must be a whole number of at least 1"),
        ({"k": 0}, "k, the number of steps, must be a whole number of at least 1"),
        ({"method": "pairs", "num": 34}, "do not fill a batch of 32; write --num=37"),
        ({"train_steps": 2}, "warmup_steps=2 and train.steps=2"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, trained, tmp_path):
    with pytest.raises(InputError, match=message):
        distill(trained, tmp_path / "one", PLAN._replace(**changes))
    assert not (tmp_path / "one").exists()


@pytest.mark.slow
def test_pairs_are_of_a_network_of_one_time(distilled, tmp_path):
    with pytest.raises(InputError, match="--method=pairs distills networks of one time"):
        distill(distilled, tmp_path / "two", PLAN._replace(method="pairs"))


def test_folders_that_do_not_fit_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match="the student needs a folder of its own"):
        distill(trained, trained, PLAN)
    with pytest.raises(InputError, match="holds no run"):
        distill(tmp_path / "none", tmp_path / "one", PLAN)
    other = shutil.copytree(trained, tmp_path / "other")
    with pytest.raises(InputError, match=r"holds another run, with .*flow_map"):
        distill(trained, other, PLAN)


@pytest.mark.slow
def test_the_command_reads_its_flags(trained, commands):
    flags = [f"--workdir={trained}", "--method=lagrange"]
    (said,) = finish(commands.start("fmjax/__main__.py", "distill", *flags, "--out=x"), code=2)
    assert "Did you mean 'lagrangian'?" in said
    (said,) = finish(commands.start("fmjax/__main__.py", "distill", *flags), code=2)
    assert f"say where the student goes: --out={trained}-one" in said


@pytest.mark.nightly
def test_a_flow_of_ones_own_is_distilled_from_python():
    """Any velocity and any arrays, without a folder: here a flow that is known, guided."""
    flow, away = GaussianFlow([2.0, 0.0], 0.5), GaussianFlow([-2.0, 0.0], 0.5)
    classes = ClassIds(2)

    def velocity(x, t, labels):  # the second class, and half of both for none
        share = jnp.where(labels == 2, 0.5, labels.astype(x.dtype))[:, None]
        return (1 - share) * flow.velocity(x, t) + share * away.velocity(x, t)

    guided = classifier_free(velocity, 2)

    def teacher(x, t, labels):
        return guided(x, t, Guided(labels, 1.5))

    small = {"width": 32, "depth": 2, "conditions": classes, "time_scale": 10.0}
    one, two = MLP(**small), MLP(**small, span=True)
    x, t, labels = jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    trained = one.init(jax.random.key(0), x, t, labels)["params"]
    fresh = two.init(jax.random.key(1), x, Span(t, t), labels)["params"]
    apply_fn = from_linen(two)
    draw = Draw(time_distribution=times.WithDiagonal(times.SortedPair(), 0.25), conditions=classes)
    data = {
        "x": np.asarray(flow.sample(jax.random.key(2), 512), np.float32),
        "labels": np.arange(512, dtype=np.int32) % 2,
    }
    state = fit(
        diagonal(apply_fn), extend_params(fresh, trained), data,
        loss_fn=make_flow_map_loss_fn(apply_fn, Lagrangian(), teacher=teacher), draw=draw,
        optimizer=optax.adam(optax.cosine_decay_schedule(5e-3, 500)), steps=500, batch_size=128,
        ema=0.99, log_every=500,
    )  # fmt: skip
    x0 = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
    labels = np.arange(256) % 2
    student = solve(lambda x, t, y: apply_fn(state.ema_params, x, t, y), x0, labels, Jumps(1)).x1
    taught = solve(teacher, x0, labels, solver_spec("rk4", 50)).x1
    error = np.sqrt(np.mean((student - taught) ** 2)) / np.std(taught)
    assert error < 0.1
