import json

import numpy as np
import pytest
from PIL import Image

from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.run.pictures import draw_picture
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.compare import compare, describe_solvers
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples
from fmjax.samplers import solver_spec

REQUEST = Request(6, (0, 1), (2.0,), seed=3)
RECIPES = {
    "euler:2": Recipe(solver_spec("euler", 2)),
    "heun:4": Recipe(solver_spec("heun", 4)),
    "euler:4": Recipe(solver_spec("euler", 4)),
}


@pytest.fixture(scope="module")
def compared(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    return out, compare(trained, out, REQUEST, RECIPES)


@pytest.mark.slow
def test_each_solver_is_compared_with_the_one_of_most_evaluations(trained, compared):
    out, rows = compared
    flow = restore_flow(trained, open_run(trained))
    drawn = {
        name: draw_samples(flow, *resolve(flow.experiment, REQUEST, recipe)).astype(float)
        for name, recipe in RECIPES.items()
    }
    assert [(row.solver, row.nfe) for row in rows] == [
        ("euler:2", 2),
        ("heun:4", 8),
        ("euler:4", 4),
    ]
    for row in rows:
        apart = np.sqrt(np.mean((drawn[row.solver] - drawn["heun:4"]) ** 2))
        np.testing.assert_allclose(row.distance, apart, rtol=1e-6)
    assert rows[0].distance > rows[2].distance > rows[1].distance == 0
    written = json.loads((out / "compare.json").read_text())["solvers"]
    assert [row["solver"] for row in written] == list(RECIPES)
    assert describe_solvers(rows).splitlines()[2].split()[:2] == ["heun:4", "8"]


@pytest.mark.slow
def test_the_picture_has_the_same_samples_of_each_solver_from_left_to_right(trained, compared):
    out, _ = compared
    experiment = open_run(trained)
    flow = restore_flow(trained, experiment)
    resolved = [resolve(experiment, REQUEST, recipe) for recipe in RECIPES.values()]
    parts = [draw_samples(flow, *each) for each in resolved]
    classes = np.array([0, 1] * 3)
    plots = [draw_picture(experiment.spec.codec, part, 2, classes) for part in parts]
    with Image.open(out / "compare.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.hstack(plots))


@pytest.mark.slow
def test_an_earlier_comparison_stays_unless_it_is_to_be_replaced(trained, compared):
    out, _ = compared
    before = (out / "compare.json").read_bytes()
    with pytest.raises(InputError, match=r"already has compare\.json; give another --out"):
        compare(trained, out, REQUEST, RECIPES)
    assert (out / "compare.json").read_bytes() == before
