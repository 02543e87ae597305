import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe
from fmjax.factory.registry import GUIDANCE_RULES
from fmjax.guidance import SCALE_SCHEDULES
from fmjax.run.pictures import row_captions_of
from fmjax.run.restore import Weights, open_run
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.to_disk import sample
from fmjax.run.train import report
from fmjax.run.train.training import train
from fmjax.samplers import SolveError, sde_spec, solver_spec
from tests.conftest import rounding
from tests.run.conftest import small_config, write_record

SPEC = solver_spec("heun", 4)
REQUEST = Request(6, (0, 1), (2.0,), seed=3)


def resolved(workdir, request, solver, guidance=None, weak=False):
    return resolve(open_run(workdir), request, Recipe(solver, guidance), weak)


@pytest.fixture(scope="module")
def guidable(tmp_path_factory):
    """A run whose learning rate lets the labels matter after twelve steps."""
    workdir = tmp_path_factory.mktemp("guided") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "save_overview", lambda *arguments: None)
        assert train(small_config(optimizer__learning_rate=0.1), workdir) == 0
    return workdir


def drawn(workdir, out, request=REQUEST, solver=SPEC, guidance=None, weak=None, **how):
    recipe, weights = Recipe(solver, guidance), Weights(weak=weak)
    result = sample(workdir, out, request, recipe, weights, overwrite=True, **how)
    with np.load(out / "samples.npz") as content:
        return content["samples"], result


@pytest.mark.slow
def test_what_guidance_is_asked_changes_the_samples_as_it_should(guidable, tmp_path):
    plain, result = drawn(guidable, tmp_path)
    assert (result.nfe, result.calls) == (8, 16)
    conditional = drawn(guidable, tmp_path, REQUEST._replace(w=(1.0,)))[0]
    assert np.abs(plain - conditional).max() > 1e-3
    whole, result = drawn(guidable, tmp_path, guidance=Guidance(interval=(0.0, 1.0)))
    np.testing.assert_allclose(whole, plain, atol=rounding(plain))
    assert result.calls == 16
    # Of 4 Heun steps the evaluations from 0.3 to 0.6 are those at 0.5: the end of one, the
    # beginning of the next.
    part, result = drawn(guidable, tmp_path, guidance=Guidance(interval=(0.3, 0.6)))
    assert result.calls == 8 + 2
    assert np.abs(part - plain).max() > 1e-4
    # To lead away from one's own class is not to be led at all.
    ones = REQUEST._replace(labels=(1,))
    away = drawn(guidable, tmp_path, ones, guidance=Guidance(negative=1))[0]
    own = drawn(guidable, tmp_path, ones._replace(w=(1.0,)))[0]
    np.testing.assert_allclose(away, own, atol=rounding(own))
    # A network is not led by itself; by an earlier one it is.
    itself = drawn(guidable, tmp_path, weak="12")[0]
    np.testing.assert_allclose(itself, conditional, atol=rounding(conditional))
    earlier = drawn(guidable, tmp_path, weak="4")[0]
    assert np.abs(earlier - conditional).max() > 1e-4


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", sorted(GUIDANCE_RULES.keys() - {"linear"})
)  # linear: test_sample.py
def test_every_rule_is_the_conditional_field_where_w_is_one(guidable, tmp_path, rule):
    request = REQUEST._replace(w=(1.0, 1.0 + 1e-6))  # the second makes the guided program run
    guided = drawn(guidable, tmp_path, request, guidance=Guidance(rule=rule))[0]
    conditional = drawn(guidable, tmp_path, REQUEST._replace(w=(1.0,)))[0]
    np.testing.assert_allclose(guided, conditional, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", sorted(SCALE_SCHEDULES.keys() - {"constant"}))
def test_every_schedule_moves_the_scale_along(guidable, tmp_path, schedule):
    constant = drawn(guidable, tmp_path)[0]
    other = drawn(guidable, tmp_path, guidance=Guidance(schedule=schedule))[0]
    assert np.abs(other - constant).max() > 1e-3


@pytest.mark.slow
def test_the_noise_of_a_sample_is_its_own(guidable, tmp_path):
    spec = sde_spec("churn", 4)
    whole, _ = drawn(guidable, tmp_path, solver=spec)
    parts, _ = drawn(guidable, tmp_path, solver=spec, batch_size=4)
    np.testing.assert_allclose(parts, whole, atol=rounding(whole))
    quiet, _ = drawn(guidable, tmp_path, solver=sde_spec("churn", 4, scale=0.0))
    ode, _ = drawn(guidable, tmp_path)
    np.testing.assert_allclose(quiet, ode, atol=rounding(ode))
    assert np.abs(whole - ode).max() > 1e-3


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("solver", [SPEC, solver_spec("tsit5", rtol=1e-2), sde_spec("refresh", 4)])
def test_an_animation_goes_from_the_noise_to_the_samples(guidable, tmp_path, solver):
    _, result = drawn(guidable, tmp_path, solver=solver, trajectory=True)
    with Image.open(result.folder / "trajectory.gif") as animation:
        frames = animation.n_frames
        assert animation.size == (320, 320)
        first = np.asarray(animation.convert("RGB"))
        animation.seek(frames - 1)
        last = np.asarray(animation.convert("RGB"))
    adaptive = getattr(solver, "control", "fixed") != "fixed"
    assert frames == (41 if adaptive else 5)  # the last one stands longer
    assert np.any(first != last)


@pytest.mark.slow
def test_an_unconditional_model_is_guided_by_a_weaker_one_alone(train_small, tmp_path):
    workdir = train_small(train__steps=8, labels__conditional=False)
    request = Request(5, (), (2.0,))
    with pytest.raises(InputError, match="needs labels to guide by"):
        resolved(workdir, request, SPEC)
    with pytest.raises(InputError, match="unconditional: there is nothing to guide"):
        resolved(workdir, request._replace(w=None), SPEC, Guidance(interval=(0.1, 0.5)))
    plain, _ = drawn(workdir, tmp_path, request._replace(w=None))
    guided, result = drawn(workdir, tmp_path, request, weak="4")
    assert np.abs(plain - guided).max() > 1e-4
    assert result.calls == 2 * result.nfe


@pytest.mark.slow
def test_a_path_that_is_noisy_itself_says_what_it_cannot(train_small):
    workdir = train_small(train__steps=4, path__name="noisy")
    for solver, message in (
        (solver_spec("unipc", 4), "NoisyStraight has none"),
        (sde_spec("euler_maruyama", 4), "needs the score"),
    ):
        with pytest.raises(InputError, match=message):
            resolved(workdir, REQUEST, solver)
    with pytest.raises(InputError, match="needs an affine path"):
        resolved(workdir, REQUEST, SPEC, Guidance(rule="apg"))


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        (Guidance(rule="linaer"), "Did you mean 'linear'"),
        (Guidance(schedule="cosin"), "Did you mean 'cosine'"),
        (Guidance(interval=(0.8, 0.2)), "0 <= lo <= hi <= 1"),
        (Guidance(interval=(0.2,)), "0 <= lo <= hi <= 1"),
        (Guidance(zero_until=1.0), r"\[0, 1\)"),
        (Guidance(negative=2), r"the negative class must lie in \[0, 1\]; got 2"),
    ],
)
def test_a_guidance_that_cannot_be_is_refused(trained, guidance, message):
    with pytest.raises(InputError, match=message):
        resolved(trained, REQUEST, SPEC, guidance)


def test_guidance_is_built_in_where_it_changes_something(trained):
    def built(w, guidance, labels=(0,)):
        return resolved(trained, Request(3, labels, (w,)), SPEC, guidance)[1].guidance

    assert built(1.0, Guidance()) is None
    assert built(1.0, Guidance(interval=(0.2, 0.8))) is None
    assert built(1.0, Guidance(zero_until=0.5)) == Guidance(zero_until=0.5)
    assert built(1.5, Guidance()) == Guidance()
    assert built(1.0, Guidance(zero_until=0.5), None) is None  # nothing to guide by


def test_weak_guidance_takes_neither_a_negative_class_nor_a_zero_start(trained):
    with pytest.raises(InputError, match="takes no negative and no zero_until"):
        resolved(trained, REQUEST, SPEC, Guidance(negative=1), weak=True)


def test_scales_without_labels_are_refused_and_the_default_follows_the_run(trained):
    with pytest.raises(InputError, match=r"guidance \(2\) needs labels"):
        resolved(trained, Request(3, None, (2.0,)), SPEC)
    assert resolved(trained, Request(3, (0,), None), SPEC)[0].w == (1.5,)
    assert resolved(trained, Request(3, None, None), SPEC)[0].w == (1.0,)


def test_a_solver_is_asked_about_its_steps_on_the_path_of_the_run(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "vp")
    record = json.loads((workdir / "run.json").read_text())
    record["config"]["path"]["name"] = "vp"
    write_record(workdir, record)
    asked = solver_spec("heun", 5, grid="edm")
    on_vp, straight = (resolved(w, REQUEST, asked)[1].solver for w in (workdir, trained))
    np.testing.assert_array_equal(straight.nodes(), asked.nodes())
    # EDM's steps are in the signal-to-noise ratio, so on another path at other times.
    assert np.abs(on_vp.nodes() - straight.nodes()).max() > 0.05


@pytest.mark.slow
def test_a_velocity_that_is_not_finite_ends_the_run_with_the_time(trained, tmp_path, monkeypatch):
    from fmjax.run import restore

    original = restore.load_params

    def broken(*arguments):
        step, params = original(*arguments)
        return step, {**params, "out": {**params["out"], "bias": params["out"]["bias"] * np.nan}}

    monkeypatch.setattr(restore, "load_params", broken)
    with pytest.raises(SolveError, match=r"6 of 6 .* stopped at t = 0 after 4 steps"):
        sample(trained, tmp_path, REQUEST, Recipe(SPEC))
    assert not list(tmp_path.glob("samples*"))


def test_every_label_is_drawn_at_every_scale(trained):
    request, _ = resolved(trained, Request(None, (0, 1), (1.0, 2.0, 4.0)), SPEC)
    assert request.num == 6
    _, labels, w = request.rows(open_run(trained).conditions, 0, 8)
    np.testing.assert_array_equal(labels, [0, 1] * 4)
    np.testing.assert_array_equal(w, [1, 1, 2, 2, 4, 4, 1, 1])
    assert row_captions_of(request, request.columns, 6) == ("w = 1", "w = 2", "w = 4")
    # A row is one scale only where a row is one of each label.
    assert row_captions_of(request, 3, 6) == ()
    assert row_captions_of(request._replace(w=(2.0,)), request.columns, 6) == ()
    # All labels, which are two here, where none are said.
    assert resolved(trained, Request(None, (), (1.0, 2.0)), SPEC)[0].num == 4
    assert resolved(trained, Request(None, (), (2.0,)), SPEC)[0].num == 100
    with pytest.raises(InputError, match=r"need at least 5 samples; got --num=4"):
        resolved(trained, Request(4, (0, 1), (1.0, 2.0, 4.0)), SPEC)
