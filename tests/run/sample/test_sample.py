import json
import shutil

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe
from fmjax.run.restore import Weights, open_run, restore_flow
from fmjax.run.sample.request import Request
from fmjax.run.sample.sampler import draw_batches, fit_batch, make_sample_fn
from fmjax.run.sample.to_disk import sample
from fmjax.samplers import solver_spec
from fmjax.storage.checkpoints import Checkpoints
from tests.run.conftest import write_record

HEUN = Recipe(solver_spec("heun", 3))


def read(out):
    with np.load(out / "samples.npz") as content:
        return content["samples"], content["labels"]


@pytest.mark.slow
def test_a_sample_depends_on_its_number_and_not_on_the_batch(trained, tmp_path):
    request = Request(23, (0, 1), (1.5,), seed=4)
    for size in (7, 8, 23):
        sample(trained, tmp_path / str(size), request, HEUN, batch_size=size)
    reference, labels = read(tmp_path / "23")
    assert reference.shape == (23, 2)
    np.testing.assert_array_equal(labels, np.arange(23) % 2)
    for size in (7, 8):
        samples, others = read(tmp_path / str(size))
        # Products of other shapes round otherwise: equal to float32 rounding, not to the bit.
        np.testing.assert_allclose(samples, reference, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(others, labels)
    more = sample(trained, tmp_path / "more", request._replace(num=30), HEUN, batch_size=23)
    np.testing.assert_allclose(read(more.folder)[0][:23], reference, rtol=1e-5, atol=1e-5)
    other = sample(trained, tmp_path / "seed", request._replace(seed=5), HEUN)
    assert np.abs(read(other.folder)[0] - reference).min() > 0


@pytest.mark.slow
def test_an_image_depends_on_its_number_and_not_on_the_batch(train_small, tmp_path):
    workdir = train_small(data__name="digits", train__steps=4)
    request = Request(23, (3, 8), (1.5,))
    for size in (7, 23):
        sample(workdir, tmp_path / str(size), request, HEUN, batch_size=size)
    images, others = (read(tmp_path / size)[0].astype(int) for size in ("23", "7"))
    assert images.shape == (23, 8, 8, 1)
    # Products of other shapes round otherwise, and may tip a grey level of 256.
    assert np.abs(images - others).max() <= 1


@pytest.mark.slow
def test_scales_and_labels_act_per_sample(trained, tmp_path):
    several = sample(trained, tmp_path / "a", Request(6, (0, 1), (0.0, 1.0, 3.0)), HEUN)
    for i, w in enumerate((0.0, 1.0, 3.0)):
        # w = 1 takes the conditional field alone; the guided one must equal it there.
        alone = sample(trained, tmp_path / f"b{i}", Request(6, (0, 1), (w,)), HEUN)
        rows = np.arange(2 * i, 2 * i + 2)
        np.testing.assert_allclose(
            read(several.folder)[0][rows], read(alone.folder)[0][rows], rtol=1e-4, atol=1e-4
        )
        assert (alone.nfe, alone.calls) == (6, 6 if w == 1 else 12)
    assert (several.nfe, several.calls) == (6, 12)


@pytest.mark.slow
def test_no_labels_is_w_zero(trained, tmp_path):
    none = sample(trained, tmp_path / "a", Request(5, None), HEUN)
    zero = sample(trained, tmp_path / "b", Request(5, (0, 1), (0.0,)), HEUN)
    np.testing.assert_allclose(read(none.folder)[0], read(zero.folder)[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(read(none.folder)[1], -1)
    assert none.calls == none.nfe


def test_other_labels_scales_and_seeds_compile_nothing(trained, tmp_path, count_compilations):
    flow = restore_flow(trained, open_run(trained))
    sample_fn = make_sample_fn(flow.experiment, Recipe(HEUN.solver, Guidance()), flow.mesh)
    first = Request(20, (0, 1), (1.5,))
    list(draw_batches(sample_fn, flow, first, 8))
    with count_compilations() as compiled:
        # The last batch of 20 is half empty, and 13 ends elsewhere.
        for request in (Request(13, (1,), (0.5, 2.0), 7), Request(20, (1, 0, 0), (4.0,), 1)):
            list(draw_batches(sample_fn, flow, request, 8))
    assert compiled.count == 0, compiled.names


@pytest.mark.slow
def test_the_checkpoint_asked_for_is_the_one_used(trained, tmp_path):
    request = Request(4, (0,), (1.0,))
    made = {
        name: sample(trained, tmp_path / name, request, HEUN, Weights(name))
        for name in ("4", "12", "latest", "best")
    }
    checkpoints = Checkpoints(trained / "checkpoints", read_only=True)
    assert made["best"].step == checkpoints.best_step()
    checkpoints.close()
    assert made["latest"].step == 12
    samples = {name: read(result.folder)[0] for name, result in made.items()}
    np.testing.assert_array_equal(samples["latest"], samples["12"])
    assert np.abs(samples["4"] - samples["12"]).max() > 0
    raw = sample(trained, tmp_path / "raw", request, HEUN, Weights(ema=False))
    assert np.abs(read(raw.folder)[0] - samples["12"]).max() > 0


@pytest.mark.slow
def test_adaptive_steps_report_their_evaluations_and_agree_with_many_fixed_ones(trained, tmp_path):
    request = Request(6, (0, 1), (1.5,))
    tolerant = Recipe(solver_spec("dopri5", rtol=1e-5, atol=1e-5))
    adaptive = sample(trained, tmp_path / "a", request, tolerant)
    fixed = sample(trained, tmp_path / "f", request, Recipe(solver_spec("dopri5", 50)))
    np.testing.assert_allclose(read(adaptive.folder)[0], read(fixed.folder)[0], atol=1e-3)
    assert fixed.nfe == 301
    assert adaptive.nfe < 301


@pytest.mark.slow
def test_an_adaptive_solve_that_gives_up_leaves_no_file(trained, tmp_path):
    spec = solver_spec("tsit5", rtol=1e-7, atol=1e-7, max_steps=2)
    with pytest.raises(FloatingPointError, match="did not reach t = 1"):
        sample(trained, tmp_path, Request(5, (0,)), Recipe(spec))
    assert not list(tmp_path.glob("samples*"))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(0, None), "at least 1"),
        (Request(5, (0, 2)), "labels must be class ids from 0 to 1; got 2"),
        (Request(5, (-1,)), "from 0 to 1; got -1"),
        (Request(5, (0,), (float("nan"),)), "finite"),
        (Request(5, (0,), (1.0,), 2**32), "seed"),
    ],
)
def test_a_wrong_request_is_refused(trained, tmp_path, request_, message):
    with pytest.raises(InputError, match=message):
        sample(trained, tmp_path / "out", request_, HEUN)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_labels_asked_of_an_unconditional_model_are_refused(train_small, tmp_path):
    workdir = train_small(train__steps=4, labels__conditional=False)
    with pytest.raises(InputError, match=r"unconditional.*--labels=none"):
        sample(workdir, tmp_path / "out", Request(5, (0,)), HEUN)
    result = sample(workdir, tmp_path / "out", Request(5, ()), HEUN)  # all there are: none
    np.testing.assert_array_equal(read(result.folder)[1], -1)


@pytest.mark.slow
def test_samples_are_not_overwritten_unless_asked(trained, tmp_path):
    request = Request(4, (0,))
    sample(trained, tmp_path, request, HEUN)
    with pytest.raises(InputError, match=r"already has samples.npz"):
        sample(trained, tmp_path, request, HEUN)
    sample(trained, tmp_path, request._replace(num=5), HEUN, overwrite=True)
    assert len(read(tmp_path)[0]) == 5


def test_folders_that_do_not_serve_are_named(trained, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no run"):
        sample(tmp_path, tmp_path / "out", Request(5, (0,)), HEUN)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="another --out"):
        sample(trained, tmp_path / "file" / "out", Request(5, (0,)), HEUN)
    for name, message in (("nine", "latest, best or a step"), ("9", "no checkpoint of step 9")):
        with pytest.raises(InputError, match=message):
            sample(trained, tmp_path / "out", Request(5, (0,)), HEUN, Weights(name))
    with pytest.raises(InputError, match="batch size"):
        sample(trained, tmp_path / "out", Request(5, (0,)), HEUN, batch_size=0)
    full = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match="MB free"):
        sample(trained, tmp_path / "out", Request(5, (0,)), HEUN)


def test_a_run_without_a_checkpoint_is_named(trained, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(trained / "run.json", tmp_path / "run")
    with pytest.raises(InputError, match="no checkpoint yet"):
        sample(tmp_path / "run", tmp_path / "out", Request(5, (0,)), HEUN)


def test_a_record_from_the_future_is_refused_with_its_key(trained, tmp_path):
    content = json.loads((trained / "run.json").read_text())
    content["config"]["model"]["colour"] = 1
    write_record(tmp_path, content)
    with pytest.raises(InputError, match="colour"):
        sample(tmp_path, tmp_path / "out", Request(5, (0,)), HEUN)


def test_the_batch_fits_the_devices():
    assert fit_batch(1000, 256, 8) == 256
    assert fit_batch(10, 256, 8) == 16
    assert fit_batch(10, 4, 8) == 8
