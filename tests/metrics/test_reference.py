"""Statistics go to a file and come back; other tools' files are read, and theirs read ours."""

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.metrics import (
    Features,
    Gaussian,
    ReferenceStatistics,
    collect,
    compare,
    describe_comparison,
    frechet_distance,
    make_reference,
    pixel_features,
    read_reference,
    write_reference,
)
from fmjax.metrics.reference import check_reference, has_statistics

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=(300, 5)), RNG.normal(size=(200, 5)) + 0.3
PIXELS = pixel_features()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "reference.npz"


def made(x=REAL, features=PIXELS):
    return make_reference(features, collect(features, [x], len(x)))


def test_what_is_written_is_read(path):
    spatial = Gaussian(np.arange(3.0), np.eye(3))
    wanted = made()._replace(spatial=spatial)
    write_reference(path, wanted)
    found = read_reference(path)
    for a, b in ((found.gaussian, wanted.gaussian), (found.spatial, spatial)):
        assert np.array_equal(a.mean, b.mean)
        assert np.array_equal(a.covariance, b.covariance)
    assert found[1:-1] == wanted[1:-1]
    assert (found.features, found.count) == ("pixels", 300)
    assert has_statistics(path)


def test_other_tools_find_their_names(path):
    write_reference(path, made()._replace(spatial=Gaussian(np.zeros(2), np.eye(2))))
    with np.load(path, allow_pickle=False) as content:
        np.testing.assert_allclose(content["mu"], REAL.mean(axis=0))
        np.testing.assert_allclose(content["sigma"], np.cov(REAL, rowvar=False))
        assert content["mu_s"].shape == (2,)
        assert content["sigma_s"].shape == (2, 2)


def test_a_file_of_adm_with_images_in_it_is_read(path):
    mean, covariance = REAL.mean(axis=0), np.cov(REAL, rowvar=False)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez(path, arr_0=images, mu=mean, sigma=covariance, mu_s=mean[:2], sigma_s=np.eye(2))
    found = read_reference(path)
    assert (found.features, found.count, found.real_halves) == (None, None, None)
    assert found.spatial.mean.shape == (2,)
    assert frechet_distance(found.gaussian, REAL) == pytest.approx(0, abs=1e-8)


def test_samples_are_as_far_from_the_file_as_from_the_examples(path):
    write_reference(path, made())
    samples, real = collect(PIXELS, [FAKE], 200), collect(PIXELS, [REAL], 300)
    by_file = compare(PIXELS, samples, read_reference(path))
    by_examples = compare(PIXELS, samples, real)
    assert by_file["frechet"] == by_examples["frechet"]
    assert by_file["real"] == 300
    assert by_examples["frechet"]["samples"] == pytest.approx(frechet_distance(FAKE, REAL))
    assert "kernel" not in by_file


def test_figures_of_a_file_that_says_little_are_said_with_that():
    samples = collect(PIXELS, [FAKE], 200)
    reference = ReferenceStatistics(Gaussian(REAL.mean(axis=0), np.cov(REAL, rowvar=False)))
    said = describe_comparison(compare(PIXELS, samples, reference), "FID")
    assert "FID (squared) of 200 samples from an unknown number of real examples" in said
    assert "do not say how far two halves" in said


OTHER = Features("pixels", lambda x: x, digest="ab" * 32)


@pytest.mark.parametrize(
    "features", [Features("mine", lambda x: x), OTHER], ids=["another name", "another hash"]
)
def test_statistics_in_other_features_are_refused(path, features):
    check_reference(path, made(), PIXELS)
    with pytest.raises(InputError, match=r"made with the features pixels .* samples are taken in"):
        check_reference(path, made(), features)


GOOD = {"mu": np.zeros(2), "sigma": np.eye(2)}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"arr_0": np.zeros(3)}, "must hold the statistics 'mu' and 'sigma'; it holds neither"),
        ({"mu": np.zeros(2)}, "it holds mu"),
        (GOOD | {"sigma": np.eye(3)}, r"'sigma' of shape \(d, d\), of floats; got \(2,\) and"),
        (GOOD | {"mu": np.zeros(2, int)}, "of floats"),
        (GOOD | {"sigma": np.eye(2) * np.nan}, "must hold finite 'mu'"),
        (GOOD | {"mu_s": np.zeros(2)}, "'mu_s' of shape"),
        (GOOD | {"count": np.arange(3)}, r"one 'count'; got an array of shape \(3,\)"),
    ],
)
def test_a_bad_file_is_refused(path, arrays, sentence):
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=sentence):
        read_reference(path)
