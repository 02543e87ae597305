import fcntl
import json
import re
import shutil

import jax
import numpy as np
import pytest

from fmjax.data.load import load
from fmjax.errors import InputError
from fmjax.factory.training import abstract_state
from fmjax.run import workdir as folder
from fmjax.run.pictures import save_overview
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.train.training import train
from fmjax.run.workdir import load_record
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training import fitting
from fmjax.training.mesh import make_mesh
from fmjax.training.profile import traced
from tests.run.conftest import small_config


def read_state(workdir, step=None):
    """The state of a checkpoint, the newest by default, as numpy arrays."""
    experiment = open_run(workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    step = checkpoints.steps()[-1] if step is None else step
    state = checkpoints.restore(step, abstract_state(experiment, make_mesh())._asdict())
    checkpoints.close()
    return jax.tree.map(np.asarray, state)


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(trained, capsys):
    checkpoints = Checkpoints(trained / "checkpoints", read_only=True)
    assert checkpoints.steps() == [4, 8, 12]
    checkpoints.close()
    record = load_record(trained)
    assert record.config == small_config()
    assert record.spec.shape == (2,)
    assert json.loads((trained / "run.json").read_text())["versions"]["jax"] == jax.__version__
    assert (trained / "samples" / "final.png").read_bytes().startswith(b"\x89PNG")
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))
    assert list((trained / "tensorboard" / "report").glob("events.out.tfevents.*"))
    logged = [line for line in metrics(trained) if "loss" in line]
    assert [line["step"] for line in logged] == [4, 8, 12]
    assert {"grad_norm", "learning_rate", "examples_per_second", "data_wait"} <= logged[0].keys()
    assert all(0 <= line["data_wait"] <= 1 for line in logged)
    assert all(0.01 < line["host_memory_gb"] < 100 for line in logged)
    assert [line["step"] for line in logged if line.get("compile_seconds", 0) > 0] == [4]


@pytest.mark.slow
def test_stopping_and_resuming_gives_the_same_bits(train_small, trained, tmp_path, capsys):
    # The learning rate falls along a cosine over train.steps, so both runs are told 12 steps; the
    # first is cut by taking its later checkpoints away.
    workdir = train_small()
    for step in ("8", "12"):
        shutil.rmtree(workdir / "checkpoints" / step)
    train_small(workdir)
    assert "resuming at step 4" in capsys.readouterr().err
    assert_same_bits(read_state(workdir), read_state(trained))
    steps = [line["step"] for line in metrics(workdir) if "loss" in line]
    assert steps == [4, 8, 12]  # a line once, though steps 5 to 12 ran twice
    strip = ("examples_per_second", "data_wait", "host_memory_gb", "compile_seconds")
    for a, b in zip(metrics(workdir), metrics(trained), strict=True):
        assert {k: v for k, v in a.items() if k not in strip} == {
            k: v for k, v in b.items() if k not in strip
        }


@pytest.mark.slow
def test_the_held_out_loss_comes_as_often_as_it_is_asked_for(train_small, trained):
    workdir = train_small(train__val_every=2, train__checkpoint_every=6)
    held = {line["step"]: line["val_loss"] for line in metrics(workdir) if "val_loss" in line}
    usual = {line["step"]: line["val_loss"] for line in metrics(trained) if "val_loss" in line}
    assert list(held) == [2, 4, 6, 8, 10, 12]
    assert list(usual) == [4, 8, 12]  # at checkpoints alone
    assert usual.items() <= held.items()


@pytest.mark.slow
def test_several_steps_in_a_call_train_to_the_same_parameters(train_small, trained):
    several = read_state(train_small(train__steps_per_call=4))
    one = read_state(trained)
    assert several["step"] == one["step"] == 12
    for a, b in zip(*map(jax.tree.leaves, (several, one)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.nightly
def test_a_trace_of_a_few_steps_is_written_where_it_says(tmp_path, capsys):
    workdir = tmp_path / "run"
    assert train(small_config(), workdir, profile=True) == 0
    assert f"traced a few steps: {workdir / 'profile'}" in capsys.readouterr().err
    (trace,) = workdir.glob("profile/plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 10_000


def test_a_run_too_short_for_a_trace_says_so(tmp_path):
    said = []
    with traced(lambda x: x + 1, tmp_path, said.append) as step:
        assert [step(k) for k in range(3)] == [1, 2, 3]
    assert said == ["no trace was written: it begins with call 6, and there were 3."]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_pmap_trains_to_the_same_parameters_and_continues_a_jit_run(train_small, trained):
    workdir = train_small(parallel="pmap")
    for a, b in zip(*map(jax.tree.leaves, (read_state(workdir), read_state(trained))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    shutil.rmtree(workdir / "checkpoints" / "12")
    train_small(workdir)


def test_a_finished_run_is_left_alone(trained, capsys):
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}
    assert train(small_config(), trained) == 0
    assert "is finished: 12 steps" in capsys.readouterr().out
    after = {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}
    assert {p: t for p, t in after.items() if p.name != "run.json"} == {
        p: t for p, t in before.items() if p.name != "run.json"
    }


@pytest.mark.slow
def test_a_finished_run_goes_on_when_asked_for_more_steps(train_small, tmp_path):
    workdir = train_small(train__steps=4)
    train_small(workdir, train__steps=8)
    assert int(read_state(workdir)["step"]) == 8


@pytest.mark.slow
def test_overwriting_starts_anew_and_spares_other_files(train_small):
    workdir = train_small(train__steps=4)
    (workdir / "notes.txt").write_text("mine")
    train_small(workdir, train__steps=4, train__seed=1, overwrite=True)
    assert load_record(workdir).config.train.seed == 1
    assert (workdir / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "change",
    [{"model__width": 32}, {"optimizer__learning_rate": 0.5}, {"train__seed": 3}],
)
def test_another_run_in_the_folder_is_not_touched(trained, change):
    (key,) = change
    with pytest.raises(InputError, match=re.escape(key.replace("__", "."))):
        train(small_config(**change), trained)
    assert load_record(trained).config == small_config()


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over(train_small, trained, capsys):
    workdir = train_small()
    newest = workdir / "checkpoints" / "12"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(b"")
    train_small(workdir)
    printed = capsys.readouterr()
    assert "the checkpoint of step 12 cannot be read" in printed.out
    assert "resuming at step 8" in printed.err
    assert_same_bits(read_state(workdir), read_state(trained))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_its_step_and_spares_the_checkpoints(
    train_small, tmp_path, monkeypatch
):
    make_step = fitting.make_step

    def poisoned(loss_fn, *args, **kwargs):
        step = make_step(loss_fn, *args, **kwargs)

        def at_step_7(state, key, batch):
            new, values = step(state, key, batch)
            bad = jax.numpy.where(state.step == 6, jax.numpy.nan, 1.0)
            params = jax.tree.map(lambda x: x * bad, new.params)
            return new._replace(params=params), values | {"loss": values["loss"] * bad}

        return at_step_7

    monkeypatch.setattr(fitting, "make_step", poisoned)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 7\b"):
        train_small()
    assert read_state(tmp_path / "run").keys()
    assert int(read_state(tmp_path / "run")["step"]) == 4
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(read_state(tmp_path / "run")))
    monkeypatch.undo()
    train_small()  # and the run can go on from there


@pytest.mark.slow
def test_a_state_gone_after_a_finite_loss_is_not_saved(tmp_path):
    # Step 1 has a finite loss and gradient, and an update that overflows.
    config = small_config(
        optimizer__learning_rate=1e38,
        optimizer__warmup_steps=0,
        optimizer__schedule="constant",
        train__checkpoint_every=1,
        train__log_every=1,
    )
    with pytest.raises(FloatingPointError, match=r"at step [12]"):
        train(config, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
    saved = checkpoints.steps()
    checkpoints.close()
    for step in saved:
        for leaf in jax.tree.leaves(read_state(tmp_path / "run", step)):
            assert np.isfinite(leaf).all()


@pytest.mark.slow
def test_an_evaluation_of_fewer_steps_does_not_count_as_done(train_small):
    workdir = train_small(train__steps=4, eval__num=20, eval__reference=50)
    assert json.loads((workdir / "evaluation.json").read_text())["step"] == 4
    train_small(workdir, train__steps=8, eval__num=20, eval__reference=50)
    stale = json.loads((workdir / "evaluation.json").read_text())
    assert stale["step"] == 8
    (workdir / "evaluation.json").write_text(json.dumps(stale | {"step": 4}))
    train_small(workdir, train__steps=8, eval__num=20, eval__reference=50)
    assert json.loads((workdir / "evaluation.json").read_text()) == stale


def test_the_second_picture_compiles_nothing(trained, count_compilations, tmp_path):
    flow, moons = restore_flow(trained, open_run(trained)), load("toy/moons")
    save_overview(flow, moons, 0, tmp_path / "a.png")
    with count_compilations() as compiled:
        save_overview(flow, moons, 0, tmp_path / "b.png")
    assert compiled.count == 0, compiled.names
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train__seed": 2**32}, r"train.seed .* in \[0, 4294967295\]"),
        ({"eval__num": 1}, "eval.num"),
        ({"eval__reference": 3}, "eval.reference"),
        ({"train__steps": 0}, r"train.steps .* must be a whole number in \[1, inf\)"),
        ({"train__batch_size": 0}, "train.batch_size"),
        ({"train__accumulate": 5}, "5 accumulated parts"),
        ({"train__ema": 1.0}, "train.ema"),
        ({"train__val_every": -1}, r"train.val_every .* must be a whole number in \[0, inf\)"),
        (
            {"train__steps_per_call": 2, "train__val_every": 3},
            r"train.val_every must be a multiple of 2 \(train.steps_per_call",
        ),
        (
            {"train__steps_per_call": 0},
            r"train.steps_per_call .* must be a whole number in \[1, inf\)",
        ),
        (
            {"train__steps_per_call": 5},
            r"train.steps must .* 5 \(train.steps_per_call; .* got 12",
        ),
        ({"mesh__fsdp": 2}, "mesh.fsdp=2.*the 1 devices.*2 does not divide 1"),
        ({"mesh__data": 1, "mesh__tensor": 0}, r"mesh.tensor .* must be a whole number, -1 or in"),
        ({"model__remat": "full"}, "the mlp is float32 and has no attention or remat"),
        (
            {"model__name": "DiT-S/2", "model__width": 24, "model__remat": "most"},
            "model.remat .* one of none, dots, full",
        ),
        ({"model__name": "DiT-S/2", "model__attention": "cudnn"}, "needs an NVIDIA GPU"),
        ({"model__name": "DiT-S/2", "model__attention": "fast"}, "one of auto, xla, cudnn"),
        ({"optimizer__skip_above": 0.5}, r"skip_above .* must be a number, 0 or in \(1, inf\)"),
        ({"train__seed": -1}, "train.seed"),
        ({"data__name": "toy/moon"}, "Did you mean 'toy/moons'"),
        ({"model__name": "resnet"}, "unknown model 'resnet'.*Known: DiT-B/2"),
        ({"model__name": "dit"}, "needs model.heads, model.patch_size"),
        ({"model__heads": 4}, "no such fields; leave out model.heads=4"),
        ({"model__dtype": "float16"}, "model.dtype .* one of float32, bfloat16"),
        ({"path__name": "curved"}, "Known: bridge, cosine, discrete_vp"),
        ({"path__sigma_min": 2.0}, "sigma_min"),
        ({"coupling__name": "ott"}, "Did you mean 'ot'"),
        ({"coupling__groups": 3}, "must divide train.batch_size=32"),
        ({"coupling__name": "sinkhorn", "coupling__epsilon": 0.0}, "epsilon"),
        ({"coupling__name": "partial", "coupling__fraction": 1.5}, "fraction"),
        ({"coupling__name": "pairs"}, "coupling.dir"),
        ({"coupling__dir": "somewhere"}, "coupling.dir"),
        ({"coupling__name": "pairs", "coupling__dir": "nowhere"}, "not a set of stored pairs"),
        ({"path__name": "bridge", "path__sigma": 0.0}, "sigma"),
        ({"path__name": "vp", "path__beta_max": -1.0}, "beta"),
        ({"path__name": "polynomial", "path__power": 0.0}, "path.power"),
        ({"time__name": "normal"}, "Known: beta, cosmap, log_normal, logit_normal"),
        ({"time__mean": 0.5}, "time.name='uniform' has no mean"),
        ({"time__shift": 0.0}, "shift"),
        ({"sample__shift": 0.0}, "shift"),
        ({"loss__prediction": "noise"}, "loss.prediction .* one of velocity, x1, x0, score, v"),
        ({"loss__prediction": "x1", "path__name": "bridge"}, "path with a schedule"),
        ({"loss__distance": "huber"}, "Known: adaptive, pseudo_huber, squared"),
        ({"loss__weight": "x1"}, "Known: clipped_velocity, none, velocity"),
        ({"loss__weight": "velocity"}, "needs none"),
        ({"loss__target": "x1"}, "loss.target .* one of fm, rf"),
        ({"loss__target": "rf", "path__sigma_min": 0.1}, "target='fm'"),
        ({"labels__drop_rate": -0.1}, "labels.drop_rate"),
        ({"labels__null": 3}, "the null class, a class or the number of classes, must lie in"),
        ({"data__name": "toy/scurve"}, "labels.conditional=False"),
        ({"optimizer__schedule": "step"}, "optimizer.schedule .* one of cosine, constant"),
        ({"optimizer__warmup_steps": 50}, "warmup_steps=50 and train.steps=12"),
        ({"sample__solver": "rk45"}, "unknown solver"),
        ({"sample__steps": 0}, "sample.steps"),
        ({"sample__guidance": float("nan")}, "sample.guidance"),
        ({"sample__guidance": 1e39}, "sample.guidance"),
        ({"data__name": "no/such", "train__ema": 2.0}, "train.ema"),
    ],
)
def test_a_wrong_value_is_refused_before_the_folder_is_made(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train(small_config(**change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*another --workdir"):
        train(small_config(), tmp_path / "file" / "run")


def test_a_disk_too_full_for_the_checkpoints_is_found_before_training(tmp_path, monkeypatch):
    full = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match="0 MB free, and the checkpoints need"):
        train(small_config(), tmp_path / "run")


def test_checkpoints_without_a_record_are_not_overwritten(tmp_path):
    (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"run\.json is missing"):
            train(small_config(), tmp_path / "run", overwrite=overwrite)
    assert (tmp_path / "run" / "checkpoints" / "4").is_dir()


def test_overwriting_deletes_no_folder_that_is_not_a_run(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "mine.png").write_text("")
    with pytest.raises(InputError, match="no run that --overwrite could delete"):
        train(small_config(), tmp_path, overwrite=True)
    assert (tmp_path / "samples" / "mine.png").exists()


def test_two_runs_do_not_share_a_folder(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    with (tmp_path / "run" / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is at work"):
            train(small_config(), tmp_path / "run")


@pytest.mark.slow
def test_a_run_that_left_no_checkpoint_does_not_lock_its_folder(train_small, trained, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    shutil.copy(trained / "run.json", workdir)
    train_small(workdir, train__seed=5, train__steps=4)
    assert load_record(workdir).config.train.seed == 5


def test_a_record_that_is_no_json_is_named(tmp_path):
    (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(InputError, match="not the record of a run"):
        train(small_config(), tmp_path / "run")


def test_a_refused_run_keeps_no_other_out(trained, tmp_path):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(InputError, match="of an unknown run") as refused:
        folder.claim(tmp_path, load_record(trained), 0, overwrite=False)
    assert refused.value.__traceback__ is not None  # whose frames would hold an open file
    with (tmp_path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
