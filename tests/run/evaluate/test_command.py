"""``python -m fmjax evaluate``: the figures of a run's samples, by any solver and guidance."""

import json

import pytest

from fmjax.data.load import load
from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.run.evaluate import measure
from fmjax.run.evaluate.measure import check_evaluated, evaluate_flow
from fmjax.run.restore import LATEST, Weights, open_run, restore_flow
from fmjax.run.sample.request import Request
from fmjax.run.sample.sampler import draw_samples
from fmjax.samplers import solver_spec
from tests.run.forked import finish

HEUN = Recipe(solver_spec("heun", 2))


@pytest.mark.nightly
def test_the_command_prints_and_writes_the_figures_of_its_flags(trained, commands, tmp_path):
    out = tmp_path / "new" / "figures.json"
    flags = [f"--workdir={trained}", "--num=40", "--solver=heun", "--steps=2", "--guidance=1.5"]
    (said,) = finish(commands.start("fmjax/__main__.py", "evaluate", *flags, f"--out={out}"))
    report = json.loads(out.read_text())
    flow = restore_flow(trained, open_run(trained))
    again = evaluate_flow(flow, load("toy/moons"), Request(40, w=(1.5,)), HEUN)
    assert report.pop("step") == 12
    assert report["classifier"] == again["classifier"]
    assert report["frechet"]["samples"] == pytest.approx(again["frechet"]["samples"], rel=1e-3)
    assert report["histogram"]["counts"] == again["histogram"]["counts"]
    assert f"of real examples: {report['classifier']['samples']:.1%} of the samples" in said


def test_what_cannot_be_evaluated_is_refused(trained):
    experiment = open_run(trained)
    with pytest.raises(InputError, match=r"--num must be a whole number of at least 2; got 1"):
        check_evaluated(experiment, Request(1), HEUN, LATEST)
    with pytest.raises(InputError, match="leave --weak out"):
        check_evaluated(experiment, Request(9), HEUN, Weights(weak="4"))
    with pytest.raises(InputError, match="class ids from 0 to 1; got 2"):
        check_evaluated(experiment, Request(9, (2,)), HEUN, LATEST)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "another"), [(7, 8), (2**32 - 1, 0)])
def test_samples_without_a_class_are_another_draw(trained, monkeypatch, seed, another):
    asked = []

    def note(flow, request, recipe):
        asked.append(request)
        return draw_samples(flow, request, recipe)

    monkeypatch.setattr(measure, "draw_samples", note)
    flow = restore_flow(trained, open_run(trained))
    evaluate_flow(flow, load("toy/moons"), Request(8, seed=seed), HEUN)
    assert [request.seed for request in asked] == [seed, another]
    assert [request.labels is None for request in asked] == [False, True]


@pytest.mark.slow
def test_a_mistake_gets_one_sentence(commands):
    (said,) = finish(commands.start("fmjax/__main__.py", "evaluate"), code=2)
    assert said.strip() == (
        "fmjax evaluate: say what to evaluate: --workdir=runs/digits, or --samples=FOLDER "
        "--reference=SET"
    )
