"""Samples from anywhere in features: the figures of the library, and reuse of statistics."""

import json
import re

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.metrics import frechet_distance, pixel_features, read_reference
from fmjax.run.evaluate.examples import open_examples
from fmjax.run.evaluate.in_features import Asked, measure_in_features, open_real_side
from tests.run.forked import finish, free_port

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 200, (300, 4, 4, 1), np.uint8)
FAKE = RNG.integers(50, 256, (200, 4, 4, 1), np.uint8)


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "real.npz", images=REAL)
    np.savez(tmp_path / "fake.npz", samples=FAKE)
    return tmp_path


def asked(folder, **more):
    return Asked(str(folder / "real.npz"), **({"features": "pixels"} | more))


def measured(folder, **more):
    samples = open_examples(str(folder / "fake.npz"), "train")
    return measure_in_features(open_real_side(asked(folder, **more)), samples, len(samples))


def test_the_figures_are_those_of_the_library(folder):
    report = measured(folder)
    pixels = pixel_features()
    expected = frechet_distance(pixels(FAKE), pixels(REAL))
    assert report["frechet"]["samples"] == pytest.approx(expected)
    assert (report["samples"], report["real"], report["dims"]) == (200, 300, 16)
    assert report["reference"] == str(folder / "real.npz")
    assert json.loads(json.dumps(report)) == report


def test_statistics_that_were_written_give_the_same_distance(folder):
    by_images = measured(folder, write=folder / "statistics.npz")
    samples = open_examples(str(folder / "fake.npz"), "train")
    real = open_real_side(Asked(str(folder / "statistics.npz"), features="pixels"))
    by_file = measure_in_features(real, samples, len(samples))
    assert by_file["frechet"] == by_images["frechet"]
    assert read_reference(folder / "statistics.npz").count == 300


@pytest.mark.parametrize("pixels", [True, False])
def test_latents_and_pixels_have_no_distance(folder, pixels):
    np.savez(folder / ("fake.npz" if pixels else "real.npz"), x=RNG.normal(size=(200, 4, 4, 1)))
    with pytest.raises(InputError, match=r"the samples are .* is .*: (floats|pixels) .* distance"):
        measured(folder)


def test_few_real_examples_are_a_choice(folder):
    assert measured(folder, most=100)["real"] == 100


def test_principal_components_are_fitted_to_the_real_examples(folder):
    report = measured(folder, features="pca")
    assert report["features"] == "pca of 16 dimensions"
    assert report["digest"]


def statistics(folder, features="pixels"):
    open_real_side(asked(folder, features=features, write=folder / "statistics.npz"))
    return Asked(str(folder / "statistics.npz"), features="pixels")


def of_other_features(folder):
    found = statistics(folder)
    return found._replace(features="given")


def rewritten(folder):
    return statistics(folder)._replace(write=folder / "again.npz")


def of_other_images(folder):
    np.savez(folder / "real.npz", images=REAL[:, :3])
    return asked(folder)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (of_other_features, "made with the features pixels .* samples are taken in given"),
        (rewritten, "holds statistics already; leave --write_reference out"),
        (of_other_images, "pixels gives 16 features of these examples, and 12 of those"),
        (lambda folder: statistics(folder)._replace(features="pca"), "pca is fitted to real"),
        (lambda folder: asked(folder, most=3), "--real_num must be .* at least 4; got 3"),
    ],
)
def test_what_does_not_fit_is_refused(folder, make, sentence):
    samples = open_examples(str(folder / "fake.npz"), "train")
    with pytest.raises(InputError, match=sentence):
        measure_in_features(open_real_side(make(folder)), samples, len(samples))


@pytest.mark.slow
def test_the_command_measures_files_and_a_run(folder, trained, commands):
    flags = [f"--samples={folder}/fake.npz", f"--reference={folder}/real.npz"]
    out = folder / "figures.json"
    more = ["--features=pixels", f"--out={out}", f"--write_reference={folder}/statistics.npz"]
    of_run = ["--workdir=" + str(trained), "--num=40", "--solver=heun", "--steps=2"]
    started = [
        commands.start("fmjax/__main__.py", "evaluate", *flags, *more),
        commands.start("fmjax/__main__.py", "evaluate", *of_run, "--features=pca"),
    ]
    of_files, of_a_run = (finish(command)[0] for command in started)
    assert json.loads(out.read_text())["frechet"] == measured(folder)["frechet"]
    assert f"real examples: {folder}/real.npz" in of_files
    assert "of 200 samples from 300 real examples" in of_files
    assert (folder / "statistics.npz").exists()
    assert "real examples: toy/moons (train)" in of_a_run
    assert "Fréchet distance (squared) of 40 samples from 10000 real examples" in of_a_run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--samples=x.npz"], "--samples are compared with --reference=SET"),
        (["--workdir=RUN", "--reference=x.npz"], "--reference is for figures in features"),
        (["--workdir=RUN", "--features=pca", "--num=3"], "number of examples .* at least 4; got 3"),
        (["--workdir=RUN", "--features=fid"], "unknown features 'fid'"),
    ],
)
def test_flags_that_do_not_fit_are_refused(commands, trained, flags, sentence):
    flags = [flag.replace("RUN", str(trained)) for flag in flags]
    (said,) = finish(commands.start("fmjax/__main__.py", "evaluate", *flags), code=2)
    assert re.search(sentence, said), said


@pytest.mark.nightly
def test_two_processes_share_the_examples(trained, commands, tmp_path):
    flags = ["--workdir=" + str(trained), "--num=40", "--solver=heun", "--steps=2"]
    flags += ["--features=pixels", "--real_num=200"]
    one = commands.start("fmjax/__main__.py", "evaluate", *flags, f"--out={tmp_path}/one.json")
    finish(one)
    shared = ["--distributed=explicit", f"--coordinator=127.0.0.1:{free_port()}"]
    shared += ["--num_processes=2", f"--out={tmp_path}/two.json"]
    two = [
        commands.start("fmjax/__main__.py", "evaluate", *flags, *shared, f"--process_id={i}")
        for i in range(2)
    ]
    said = finish(*two)
    alone, together = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two"))
    assert together["frechet"] == pytest.approx(alone["frechet"], rel=1e-3)
    assert (together["samples"], together["real"]) == (40, 200)
    assert "from 200 real examples" in said[0]
    assert "real examples" not in said[1]
