"""Reflow of the small run: pairs, training on them, the report, and the ways to stop and go on."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fmjax.data.load import load
from fmjax.data.pairs.records import open_pairs, read_info, shard_path
from fmjax.data.pairs.writer import save_pairs
from fmjax.data.streams import as_stream
from fmjax.errors import InputError
from fmjax.factory import Recipe
from fmjax.metrics.transport import wasserstein
from fmjax.run.reflow import compare as compare_module
from fmjax.run.reflow import draw_pairs as pairs_module
from fmjax.run.reflow import rounds
from fmjax.run.reflow.compare import describe_comparison
from fmjax.run.reflow.draw_pairs import draw_pairs
from fmjax.run.reflow.rounds import Plan, pair_seed, reflow, round_config, round_dir
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples
from fmjax.run.train import report as report_module
from fmjax.run.train.batches import RunStream, held_out
from fmjax.run.train.setup import build
from fmjax.run.train.training import train
from fmjax.run.workdir import load_record
from fmjax.samplers import solve, solver_spec
from fmjax.storage.fingerprint import fingerprint
from fmjax.storage.safetensors import write_weights
from fmjax.training.validation import held_out_batch
from tests.run.conftest import small_config, write_record
from tests.run.forked import finish, free_port
from tests.run.train.test_train import assert_same_bits, read_state

PLAN = Plan(num=100, solver=solver_spec("euler", 3), train_steps=6, batch_size=32)


@pytest.fixture(scope="module", autouse=True)
def small_reports():
    """Reports of few points and short paths: their figures are not the subject here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(compare_module, "_VECTORS", 64)
    patch.setattr(compare_module, "_PATHS", 16)
    patch.setattr(compare_module, "_STEPS", 4)
    patch.setattr(pairs_module, "_SHARD", 40)
    patch.setattr(report_module, "save_overview", lambda *arguments: None)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
    """The trained run in a place of its own, to be read only."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("reflow") / "run")


@pytest.fixture(scope="module")
def reflowed(workdir):
    """The same after one round, to be read only."""
    assert reflow(workdir, 1, PLAN) == 0
    return round_dir(workdir, 1)


@pytest.fixture
def own(workdir, reflowed, tmp_path):
    """A copy of both folders that a test may change."""
    shutil.copytree(reflowed, tmp_path / reflowed.name)
    record = json.loads((tmp_path / reflowed.name / "run.json").read_text())
    record["config"]["coupling"]["dir"] = str(tmp_path / reflowed.name / "pairs")
    write_record(tmp_path / reflowed.name, record)
    return shutil.copytree(workdir, tmp_path / workdir.name)


def load_flow(workdir):
    return restore_flow(workdir, open_run(workdir), local=True)


def asked(flow, num, w, seed, solver=PLAN.solver):
    """All classes in turn, and how they are drawn."""
    return resolve(flow.experiment, Request(num, w=(w,), seed=seed), Recipe(solver))


def all_pairs(folder):
    data = open_pairs(folder)
    parts = [s.read_pairs(np.arange(len(s))) for s in (data.train, data.test)]
    order = np.argsort(np.concatenate([data.train.positions, data.test.positions]))
    return [np.concatenate(column)[order] for column in zip(*parts, strict=True)]


@pytest.mark.slow
def test_a_pair_is_where_the_flow_carries_its_noise(workdir, reflowed):
    x0, x1, labels = all_pairs(reflowed / "pairs")
    assert x0.shape == x1.shape == (100, 2)
    np.testing.assert_array_equal(labels, np.arange(100) % 2)
    flow = load_flow(workdir)

    def velocity(x, t, labels):
        return flow.experiment.apply_fn(flow.params, x, t, labels)

    again = jax.jit(lambda x, y: solve(velocity, x, y, PLAN.solver).x1)(x0, labels)
    np.testing.assert_allclose(x1, again, rtol=1e-5, atol=1e-5)
    # Noise: standard normal, no two alike.
    assert abs(x0.mean()) < 4 / np.sqrt(200)
    assert abs(x0.std() - 1) < 4 / np.sqrt(400)
    assert len(np.unique(x0)) == 200


@pytest.mark.slow
def test_pairs_do_not_depend_on_the_batch_or_the_shards(workdir, reflowed, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_module, "_SHARD", 100)
    flow = load_flow(workdir)
    draw_pairs(flow, tmp_path / "pairs", *asked(flow, 100, 1.0, pair_seed(0, 1)), 100, "")
    assert read_info(tmp_path / "pairs").shards == 1
    assert read_info(reflowed / "pairs").shards == 3
    for one, other in zip(*map(all_pairs, (tmp_path / "pairs", reflowed / "pairs")), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_pairs_say_where_they_come_from(workdir, reflowed):
    info = read_info(reflowed / "pairs")
    assert info.origin == {
        "run": "run",
        "step": 12,
        "parameters": int(fingerprint(load_flow(workdir).params)),
        "solver": {"solver": "euler", "control": "fixed", "steps": 3, "grid": "UniformGrid()"},
        "guidance": 1.0,
        "seed": pair_seed(0, 1),
    }
    assert f"--workdir={workdir} --rounds=1 --num=100 --start=weights" in info.resume


@pytest.mark.slow
def test_guided_pairs_are_those_of_the_guided_flow(workdir, tmp_path):
    flow = load_flow(workdir)
    guided, plain = asked(flow, 32, 9.0, 7), asked(flow, 32, 1.0, 7)
    draw_pairs(flow, tmp_path, *guided, 32, "")
    x1 = all_pairs(tmp_path)[1]
    np.testing.assert_allclose(x1, draw_samples(flow, *guided), rtol=1e-5, atol=1e-5)
    assert np.abs(x1 - draw_samples(flow, *plain)).max() > 1e-4


def flat(params):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])


@pytest.mark.slow
def test_training_begins_with_the_parameters_it_is_given(workdir, tmp_path):
    """One update of Adam moves a number by at most the learning rate, 1e-3."""
    before = flat(read_state(workdir)["ema_params"]) + 0.5
    config = small_config(train__steps=1, optimizer__warmup_steps=0)
    params = jax.tree.map(lambda x: x + 0.5, load_flow(workdir).params)
    file = tmp_path / "moved.safetensors"
    write_weights(file, params)
    for parallel in ("jit", "pmap"):
        assert train(config, tmp_path / parallel, parallel, init_from=file) == 0
        state = read_state(tmp_path / parallel)
        assert 0 < np.abs(flat(state["params"]) - before).max() <= 1.01e-3
        assert int(state["step"]) == 1


@pytest.mark.slow
def test_a_checkpoint_comes_before_the_weights(workdir, tmp_path):
    own = shutil.copytree(workdir, tmp_path / "run")
    file = tmp_path / "zeros.safetensors"
    write_weights(file, jax.tree.map(np.zeros_like, load_flow(workdir).params))
    assert train(small_config(train__steps=13), own, init_from=file) == 0
    moved = flat(read_state(own)["params"]) - flat(read_state(workdir)["params"])
    assert np.abs(moved).max() < 1.1e-3


@pytest.mark.slow
def test_the_plan_chooses_the_start(own, monkeypatch):
    seen = []
    monkeypatch.setattr(rounds, "train", lambda *a, init_from, **k: seen.append(init_from) or 15)
    for start in rounds.STARTS:
        assert reflow(own, 1, PLAN._replace(start=start)) == 15  # the signal comes through
    assert seen == [own, None]


@pytest.mark.slow
def test_a_round_learns_straight_lines_between_stored_pairs(workdir, reflowed):
    config, source = load_record(reflowed).config, load_record(workdir).config
    before, after = (flatten_dict(c.to_dict(), sep=".") for c in (source, config))
    changed = {key for key, value in after.items() if before[key] != value}
    assert changed == {"coupling.name", "coupling.dir", "train.steps"}
    other = small_config(path__sigma_min=0.1, data__flip=True)
    other = round_config(other, reflowed, Plan(), 1.5)
    assert (other.path.name, other.path.sigma_min, other.data.flip) == ("linear", 0.0, False)
    assert other.sample.guidance == 1.0  # built into the pairs
    assert round_config(source, reflowed, Plan(), 1.0).sample.guidance is None


@pytest.mark.slow
def test_the_run_trains_and_validates_on_the_pairs(reflowed):
    run = build(load_record(reflowed).config, reflowed, "jit")
    x0, x1, labels = all_pairs(reflowed / "pairs")
    where = {tuple(x): i for i, x in enumerate(x1)}
    stream = RunStream(run.training, run.experiment)
    place = {"global_batch": 32, "seed": 0, "start": 3, "process": 0, "processes": 1}
    with contextlib.closing(stream.batches(**place)) as batches:
        batch = next(batches)
    validated = held_out_batch(as_stream(held_out(run.training)))
    assert len(validated["x1"]) == 8  # of the ten held out, a power of two
    for part, size in ((batch, 32), (validated, 8)):
        rows = [where[tuple(x)] for x in part["x1"]]
        np.testing.assert_array_equal(part["x0"], x0[rows])
        np.testing.assert_array_equal(part["labels"], labels[rows])
        assert len(rows) == size
    args = run.experiment.draw(jax.random.key(0), batch)
    np.testing.assert_array_equal(args.x0, batch["x0"])
    np.testing.assert_array_equal(args.x1, batch["x1"])
    assert set(np.unique(args.labels)) <= {0, 1, 2}  # dropped as in the first run
    assert run.dataset.toy is not None  # samples are compared with real points


@pytest.mark.slow
def test_the_report_stands_beside_the_checkpoints(workdir, reflowed):
    report = json.loads((reflowed / "reflow.json").read_text())
    assert report["round"] == 1
    flows = [load_flow(folder) for folder in (workdir, reflowed)]
    assert report["parameters"] == [int(fingerprint(flow.params)) for flow in flows]
    assert list(report["flows"]) == ["1-RF", "2-RF"]
    for figures in report["flows"].values():
        assert set(figures) == {*compare_module.PATH_FIGURES, "one_step", "many_step"}
        assert all(np.isfinite(value) and value >= 0 for value in figures.values())
    table = describe_comparison(report).splitlines()
    assert table[0].split() == ["1-RF", "2-RF"]
    names = [*compare_module.PATH_FIGURES, "one_step", "many_step"]
    assert [line.split()[0] for line in table[1:-2]] == names
    assert table[-2].startswith("one_step, many_step: W2")
    assert "W2 (64 points)" in table[-2]
    for figures in report["flows"].values():
        npe = abs(figures["path_energy"] / report["w2_squared"] - 1)
        np.testing.assert_allclose(figures["npe"], npe, rtol=1e-6)


@pytest.mark.slow
def test_the_figures_are_those_of_the_samples(workdir, reflowed):
    flow = load_flow(reflowed)
    report = json.loads((reflowed / "reflow.json").read_text())["flows"]["2-RF"]
    points = load("toy/moons").arrays("test", 64)[0]
    for name, solver in {"one_step": solver_spec("euler", 1), "many_step": PLAN.solver}.items():
        samples = draw_samples(flow, *asked(flow, 64, 1.0, compare_module._SEED, solver))
        np.testing.assert_allclose(report[name], wasserstein(samples, points), rtol=1e-4)


def test_images_are_measured_in_grey_levels_and_paths_in_the_models_unit(tmp_path):
    digits = load("digits", tmp_path)
    ruler = compare_module._image_ruler(digits)
    assert ruler.examples.shape == (750, 8, 8, 1)
    assert (ruler.examples.min(), ruler.examples.max()) == (-1, 1)
    assert "Fréchet distance (squared, 32 PCA dimensions, 750 examples)" in ruler.name
    held_out = digits.arrays("test")[0]
    noise = np.random.default_rng(0).integers(256, size=(297, 8, 8, 1)).astype(np.uint8)
    assert ruler.real < ruler.distance(held_out) < ruler.distance(noise) / 10


@pytest.mark.slow
def test_a_second_call_leaves_everything_as_it_is(own, capsys):
    target = round_dir(own, 1)
    files = [*target.glob("pairs/*"), target / "reflow.json", *target.glob("checkpoints/*")]
    before = {path: path.stat().st_mtime_ns for path in files}
    # The copy lies elsewhere, and a run does not follow: that is for `coupling.dir` to allow.
    config = json.loads((target / "run.json").read_text())
    config["config"]["coupling"]["dir"] = str(target / "pairs")
    write_record(target, config)
    capsys.readouterr()
    assert reflow(own, 1, PLAN) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before
    said = capsys.readouterr().out
    assert "is finished: 6 steps" in said
    assert "many_step" in said


@pytest.mark.slow
def test_a_lost_shard_is_all_that_is_made_again(own):
    flow, folder = load_flow(own), round_dir(own, 1) / "pairs"
    info, wanted = read_info(folder), all_pairs(folder)
    lost, *kept = (shard_path(folder, info, k) for k in (1, 0, 2))
    lost.unlink()
    before = [path.stat().st_mtime_ns for path in kept]
    with pytest.raises(InputError, match=r"1 of 3 shards .* python -m fmjax reflow --workdir="):
        open_pairs(folder)
    draw_pairs(flow, folder, *asked(flow, 100, 1.0, pair_seed(0, 1)), 32, "")
    assert [path.stat().st_mtime_ns for path in kept] == before
    for one, other in zip(all_pairs(folder), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_call_goes_on_where_another_was_stopped(own, reflowed):
    """Killed in the middle of the training: the pairs are there, the last checkpoint is not."""
    target = round_dir(own, 1)
    (target / "reflow.json").unlink()
    shutil.rmtree(target / "checkpoints" / "6")
    assert reflow(own, 1, PLAN) == 0
    assert_same_bits(read_state(target), read_state(reflowed))
    assert (target / "reflow.json").read_text() == (reflowed / "reflow.json").read_text()


@pytest.mark.slow
def test_other_pairs_than_those_begun_are_refused(own):
    with pytest.raises(InputError, match=r"holds other pairs, with number=100 .asked: 120"):
        reflow(own, 1, PLAN._replace(num=120))
    with pytest.raises(InputError, match=r"holds other pairs, with origin=.*'seed'"):
        reflow(own, 1, PLAN._replace(seed=1))


@pytest.mark.nightly
def test_the_second_round_starts_from_the_flow_of_the_first(workdir, tmp_path):
    own = shutil.copytree(workdir, tmp_path / "run")
    assert reflow(own, 2, PLAN._replace(guidance=2.0)) == 0
    infos = [read_info(round_dir(own, k) / "pairs") for k in (1, 2)]
    assert [info.origin["run"] for info in infos] == ["run", "run-reflow1"]
    assert [info.origin["guidance"] for info in infos] == [2.0, 1.0]  # built in from then on
    assert infos[0].origin["seed"] != infos[1].origin["seed"]
    report = json.loads((round_dir(own, 2) / "reflow.json").read_text())
    assert list(report["flows"]) == ["2-RF", "3-RF"]


@pytest.mark.nightly
def test_pairs_are_the_same_on_one_device_and_on_two_processes(
    workdir, reflowed, tmp_path, commands
):
    code = f"""
        import sys
        from pathlib import Path
        import jax
        port, process = sys.argv[1:]
        jax.distributed.initialize(f"127.0.0.1:{{port}}", 2, int(process))
        from fmjax.factory import Recipe
        from fmjax.run.reflow import draw_pairs
        from fmjax.run.reflow.rounds import pair_seed
        from fmjax.run.restore import open_run, restore_flow
        from fmjax.run.sample.request import Request, resolve
        from fmjax.samplers import solver_spec
        draw_pairs._SHARD = 40
        workdir = Path({str(workdir)!r})
        flow = restore_flow(workdir, open_run(workdir), local=True)
        request = Request(100, w=(1.0,), seed=pair_seed(0, 1))
        asked = resolve(flow.experiment, request, Recipe(solver_spec("euler", 3)))
        draw_pairs.draw_pairs(flow, Path({str(tmp_path / "pairs")!r}), *asked, 32, "")
    """
    port = free_port()
    finish(*[commands.start_code(code, port, i, devices=2) for i in range(2)])
    for one, other in zip(*map(all_pairs, (tmp_path / "pairs", reflowed / "pairs")), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rounds": 0}, "number of rounds must be a whole number of at least 1; got 0"),
        ({"start": "weight"}, "unknown start .--start. 'weight'. Did you mean 'weights'"),
        ({"num": 34}, r"34 pairs, .* do not fill a batch of 32; write --num=37"),
        ({"guidance": np.inf}, "guidance scale must be a finite number"),
        ({"batch_size": 0}, "batch size must be a whole number of at least 1; got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"train_steps": 2}, r"warmup_steps=2 and train\.steps=2"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(workdir, changes, sentence):
    changes = dict(changes)
    with pytest.raises(InputError, match=sentence):
        reflow(workdir, changes.pop("rounds", 1), PLAN._replace(**changes))


def test_an_untrained_folder_is_refused(workdir, tmp_path):
    with pytest.raises(InputError, match=r"holds no run. Train one with: python -m fmjax train"):
        reflow(tmp_path / "none", 1, PLAN)
    (tmp_path / "begun").mkdir()
    shutil.copy(workdir / "run.json", tmp_path / "begun")
    with pytest.raises(InputError, match="has no checkpoint yet; train it first"):
        reflow(tmp_path / "begun", 1, PLAN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun"]


def test_guidance_needs_classes(workdir, tmp_path):
    record = json.loads((workdir / "run.json").read_text())
    record["config"]["labels"]["conditional"] = False
    write_record(tmp_path, record)
    with pytest.raises(InputError, match="unconditional: nothing guides it"):
        reflow(tmp_path, 1, PLAN._replace(guidance=2.0))


@pytest.mark.slow
def test_a_full_disk_is_noticed_before_the_first_pair(own, monkeypatch):
    target = round_dir(own, 1)
    shutil.rmtree(target)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 1000))
    with pytest.raises(InputError, match=r"has 0 MB free, and the pairs need 0 MB; .* lower --num"):
        reflow(own, 1, PLAN)
    assert {path.name for path in target.glob("pairs/*")} <= {".lock"}


@pytest.mark.slow
def test_pairs_that_do_not_fit_the_data_are_refused(reflowed, tmp_path):
    config = load_record(reflowed).config
    save_pairs(tmp_path / "pairs", *np.zeros((2, 40, 3)), np.zeros(40, int), 2)
    config.coupling.dir = str(tmp_path / "pairs")
    with pytest.raises(InputError, match=r"have shape \(3,\), but the data \(2,\)"):
        build(config, tmp_path / "run", "jit")
    save_pairs(tmp_path / "other", *np.zeros((2, 40, 2)))
    config.coupling.dir = str(tmp_path / "other")
    with pytest.raises(InputError, match="are of no classes, but the data of 2"):
        build(config, tmp_path / "run", "jit")


@pytest.mark.slow
def test_the_command_reads_its_flags(workdir, commands):
    command = commands.start(
        "fmjax/__main__.py", "reflow", f"--workdir={workdir}", "--start=weight"
    )
    (said,) = finish(command, code=2)
    assert "Did you mean 'weights'?" in said
