"""Runs of networks of two times: from a teacher, resumed, on several devices, sampled by jumps."""

import json
import shutil

import jax
import jax.export
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fmjax import solve, times
from fmjax.config import default_config
from fmjax.conventions import Span
from fmjax.data.load import load
from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe, make_experiment, spec_of
from fmjax.factory.flow_map import IDENTITIES
from fmjax.flow_maps import Jumps, Lagrangian
from fmjax.likelihood import Exact
from fmjax.run.likelihood.measure import Question, measure
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.export import export_run
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.to_disk import sample
from fmjax.run.teacher import read_teacher
from fmjax.run.train.setup import build, check, with_teacher
from fmjax.run.train.training import train
from fmjax.run.weights.export import export_weights
from fmjax.run.weights.initial import Initial, initial_params
from fmjax.samplers import sde_spec, solver_spec
from tests.conftest import nightly_but
from tests.run.conftest import small_config, write_record
from tests.run.forked import finish
from tests.run.train.test_train import assert_same_bits, read_state

GUIDANCE = 2.0
N = 16
X = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
T = np.linspace(0, 1, N, dtype=np.float32)
LABELS = np.arange(N, dtype=np.int32) % 3  # 2 is the null class


def student_config(teacher, **changes):
    usual = {"flow_map__name": "lagrangian", "flow_map__guidance": GUIDANCE}
    return small_config(**usual | {"flow_map__teacher": str(teacher)} | changes)


@pytest.fixture(scope="module")
def student(trained, tmp_path_factory):
    """A finished small run that learned from another, to be read only."""
    workdir = tmp_path_factory.mktemp("student") / "run"
    assert train(student_config(trained), workdir, init_from=trained) == 0
    return workdir


def velocity_of(workdir):
    flow = restore_flow(workdir, open_run(workdir))
    return lambda x, t, labels: jax.jit(flow.experiment.apply_fn)(flow.params, x, t, labels)


def assert_begins_as(trained, source, workdir):
    run = build(student_config(trained), workdir, "jit")
    check(run, False, Initial(source))
    params = initial_params(Initial(source), run.experiment, run.layout.mesh)
    expected, network = velocity_of(trained)(X, T, LABELS), jax.jit(run.experiment.apply_fn)
    for t in (T, Span(T, np.ones_like(T)), Span(T, T[::-1])):
        np.testing.assert_array_equal(network(params, X, t, LABELS), expected)


@pytest.mark.slow
def test_a_network_of_two_times_begins_as_the_trained_one_to_the_bit(trained, tmp_path):
    assert_begins_as(trained, trained, tmp_path)


@pytest.mark.slow
def test_it_begins_so_from_a_file_too(trained, tmp_path):
    export_weights(trained, tmp_path / "flow")
    assert_begins_as(trained, tmp_path / "flow" / "ema.safetensors", tmp_path / "run")


@pytest.mark.slow
def test_a_teacher_is_the_guided_velocity_of_its_run(trained):
    experiment = make_experiment(student_config(trained), spec_of(load("toy/moons")))
    teacher = read_teacher(trained, experiment, GUIDANCE)
    plain = velocity_of(trained)
    null = np.full(N, 2, np.int32)
    expected = (1 - GUIDANCE) * plain(X, T, null) + GUIDANCE * plain(X, T, LABELS)
    np.testing.assert_allclose(teacher.velocity(X, T, LABELS), expected, rtol=1e-5, atol=1e-5)
    alone = read_teacher(trained, experiment, 1.0).velocity
    np.testing.assert_allclose(alone(X, T, LABELS), plain(X, T, LABELS), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_teacher_on_another_path_is_carried_over(trained):
    config = student_config(trained, path__name="cosine")
    experiment = make_experiment(config, spec_of(load("toy/moons")))
    moved = read_teacher(trained, experiment, 1.0).velocity
    # Both flows start and end at the same points: the path of one is that of the other, slower.
    ends = [solve(v, X, LABELS, solver_spec("rk4", 100)).x1 for v in (velocity_of(trained), moved)]
    np.testing.assert_allclose(*ends, rtol=1e-3, atol=1e-3)


@pytest.mark.nightly
def test_the_loss_is_that_of_the_configuration(trained, tmp_path):
    run = with_teacher(build(student_config(trained, flow_map__diagonal=1.0), tmp_path, "jit"))
    experiment = run.experiment
    assert experiment.two_times
    x1, labels = run.dataset.arrays("train", 32)
    batch = {"x1": x1, "labels": labels, "index": np.arange(32)}
    args = experiment.draw(jax.random.key(0), batch)
    np.testing.assert_array_equal(args.t.s, args.t.t)
    params = initial_params(Initial(trained), experiment, run.layout.mesh)
    x_t = experiment.path.sample(args.x0, args.x1, args.t.s).x_t
    u = experiment.apply_fn(params, x_t, args.t, args.labels)
    taught = run.teacher.velocity(x_t, args.t.s, args.labels)
    loss = experiment.loss_fn(params, *args)
    np.testing.assert_allclose(loss, np.mean((u - taught) ** 2), rtol=1e-5)


@pytest.mark.slow
def test_a_student_is_sampled_in_one_evaluation(student, tmp_path):
    experiment = open_run(student)
    assert experiment.solver == Jumps(2)  # as the configuration says
    assert make_experiment_of(flow_map__name="meanflow", sample__steps=None).solver == Jumps(1)
    assert experiment.guidance_scale == 1.0  # it is built in
    result = sample(student, tmp_path, Request(10), Recipe(Jumps(1)))
    assert result.nfe == 1
    flow = restore_flow(student, experiment)
    with np.load(tmp_path / "samples.npz") as content:
        samples, labels = content["samples"], content["labels"]
    x0 = experiment.source.sample(jax.random.key(0), np.arange(10), (2,))
    span = Span(np.zeros(10, np.float32), np.ones(10, np.float32))
    u = experiment.apply_fn(flow.params, x0, span, labels)
    np.testing.assert_allclose(samples, experiment.spec.codec.decode(x0 + u), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_every_kind_of_solver_samples_a_student(student, tmp_path):
    drawn = {}
    recipes = {
        "heun": Recipe(solver_spec("heun", 3)),
        "jumps": Recipe(Jumps(3)),
        "renoise": Recipe(Jumps(3, renoise=0.7)),
        "interval": Recipe(Jumps(3), Guidance(interval=(0.3, 0.7))),
        "churn": Recipe(sde_spec("churn", 3)),
    }
    for name, recipe in recipes.items():
        request = Request(8, w=(3.0,) if name == "interval" else None)
        sample(student, tmp_path / name, request, recipe)
        drawn[name] = np.load(tmp_path / name / "samples.npz")["samples"]
        assert np.isfinite(drawn[name]).all()
    assert len({x.tobytes() for x in drawn.values()}) == len(recipes)
    report = measure(student, Question(num=8), solver_spec("euler", 2), Exact())
    assert np.isfinite(report["nats"]["mean"])


@pytest.mark.slow
def test_an_exported_sampler_of_jumps_is_the_sampler(student, tmp_path):
    recipe = Recipe(Jumps(2, renoise=0.5))
    export_run(student, tmp_path / "sampler", Request(6), recipe)
    sampler = jax.export.deserialize(bytearray((tmp_path / "sampler").read_bytes()))
    sample(student, tmp_path / "out", Request(6), recipe)
    with np.load(tmp_path / "out" / "samples.npz") as content:
        labels = content["labels"].astype(np.int32)
        drawn = sampler.call(np.uint32(0), np.arange(6, dtype=np.int32), labels, np.ones(6, "f4"))
        np.testing.assert_allclose(drawn, content["samples"], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_student_resumes_to_the_same_bits(student, trained, tmp_path):
    workdir = shutil.copytree(student, tmp_path / "run")
    for step in ("8", "12"):
        shutil.rmtree(workdir / "checkpoints" / step)
    assert train(student_config(trained), workdir, init_from=trained) == 0
    assert_same_bits(read_state(workdir), read_state(student))


@pytest.mark.nightly
def test_another_teacher_is_refused_on_resuming(student, trained, tmp_path):
    teacher, workdir = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(trained, teacher)
    assert train(student_config(teacher, train__steps=4), workdir) == 0
    assert json.loads((workdir / "teacher.json").read_text())["step"] == 12
    assert train(small_config(train__steps=13), teacher) == 0
    with pytest.raises(InputError, match=r"teacher of .*/run was at step 12 when .* of step 13"):
        train(student_config(teacher, train__steps=8), workdir)
    assert train(student_config(teacher, train__steps=4), workdir, overwrite=True) == 0


def without_teacher(name):
    guided = {"flow_map__guidance": 2.0} if name == "meanflow" else {}
    averaged = name == "shortcut"
    return small_config(flow_map__name=name, flow_map__averaged=averaged, **guided)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("name", sorted(IDENTITIES))
def test_each_identity_has_a_loss_of_the_draw(name):
    experiment = make_experiment(without_teacher(name), spec_of(load("toy/moons")))
    batch = {"x1": X, "labels": LABELS % 2, "index": np.arange(N)}

    def loss(key):
        params, args = experiment.init_params(key), experiment.draw(key, batch)
        more = {"target_params": params} if experiment.loss_fn.uses_target else {}
        return experiment.loss_fn(params, *args, noise=args.noise, **more)

    assert jax.eval_shape(loss, jax.random.key(0)).shape == ()


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", nightly_but(sorted(IDENTITIES), "meanflow", "shortcut"))
def test_each_identity_trains_without_a_teacher(name, tmp_path):
    config = without_teacher(name)
    config.train.steps = 4
    assert train(config, tmp_path / "run") == 0
    params = read_state(tmp_path / "run")["params"]
    assert np.abs(params["condition"]["span"]["dense_1"]["kernel"]).max() > 0


@pytest.mark.nightly
@pytest.mark.parametrize("how", nightly_but(["fsdp", "pmap", "accumulate"], "fsdp"))
def test_two_devices_train_a_student_as_one_does(how, student, trained, tmp_path, run_python):
    changes = {"fsdp": {"mesh__fsdp": 2}, "accumulate": {"train__accumulate": 2}}.get(how, {})
    keys = flatten_dict(student_config(trained, **changes).to_dict(), sep=".")
    run_python(
        f"""
        from pathlib import Path
        import jax
        from fmjax.config import default_config
        from fmjax.run.train.training import train
        assert jax.device_count() == 2
        teacher, config = Path({str(trained)!r}), default_config()
        config.update_from_flattened_dict({keys!r})
        train(config, Path({str(tmp_path / "run")!r}), {"pmap" if how == "pmap" else "jit"!r},
              init_from=teacher)
        """,
        devices=2,
    )
    one, two = read_state(student)["params"], read_state(tmp_path / "run")["params"]
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_command_samples_a_flow_map_by_jumps(student, tmp_path, commands):
    flags = [f"--workdir={student}", f"--out={tmp_path}", "--num=4"]
    (said,) = finish(commands.start("sample.py", *flags, "--steps=1"))
    assert "(1 of the network)" in said
    for extra, message in {
        "--rtol=1e-3": "jumps are fixed steps of a grid: leave rtol out",
        "--solver=heun --renoise=0.5": "--renoise is for jumps",
        "--renoise=2": "renoise must lie in",
    }.items():
        (said,) = finish(commands.start("sample.py", *flags, *extra.split()), code=2)
        assert message in said


def test_jumps_are_refused_by_a_run_of_one_time(trained):
    with pytest.raises(InputError, match=r"jumps need a network of two times, .* one of one time"):
        resolve(open_run(trained), Request(4), Recipe(Jumps(1)))
    with pytest.raises(InputError, match="jumps need a network of two times"):
        make_experiment_of(sample__solver="jumps")


def test_noise_is_not_renewed_for_a_coupled_flow():
    experiment = make_experiment_of(flow_map__name="meanflow", coupling__name="ot")
    resolve(experiment, Request(4), Recipe(Jumps(2)))
    with pytest.raises(InputError, match=r"renoise draws x0 anew.*coupled with the data"):
        resolve(experiment, Request(4), Recipe(Jumps(2, renoise=0.5)))


def test_a_network_of_dyadic_jumps_is_asked_for_no_others():
    experiment = make_experiment_of(flow_map__name="shortcut", flow_map__levels=4)
    for spec in (Jumps(1), Jumps(8), Jumps(grid=[0, 0.5, 0.75, 1]), solver_spec("heun", 3)):
        resolve(experiment, Request(4), Recipe(spec))
    for spec in (Jumps(3), Jumps(16), Jumps(grid=[0, 0.25, 0.75, 1]), Jumps(2, renoise=0.5)):
        with pytest.raises(InputError, match=r"1/2, ..., 1/8, .* write --steps=1, 2, 4, ..., 8"):
            resolve(experiment, Request(4), Recipe(spec))


def make_experiment_of(**changes):
    return make_experiment(small_config(**changes), spec_of(load("toy/moons")))


@pytest.mark.slow
def test_the_spans_are_those_of_the_configuration():
    law = times.WithDiagonal(times.DyadicGrid(3), 0.25, times.LogitNormal(0.4, 1.0))
    changes = {"time__name": "logit_normal", "time__mean": 0.4, "time__std": 1.0}
    experiment = make_experiment_of(
        flow_map__name="lagrangian", flow_map__span="dyadic", flow_map__levels=3,
        flow_map__diagonal=0.25, **changes,
    )  # fmt: skip
    batch = {"x1": X, "labels": LABELS % 2, "index": np.arange(N)}
    keys = jax.random.split(jax.random.key(5), 5)  # as `Draw` splits the key of a step
    expected = law.spans(jax.vmap(jax.random.fold_in, (None, 0))(keys[1], np.arange(N)))
    drawn = experiment.draw(jax.random.key(5), batch).t
    np.testing.assert_array_equal(drawn.s, expected.s)
    np.testing.assert_array_equal(drawn.t, expected.t)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mean_flow"}, "unknown flow map 'mean_flow'. Did you mean 'meanflow'"),
        ({"name": "none", "guidance": 2.0}, "flow_map.guidance is of a flow map; write"),
        ({"name": "none", "teacher": "runs/x"}, "flow_map.teacher is of a flow map"),
        (
            {"name": "shortcut", "span": "sorted"},
            "'shortcut' takes spans of .*'dyadic'",
        ),
        ({"name": "consistency", "span": "any"}, "takes spans of flow_map.span='to_data'"),
        ({"name": "meanflow", "diagonal": 1.5}, "flow_map.diagonal .* must be"),
        ({"name": "meanflow", "kappa": 1.0}, r"flow_map.kappa .* must be a number in \(-inf, 1\)"),
        ({"name": "meanflow", "derivative": "vjp"}, "flow_map.derivative .* one of jvp, fd"),
    ],
)
def test_keys_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make_experiment_of(**{f"flow_map__{key}": value for key, value in changes.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time__stratified": True}, "takes no time.stratified=True; leave that out"),
        ({"time__importance": True}, "takes no time.importance=True"),
        ({"loss__target": "rf"}, "takes no loss.target='rf'"),
        ({"flow_map__guidance": 2.0, "labels__conditional": False}, "needs labels to guide by"),
        ({"model__name": "tests.run.test_flow_maps:one_time"}, "OneTime without a field span"),
    ],
)
def test_what_says_nothing_beside_a_flow_map_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make_experiment_of(flow_map__name="meanflow", **changes)


def one_time(config, conditions):
    class OneTime:
        init = apply = None

    return OneTime()


def test_a_teacher_that_does_not_fit_is_refused_before_any_device_works(trained, tmp_path):
    def refuse(message, teacher=trained, workdir=tmp_path / "run", **changes):
        with pytest.raises(InputError, match=message):
            train(student_config(teacher, **changes), workdir)
        assert not (tmp_path / "run").exists()

    refuse("nowhere holds no run", teacher=tmp_path / "nowhere")
    refuse(r"flow of shape \(2,\), and the data are of shape \(8, 8, 1\)", data__name="digits")
    other = "tests.run.two_conditions:load"
    refuse(r"trained on Vectors.*, and the data are Vectors", data__name=other)
    refuse("has the conditions .* and this run None", labels__conditional=False,
           flow_map__guidance=1.0)  # fmt: skip
    refuse("has the source StandardNormal, and this run UniformBox", source__name="uniform")
    refuse("no change of the schedule leads to BrownianBridge", path__name="bridge")
    refuse("a run cannot be its own teacher", workdir=trained)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(trained / "run.json", begun)
    refuse("has no checkpoint yet", teacher=begun)


@pytest.mark.slow
def test_a_student_is_built_without_its_teacher_and_not_trained(student, tmp_path):
    workdir = shutil.copytree(student, tmp_path / "run")
    record = json.loads((workdir / "run.json").read_text())
    record["config"]["flow_map"]["teacher"] = str(tmp_path / "gone")
    write_record(workdir, record)
    experiment = open_run(workdir)
    sample(workdir, tmp_path / "out", Request(4), Recipe(experiment.solver))
    args = experiment.draw(
        jax.random.key(0), {"x1": X, "labels": LABELS % 2, "index": np.arange(N)}
    )
    params = restore_flow(workdir, experiment).params
    with pytest.raises(InputError, match=r"flow_map.teacher. was not read"):
        experiment.loss_fn(params, *args)


def test_an_identity_of_ones_own_is_taken_by_name():
    config = small_config(flow_map__name="tests.run.test_flow_maps:own_identity")
    config.flow_map.derivative = "fd"
    assert make_experiment(config, spec_of(load("toy/moons"))).two_times
    assert not default_config().flow_map.averaged


def own_identity(config):
    return Lagrangian(derivative=config.flow_map.derivative)
