"""Samples of the same distribution look like a half of the real ones; others do not."""

import json

import numpy as np
import pytest

from fmjax.metrics import collect, compare, describe_comparison, pixel_features

RNG = np.random.default_rng(0)
PIXELS = pixel_features()


def collected(x):
    return collect(PIXELS, [x], len(x))


REAL = collected(RNG.normal(size=(400, 4)))


def test_the_figures_of_equal_distributions_are_near_those_of_the_halves():
    report = compare(PIXELS, collected(RNG.normal(size=(400, 4))), REAL)
    assert report["frechet"]["samples"] < 2 * report["frechet"]["real_halves"]
    kernel = report["kernel"]
    assert (kernel["examples"], kernel["size"]) == (200, 100)
    assert kernel["samples"]["standard_error"] > 0
    assert abs(kernel["samples"]["mean"] - kernel["real_halves"]["mean"]) < 0.1
    for name in ("precision", "recall", "coverage"):
        ours, theirs = (report["coverage"][key][name] for key in ("samples", "real_halves"))
        assert abs(ours - theirs) < 0.15
    assert not report["singular"]
    assert json.loads(json.dumps(report)) == report


def test_one_mode_of_two_shows_in_every_figure():
    report = compare(PIXELS, collected(5 + 0.1 * RNG.normal(size=(400, 4))), REAL)
    assert report["frechet"]["samples"] > 50 * report["frechet"]["real_halves"]
    assert report["kernel"]["samples"]["mean"] > 10 * abs(report["kernel"]["real_halves"]["mean"])
    assert report["coverage"]["samples"]["recall"] < 0.1


def test_every_figure_is_said_with_its_features_numbers_and_halves():
    said = describe_comparison(compare(PIXELS, collected(RNG.normal(size=(90, 4))), REAL), "FID")
    first, frechet, kernel, coverage = said.splitlines()
    assert first == "in 4 features (pixels):"
    assert frechet.startswith("FID (squared) of 90 samples from 400 real examples: ")
    assert "two halves of the real ones, 200 each: " in frechet
    assert kernel.startswith("kernel distance (KID) of 90 samples from 90 real examples, 100 sub")
    assert "two halves of the real ones: " in kernel
    assert coverage.startswith("precision ")
    assert "of 90 samples against 90 real examples, k = 5" in coverage


@pytest.mark.parametrize("count", [4, 8])
def test_a_singular_covariance_is_said(count):
    x = RNG.normal(size=(count, 8))
    report = compare(PIXELS, collected(x), collected(RNG.normal(size=(100, 8))))
    assert report["singular"]
    assert "the covariance is singular" in describe_comparison(report, "FID").splitlines()[-1]
    assert ("coverage" in report) == (count > 5)
    assert "kernel" in report
