"""Runs on tokens: trained, resumed, sampled, shown and refused by the commands of all runs."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from fmjax.data.token_codecs import MASKED, Levels, Text
from fmjax.discrete import Masked
from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe
from fmjax.factory.registry import make_solver
from fmjax.factory.settings import EvalSettings
from fmjax.likelihood import Exact
from fmjax.losses import make_per_example_loss_fn
from fmjax.run.distill.student import distill
from fmjax.run.evaluate.measure import describe_evaluation, evaluate_flow
from fmjax.run.likelihood.measure import Draws, Question, measure
from fmjax.run.likelihood.report import describe_likelihood
from fmjax.run.pictures import draw_states
from fmjax.run.reflow.rounds import reflow
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.export import export_run
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.train.training import train
from fmjax.samplers import sde_spec, solver_spec
from tests.run.conftest import small_config
from tests.run.forked import finish
from tests.run.train.test_train import assert_same_bits, read_state

LEVELS = 4
IMAGES = {
    "data__name": "random/4x4x1/3",
    "data__levels": LEVELS,
    "path__name": "mask",
    "model__name": "dit",
    "model__patch_size": 2,
    "model__heads": 2,
}
TEXT = {
    "data__name": "text/romeo_and_juliet/8",
    "path__name": "mask",
    "labels__conditional": False,
    "model__name": "token_transformer",
    "model__heads": 2,
    "model__time": False,
    "train__sample_every": 12,
}
RECIPE = Recipe(make_solver("unmask", 4), Guidance())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("images") / "run"
    assert train(small_config(**IMAGES), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("text") / "run"
    assert train(small_config(**TEXT), workdir) == 0
    return workdir


def drawn(out):
    with np.load(out / "samples.npz") as content:
        return dict(content)


@pytest.mark.nightly
def test_images_come_back_as_images_of_their_levels(images, tmp_path):
    assert open_run(images).spec.codec == Levels((4, 4, 1), LEVELS)
    result = sample(images, tmp_path, Request(9, (0, 2), (1.0, 2.0)), RECIPE)
    assert (result.nfe, result.calls) == (4, 8)  # both branches at each step
    found = drawn(tmp_path)
    assert (found["samples"].shape, found["samples"].dtype) == ((9, 4, 4, 1), np.uint8)
    assert set(np.unique(found["samples"])) <= {0, 85, 170, 255}
    np.testing.assert_array_equal(found["labels"], [0, 2] * 4 + [0])
    solver = json.loads(str(found["solver"]))
    assert (solver["solver"], solver["steps"]) == ("unmask", 4)
    assert (tmp_path / "grid.png").exists()
    assert (images / "samples" / "final.png").exists()


@pytest.mark.slow
def test_a_sample_is_a_function_of_the_seed_and_its_number(images, tmp_path):
    for name, options in {
        "one": {},
        "parts": {"batch_size": 2},
        "shards": {"shard_size": 4},
    }.items():
        sample(images, tmp_path / name, Request(8, (0, 1), (1.5,)), RECIPE, **options)
    whole = drawn(tmp_path / "one")["samples"]
    np.testing.assert_array_equal(drawn(tmp_path / "parts")["samples"], whole)
    shards = sorted((tmp_path / "shards").glob("samples-*.npz"))
    np.testing.assert_array_equal(
        np.concatenate([np.load(path)["samples"] for path in shards]), whole
    )
    sample(images, tmp_path / "other", Request(8, (0, 1), (1.5,), seed=1), RECIPE)
    assert not np.array_equal(drawn(tmp_path / "other")["samples"], whole)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "solver",
    [
        make_solver("purity", 3),
        make_solver("tau_leap", 3, grid="cosine"),
        make_solver("unmask", 3, temperature=0.5, top_p=0.8, redraws=1.0),
    ],
    ids=lambda solver: solver.describe()["solver"],
)
def test_every_solver_of_tokens_draws(solver, images, tmp_path):
    sample(images, tmp_path, Request(4), Recipe(solver))
    assert set(np.unique(drawn(tmp_path)["samples"])) <= {0, 85, 170, 255}


@pytest.mark.slow
def test_a_trajectory_shows_tokens_appear(images, tmp_path):
    sample(images, tmp_path, Request(4, (0, 1)), RECIPE, trajectory=True)
    with Image.open(tmp_path / "trajectory.gif") as gif:
        shares = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            pixels = np.asarray(gif.convert("RGB")).astype(int)
            shares.append(np.mean(pixels[..., 2] - pixels[..., 0] > 60))  # blue: masked
    assert shares[0] > 0.3
    assert shares[-1] == 0
    assert np.all(np.diff(shares) <= 0)


def test_masked_pixels_are_blue_in_grey_and_coloured_images():
    for channels in (1, 3):
        codec = Levels((2, 2, channels), LEVELS)
        states = np.zeros((1, 2, 2, channels), np.int32)
        states[0, 0, 0, 0] = LEVELS
        picture = draw_states(codec, states, 1).reshape(-1, 3)
        colours = {tuple(colour) for colour in picture.tolist()}
        assert colours == {(120, 150, 215), (0, 0, 0), (255, 255, 255)}  # and the frame


@pytest.mark.slow
def test_texts_are_written_as_texts(text, tmp_path):
    codec = open_run(text).spec.codec
    assert isinstance(codec, Text)
    sample(text, tmp_path, Request(3), RECIPE, trajectory=True)
    found = drawn(tmp_path)
    assert (found["samples"].shape, found["samples"].dtype) == ((3, 8), np.int32)
    written = codec.write(found["samples"])
    expected = "\n".join(f"=== {i} ===\n{line}\n" for i, line in enumerate(written))
    assert (tmp_path / "samples.txt").read_text() == expected
    assert not (tmp_path / "grid.png").exists()
    assert (text / "samples" / "final.txt").read_text().startswith("=== 0 ===\n")
    steps = (tmp_path / "trajectory.txt").read_text().split("=== t = ")[1:]
    assert [step.split(" ")[0] for step in steps] == ["0", "0.25", "0.5", "0.75", "1"]
    masked = [step.count(MASKED) for step in steps]
    assert masked[0] == 3 * 8
    assert masked[-1] == 0
    assert masked == sorted(masked, reverse=True)
    assert "\n---\n".join(written) in steps[-1]


@pytest.mark.slow
def test_tokens_that_are_given_stay(text, tmp_path):
    """Masks between given characters: the run draws what stands there."""
    codec = open_run(text).spec.codec
    tokens = codec.read("O, Romeo")
    tokens[[0, 5]] = codec.vocabulary
    np.save(tmp_path / "given.npy", tokens[None].astype(np.int64))
    sample(text, tmp_path / "out", Request(20, x0=tmp_path / "given.npy"), RECIPE)
    found = drawn(tmp_path / "out")["samples"]
    kept = [1, 2, 3, 4, 6, 7]
    np.testing.assert_array_equal(found[:, kept], np.tile(tokens[kept], (20, 1)))
    assert len(np.unique(found[:, [0, 5]])) > 3
    np.save(tmp_path / "wrong.npy", np.full((1, 8), codec.vocabulary + 1))
    with pytest.raises(InputError, match=f"integers from 0 to {codec.vocabulary}; got"):
        sample(text, tmp_path / "none", Request(2, x0=tmp_path / "wrong.npy"), RECIPE)
    np.save(tmp_path / "wrong.npy", np.zeros((1, 7), int))
    with pytest.raises(InputError, match=r"must be int32 \(n, 8\), as the flow starts from"):
        sample(text, tmp_path / "none", Request(2, x0=tmp_path / "wrong.npy"), RECIPE)


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits(images, train_small, tmp_path):
    workdir = train_small(**IMAGES)
    for step in ("8", "12"):
        shutil.rmtree(workdir / "checkpoints" / step)
    train_small(workdir, **IMAGES)
    assert_same_bits(read_state(workdir), read_state(images))


@pytest.mark.nightly
def test_pmap_trains_to_the_same_parameters(images, train_small):
    other = read_state(train_small(parallel="pmap", **IMAGES))
    for x, y in zip(*map(jax.tree.leaves, (other, read_state(images))), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_exported_sampler_draws_the_same_tokens(images, tmp_path):
    sample(images, tmp_path / "out", Request(4, (0, 1), (1.5,)), RECIPE)
    export_run(images, tmp_path / "sampler", Request(4, (0, 1), (1.5,)), RECIPE)
    exported = jax.export.deserialize(bytearray((tmp_path / "sampler").read_bytes()))
    index = np.arange(4, dtype=np.int32)
    samples = exported.call(np.uint32(0), index, index % 2, np.full(4, 1.5, np.float32))
    np.testing.assert_array_equal(samples, drawn(tmp_path / "out")["samples"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(solver_spec("heun", 4)), "heun follows a velocity or a score, and this run is of"),
        (Recipe(sde_spec("churn", 4)), "churn follows a velocity or a score, and this run is of"),
        (RECIPE._replace(guidance=Guidance(rule="apg")), "rule is of guided velocities"),
    ],
)
def test_what_is_of_velocities_is_refused(recipe, message, images, tmp_path):
    with pytest.raises(InputError, match=message):
        sample(images, tmp_path / "out", Request(2), recipe)
    assert not (tmp_path / "out").exists()


def test_a_scale_below_0_is_refused(images, tmp_path):
    with pytest.raises(InputError, match="tokens take scales of guidance of at least 0; got -1"):
        sample(images, tmp_path / "out", Request(2, w=(-1.0,)), RECIPE)


def test_a_run_on_numbers_refuses_solvers_of_tokens(trained, tmp_path):
    with pytest.raises(InputError, match="unmask draws tokens, and this run is of numbers"):
        sample(trained, tmp_path / "out", Request(2), RECIPE)


def test_reflow_and_distillation_are_of_numbers(images, tmp_path):
    message = "is of flows that move numbers along a velocity, and this one is of tokens"
    with pytest.raises(InputError, match=f"reflow {message}"):
        reflow(images)
    with pytest.raises(InputError, match=f"distillation {message}"):
        distill(images, tmp_path / "student")


# ------------------------------------------------------------------------------ likelihood


@pytest.mark.slow
def test_the_bound_is_that_of_the_loss_at_many_times(images):
    """Against the mean of the loss over independent times, in nats of a whole image."""
    report = measure(images, Question(num=20), Draws(64), batch_size=8)
    experiment = open_run(images)
    flow = restore_flow(images, experiment)
    x, labels = experiment.data.load().arrays("test", 20)
    path = dataclasses.replace(experiment.path, loss=Masked())
    loss_fn = make_per_example_loss_fn(experiment.apply_fn, path)
    draw = Draw(source=path.source, noise=loss_fn.noise)
    x1 = experiment.spec.codec.encode(x)

    @jax.jit
    def losses(key):
        args = draw(key, np.arange(20), x1)
        return loss_fn(flow.params, args.x0, args.x1, args.t, labels, noise=args.noise)

    many = 16 * np.stack([losses(key) for key in jax.random.split(jax.random.key(7), 200)])
    spread = many.std(axis=0).mean() / np.sqrt(200 * 20)
    assert report["nats"]["mean"] == pytest.approx(-many.mean(), abs=5 * spread)
    assert report["bits_per_dim"]["mean"] == pytest.approx(
        -report["nats"]["mean"] / 16 / np.log(2), rel=1e-6
    )
    assert report["trace"] == "a bound, at times drawn for each example"
    assert report["nfe"] == 64
    assert json.loads(json.dumps(report)) == report
    text = describe_likelihood(report)
    assert "an upper bound\n" in text
    assert "of it from the draws" in text
    assert "dequantisation" not in text
    assert "64.0 evaluations of the network per example" in text


@pytest.mark.slow
def test_the_draws_of_an_example_do_not_depend_on_the_batch(images):
    found = [measure(images, Question(num=20), Draws(4), batch_size=k)["nats"] for k in (20, 8)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    others = measure(images, Question(num=20, seed=1), Draws(4))["nats"]
    assert others["mean"] != found[0]["mean"]
    more = measure(images, Question(num=20), Draws(64))["nats"]
    assert 0 < more["probe_error"] < found[0]["probe_error"]


def test_a_likelihood_of_the_other_kind_is_refused(images, trained):
    with pytest.raises(InputError, match="whose likelihood is a bound and no ODE: give the number"):
        measure(images, Question(), solver_spec("rk4", 4), Exact())
    with pytest.raises(
        InputError, match="--draws is for runs on tokens, and this one is of numbers"
    ):
        measure(trained, Question(), Draws(4))
    with pytest.raises(InputError, match="--draws, to know an error, must be a whole number of at"):
        measure(images, Question(), Draws(1))


@pytest.mark.slow
def test_a_text_is_evaluated_by_its_bits(text, tmp_path):
    flow = restore_flow(text, open_run(text))
    dataset = flow.experiment.data.load()
    experiment = dataclasses.replace(flow.experiment, evaluation=EvalSettings(50, 100))
    report = evaluate_flow(flow._replace(experiment=experiment), dataset, Request(50), RECIPE)
    # Hardly trained, it gives each of 61 characters about the same probability.
    assert report["bits_per_token"]["mean"] == pytest.approx(np.log2(61), rel=0.05)
    assert report["examples"] == 50
    assert "bits per token of 50 held-out examples: 5.8" in describe_evaluation(report)


@pytest.mark.slow
def test_the_command_refuses_flags_of_the_other_kind(images, trained, commands, tmp_path):
    command = ("fmjax/__main__.py", "likelihood")
    asked = [
        (images, "--steps=4", "estimated at --draws times: leave --steps out"),
        (images, "--exact", "estimated at --draws times: leave --exact out"),
        (trained, "--draws=4", "--draws is for runs on tokens"),
    ]
    started = [
        commands.start(*command, f"--workdir={workdir}", flag, cwd=tmp_path)
        for workdir, flag, _ in asked
    ]
    for output, (_, _, sentence) in zip(finish(*started, code=2), asked, strict=True):
        assert sentence in output


@pytest.mark.slow
def test_a_text_has_no_features(text, commands, tmp_path):
    flags = (f"--workdir={text}", "--features=pca")
    started = commands.start("fmjax/__main__.py", "evaluate", *flags, cwd=tmp_path)
    assert "this run is of texts, which are evaluated by their bits" in finish(started, code=2)[0]


@pytest.mark.nightly
def test_points_of_tokens_are_plotted(tmp_path):
    workdir = tmp_path / "run"
    changes = {"data__name": "toy/checkerboard_tokens", "path__name": "uniform"}
    assert train(small_config(train__sample_every=12, eval__num=20, **changes), workdir) == 0
    assert (workdir / "samples" / "final.png").exists()
    report = json.loads((workdir / "evaluation.json").read_text())
    assert 6 < report["bits_per_token"]["mean"] < 9
    sample(workdir, tmp_path / "out", Request(50), RECIPE, trajectory=True)
    assert (tmp_path / "out" / "grid.png").exists()
    assert (tmp_path / "out" / "trajectory.gif").exists()
    found = drawn(tmp_path / "out")["samples"]
    assert (found.shape, found.dtype) == ((50, 2), np.int32)
    assert 0 <= found.min() <= found.max() < 128
