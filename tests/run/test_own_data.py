"""A user's own data from `prepare` to samples: their units, their pairs, their changes."""

import json
import shlex

import jax
import numpy as np
import pytest
from PIL import Image

from fmjax.conditions import ClassIds, Vector
from fmjax.data import prepare
from fmjax.data.load import load
from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe
from fmjax.run.evaluate.measure import evaluate_flow
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.train.setup import build
from fmjax.run.train.training import train
from fmjax.run.workdir import check_same_data, load_record
from fmjax.samplers import solver_spec
from tests.run.conftest import small_config
from tests.run.forked import finish

RECIPE = Recipe(solver_spec("euler", 4), Guidance())


def table(number, seed=0):
    """People whose height is a function of their age, in units far apart."""
    rng = np.random.default_rng(seed)
    age, kind = rng.uniform(0, 1, number), rng.integers(0, 2, number)
    height = 150 + 20 * age + 2 * rng.normal(size=number)
    income = 20_000 + 1_000 * rng.normal(size=number) + 5_000 * kind
    return {"height": height, "income": income, "age": age, "kind": np.array(["a", "b"])[kind]}


def save_csv(path, columns):
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A data directory with a table and a set of pairs, and what `prepare` said of them."""
    folder = tmp_path_factory.mktemp("own")
    path = save_csv(folder / "people.csv", table(400))
    own = [f"--data_dir={folder / 'sets'}", f"--source={path}", "--condition=age,kind"]
    assert prepare.main(["--name=people", *own]) == 0
    x0 = np.random.default_rng(0).normal(size=(200, 3)) * [1, 2, 3]
    np.savez(folder / "shift.npz", x=x0 + 10, x0=x0)
    assert prepare.main(
        ["--name=shift", f"--source={folder / 'shift.npz'}", f"--data_dir={folder / 'sets'}"]
    ) == 0  # fmt: skip
    return folder / "sets"


def small(sets, name, **changes):
    return small_config(data__name=name, data__dir=str(sets), **changes)


@pytest.fixture(scope="module")
def people(sets, tmp_path_factory, cache_folder):
    workdir = tmp_path_factory.mktemp("runs") / "people"
    assert train(small(sets, "people", eval__num=50, train__sample_every=12), workdir) == 0
    return workdir


@pytest.mark.slow
def test_samples_are_in_the_units_of_the_table(people, tmp_path):
    sample(people, tmp_path / "out", Request(64), RECIPE, trajectory=True)
    with np.load(tmp_path / "out" / "samples.npz") as found:
        samples, ages = found["samples"], found["age"]
        assert found["kind"].shape == (64,)
    assert samples.shape == (64, 2)
    assert (np.abs(samples.mean(0) - [160, 22_500]) < [30, 8_000]).all()
    assert ages.shape == (64, 1)
    for picture in ("grid.png", "trajectory.gif"):
        assert (tmp_path / "out" / picture).stat().st_size > 1000


@pytest.mark.slow
def test_a_table_is_evaluated_in_units_of_its_spread(people, sets):
    report = json.loads((people / "evaluation.json").read_text())
    assert report["frechet"]["real_halves"] < 1  # in those of its columns it is above 1,000
    flow = restore_flow(people, open_run(people))
    again = evaluate_flow(flow, load("people", sets), Request(50), Recipe(flow.experiment.solver))
    assert again["frechet"] == pytest.approx(report["frechet"])


@pytest.mark.slow
def test_a_table_that_changed_is_refused(people, sets, tmp_path):
    record = load_record(people)
    assert record.fingerprint == load("people", sets).fingerprint
    path = save_csv(tmp_path / "people.csv", table(400, seed=1))
    options = [f"--data_dir={tmp_path}", f"--source={path}", "--condition=age,kind"]
    assert prepare.main(["--name=people", *options]) == 0
    with pytest.raises(InputError, match=r"was trained on|has changed since"):
        train(small(tmp_path, "people", eval__num=50, train__sample_every=12), people)
    with pytest.raises(InputError, match=r"'people' has changed since .*another fingerprint"):
        check_same_data(people, record, load("people", tmp_path).fingerprint)
    check_same_data(people, record._replace(fingerprint=None), "another")


@pytest.mark.nightly
def test_pairs_start_from_their_own_points(sets, tmp_path):
    own = {"source__name": "data", "source__data": "shift", "source__dir": str(sets)}
    own |= {"labels__conditional": False, "train__steps": 400, "train__checkpoint_every": 400}
    own |= {"train__log_every": 100, "optimizer__learning_rate": 1e-2, "train__ema": 0.9}
    workdir = tmp_path / "run"
    assert train(small(sets, "shift", **own), workdir) == 0
    sample(workdir, tmp_path / "out", Request(200, labels=None), RECIPE)
    with np.load(tmp_path / "out" / "samples.npz") as found:
        samples = found["samples"]
    # Every point is moved by 10: straight paths, so that the spread is that of x0.
    np.testing.assert_allclose(samples.mean(0), 10, atol=1.2)
    np.testing.assert_allclose(samples.std(0), [1, 2, 3], rtol=0.3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source__name": "data", "source__data": "people"},
        {"source__name": "data", "source__data": "shift", "coupling__name": "ot"},
    ],
)
def test_pairs_that_would_be_sampled_from_elsewhere_are_refused(sets, tmp_path, changes):
    config = small(sets, "shift", labels__conditional=False, source__dir=str(sets), **changes)
    with pytest.raises(InputError, match=r"(holds pairs, .*source.name=data)|(examples of shape)"):
        build(config, tmp_path / "run", "jit")


def test_latents_have_no_pixels(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(40, 4, 4, 2)))
    options = [f"--source={tmp_path / 'a.npz'}", f"--data_dir={tmp_path / 'sets'}"]
    assert prepare.main(["--name=latents", *options]) == 0
    for key in ("data__dequantize", "data__flip"):
        config = small(tmp_path / "sets", "latents", labels__conditional=False, **{key: True})
        with pytest.raises(InputError, match="pixels"):
            train(config, tmp_path / "run")


@pytest.mark.slow
def test_the_command_of_prepare_trains_and_samples(tmp_path, commands, capsys):
    path = save_csv(tmp_path / "people.csv", table(300))
    options = [f"--data_dir={tmp_path / 'sets'}", f"--source={path}", "--condition=age,kind"]
    assert prepare.main(["--name=people", *options]) == 0
    said = capsys.readouterr().out
    assert "270 train and 30 test examples of shape (2,), conditions age (vector), kind" in said
    command = shlex.split(said.splitlines()[-1])
    short = ["train.steps=20", "optimizer.warmup_steps=2", "train.log_every=10",
             "train.checkpoint_every=20", "train.sample_every=0", "eval.num=20"]  # fmt: skip
    train_flags = [*command[4:], *(f"--config.{key}" for key in short)]
    sample_flags = ["--workdir=runs/table-people", "--num=7", "--out=out"]
    for module, argv in (("train", train_flags), ("sample", sample_flags)):
        finish(commands.start("fmjax/__main__.py", module, *argv, cwd=tmp_path))
    with np.load(tmp_path / "out" / "samples.npz") as found:
        assert found["samples"].shape == (7, 2)
    conditions = open_run(tmp_path / "runs" / "table-people").conditions
    assert isinstance(conditions["kind"], ClassIds)
    assert isinstance(conditions["age"], Vector)
    assert jax.tree.leaves(conditions)


@pytest.mark.nightly
def test_two_folders_that_are_not_paired_lead_from_the_one_to_the_other(tmp_path):
    rng = np.random.default_rng(0)
    place = f"--data_dir={tmp_path / 'sets'}"
    for name, level in (("summer", 200), ("winter", 60)):
        (tmp_path / name).mkdir()
        for k in range(60):
            image = np.clip(rng.normal(level, 20, (4, 4)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{k}.png")
        assert prepare.main([f"--name={name}", f"--source={tmp_path / name}", place]) == 0
    own = {"source__name": "data", "source__data": "summer", "source__dir": str(tmp_path / "sets")}
    own |= {"labels__conditional": False, "coupling__name": "ot", "train__batch_size": 32}
    own |= {"train__steps": 300, "train__checkpoint_every": 300, "train__ema": 0.9}
    own |= {"optimizer__learning_rate": 1e-2, "train__log_every": 100}
    workdir = tmp_path / "run"
    assert train(small(tmp_path / "sets", "winter", **own), workdir) == 0
    np.save(tmp_path / "x0.npy", rng.normal(200, 20, (20, 4, 4, 1)).astype(np.uint8))
    sample(workdir, tmp_path / "out", Request(None, x0=tmp_path / "x0.npy", labels=None), RECIPE)
    with np.load(tmp_path / "out" / "samples.npz") as found:
        samples = found["samples"]
    assert (samples.shape, samples.dtype) == ((20, 4, 4, 1), np.uint8)
    assert samples.mean() == pytest.approx(60, abs=25)
