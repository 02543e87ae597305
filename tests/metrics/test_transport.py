"""Wasserstein distances against POT, scipy and closed forms."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from fmjax.errors import InputError
from fmjax.metrics import sinkhorn_divergence, sliced_wasserstein, transport, wasserstein

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = 1.5 * RNG.normal(size=(40, 3)) + 1.0
SHIFT = np.array([1.0, -2.0, 2.0])  # of length 3


@pytest.mark.parametrize("p", [1, 2, 3])
def test_wasserstein_equals_pot(p):
    ot = pytest.importorskip("ot")
    costs = ot.dist(X, Y, "euclidean") ** p
    np.testing.assert_allclose(wasserstein(X, Y, p), ot.emd2([], [], costs) ** (1 / p), rtol=1e-10)


def test_a_shifted_copy_is_at_the_length_of_the_shift():
    shuffled = RNG.permutation(X) + SHIFT[None]
    for p in (1, 2):
        np.testing.assert_allclose(wasserstein(X, shuffled, p), 3, rtol=1e-12)
    assert wasserstein(X, RNG.permutation(X)) == 0
    images = X.astype(np.float32).reshape(40, 3, 1)
    np.testing.assert_allclose(wasserstein(images, images + np.float32(2)), 12**0.5, rtol=1e-6)


def test_on_a_line_both_equal_scipy():
    x, y = X[:, :1], Y[:, :1]
    np.testing.assert_allclose(
        wasserstein(x, y, p=1), stats.wasserstein_distance(x[:, 0], y[:, 0]), rtol=1e-12
    )
    for m in (40, 37, 8, 1):  # of unequal sizes, with and without common quantiles
        expected = stats.wasserstein_distance(x[:, 0], y[:m, 0])
        np.testing.assert_allclose(sliced_wasserstein(x, y[:m], p=1), expected, rtol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_sliced_wasserstein_equals_pot_on_its_directions(p, monkeypatch):
    ot = pytest.importorskip("ot")
    monkeypatch.setattr(transport, "_DIRECTIONS", 7)  # the last block is not full
    directions = transport._directions(3, 50, seed=3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-12)
    for y in (Y, Y[:25]):
        peer = ot.sliced_wasserstein_distance(X, y, p=p, projections=directions.T)
        ours = sliced_wasserstein(X, y, p, projections=50, seed=3)
        np.testing.assert_allclose(ours, peer, rtol=1e-10)


def test_a_shift_is_divided_by_the_root_of_the_dimension_when_sliced():
    ours = sliced_wasserstein(X, X + SHIFT[None], projections=8000)
    np.testing.assert_allclose(ours, 3 / 3**0.5, rtol=0.02)  # the mean of cos^2 is 1 / d
    assert sliced_wasserstein(X, Y) == sliced_wasserstein(X, Y, seed=0)
    assert sliced_wasserstein(X, Y) != sliced_wasserstein(X, Y, seed=1)


def entropic_cost(x, y, epsilon, steps=3000):
    """T(x, y) by its own iteration on the dual, in the logarithmic domain."""
    costs = ((x[:, None] - y[None]) ** 2).sum(axis=2)
    f, g = np.zeros(len(x)), np.zeros(len(y))
    for _ in range(steps):
        f = -epsilon * logsumexp((g[None] - costs) / epsilon - np.log(len(y)), axis=1)
        g = -epsilon * logsumexp((f[:, None] - costs) / epsilon - np.log(len(x)), axis=0)
    return f.mean() + g.mean()


@pytest.mark.slow
def test_the_sinkhorn_divergence_equals_its_definition():
    x, y, epsilon = X[:12], Y[:12], 0.5
    expected = entropic_cost(x, y, epsilon) - sum(entropic_cost(a, a, epsilon) for a in (x, y)) / 2
    np.testing.assert_allclose(sinkhorn_divergence(x, y, epsilon), expected, rtol=1e-5)


def test_the_sinkhorn_divergence_of_a_shift_is_its_square_and_of_nothing_is_0():
    x = X[:12]
    for epsilon in (0.5, 5.0):  # cross terms are linear in either argument, so they cancel
        np.testing.assert_allclose(sinkhorn_divergence(x, x + SHIFT[None], epsilon), 9, rtol=1e-5)
    assert abs(sinkhorn_divergence(x, x[::-1], 0.5)) < 1e-4
    far = x + 1e4  # where float32 would lose the digits
    np.testing.assert_allclose(sinkhorn_divergence(far, far + SHIFT[None], 0.5), 9, rtol=1e-5)


def test_the_sinkhorn_divergence_tends_to_the_exact_cost():
    x, y = X[:12], Y[:12]
    exact = wasserstein(x, y) ** 2
    np.testing.assert_allclose(sinkhorn_divergence(x, y, 0.1), exact, rtol=0.01)
    assert abs(sinkhorn_divergence(x, y, 5.0) - exact) > 0.05 * exact


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: wasserstein(X, Y[:30]), "equal size; got 40 and 30.*first 30 of both"),
        (lambda: wasserstein(X, Y[:, :2]), "y must have 3 features"),
        (lambda: wasserstein(X, Y, p=0.5), r"order p must lie in \[1, inf\); got 0.5"),
        (lambda: wasserstein(X, np.full((40, 3), np.nan)), "y must be finite"),
        (lambda: wasserstein(X, X.astype(int)), "same unit"),
        (lambda: wasserstein(*np.zeros((2, 20_001, 1))), "need 3 GB of costs; take at most 20,000"),
        (
            lambda: sliced_wasserstein(X, Y, projections=0),
            "projections must be a whole number of at least 1; got 0",
        ),
        (lambda: sliced_wasserstein(X, Y, p=0), "order p"),
        (lambda: sinkhorn_divergence(X, Y, 0.0), "epsilon must be a positive number; got 0.0"),
        (lambda: sinkhorn_divergence(X, np.zeros((20_001, 3)), 1.0), "at most 20,000"),
        (
            lambda: sinkhorn_divergence(X[:12], Y[:12], 1e-3),
            "did not converge in 10000 steps at epsilon = 0.001",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
