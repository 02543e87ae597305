import pickle

import jax
import numpy as np
import pytest

from fmjax.couplings import HostCoupling, NearConditions, SameClass, exact, host_exact
from fmjax.errors import InputError
from fmjax.manifolds import Sphere

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N = 64
X0 = RNG.normal(size=(N, 2)).astype(np.float32)
X1 = (RNG.normal(size=(N, 2)) + 2).astype(np.float32)
LABELS = np.arange(N) % 3
CONDITIONS = RNG.normal(size=(N, 3)).astype(np.float32)


def cost_of(x0, x1):
    return np.square(np.asarray(x0, np.float64) - np.asarray(x1, np.float64)).sum()


@pytest.mark.parametrize("n", [50, 300])
@pytest.mark.parametrize("features", [2, 40])
def test_the_optimum_is_pots(n, features):
    # 50 goes to the search at once, 300 through the warm start.
    ot = pytest.importorskip("ot")
    x0 = RNG.normal(size=(n, features)).astype(np.float32)
    x1 = (5 + RNG.normal(size=(n, features)) * np.linspace(0.1, 2, features)).astype(np.float32)
    found = host_exact(x0, x1)
    assert sorted(map(tuple, found)) == sorted(map(tuple, x0))
    distances = np.square(x0.astype(float)[:, None] - x1.astype(float)[None]).sum(-1)
    uniform = np.full(n, 1 / n)
    np.testing.assert_allclose(
        cost_of(found, x1) / n, ot.emd2(uniform, uniform, distances), rtol=1e-6
    )


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("labels", "conditions"),
    [
        (None, None),
        (LABELS, SameClass()),
        (CONDITIONS, NearConditions(0.05)),
        (CONDITIONS, NearConditions(1.0)),
        (CONDITIONS, NearConditions(1e-9)),
        (CONDITIONS, NearConditions(0.1, "squared")),
        ({"a": LABELS, "b": CONDITIONS}, NearConditions(0.05, of=lambda labels: labels["b"])),
    ],
)
def test_host_and_device_pair_alike(labels, conditions):
    on_device = exact(conditions)(KEY, X0, X1, labels)[0]
    np.testing.assert_array_equal(host_exact(X0, X1, labels, conditions), on_device)


def test_the_pipeline_coupling_pickles_and_follows_its_generator():
    couple = pickle.loads(pickle.dumps(HostCoupling(SameClass(), groups=2)))
    a, b = (couple(np.random.default_rng(3), X1, LABELS) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert a.shape == X1.shape
    assert a.dtype == np.float32
    assert not np.array_equal(a, couple(np.random.default_rng(4), X1, LABELS))


def test_the_pipeline_coupling_permutes_the_noise_it_draws_within_groups():
    noise = np.random.default_rng(3).standard_normal(X1.shape, dtype=np.float32)
    for groups in (1, 2):
        x0 = HostCoupling(groups=groups)(np.random.default_rng(3), X1)
        for rows in np.split(np.arange(N), groups):
            np.testing.assert_array_equal(x0[rows], host_exact(noise[rows], X1[rows]))
    assert cost_of(HostCoupling()(np.random.default_rng(3), X1), X1) < cost_of(noise, X1)


def test_images_of_bytes_are_paired():
    images = RNG.integers(0, 255, (N, 4, 4, 1), dtype=np.uint8)
    assert HostCoupling()(np.random.default_rng(0), images).shape == images.shape


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: host_exact(X0, X1[:5]), "one shape"),
        (lambda: host_exact(X0 * np.nan, X1), "x0 must be finite; got NaN"),
        (lambda: host_exact(X0, X1 / 0), "x1 must be finite; got NaN or infinity"),
        (lambda: host_exact(X0, X1, None, SameClass()), "needs the labels"),
        (lambda: host_exact(X0, X1, LABELS[:5], SameClass()), "leading size of the batch, 64"),
        (lambda: host_exact(X0, X1, LABELS, "class"), "SameClass or NearConditions; got 'class'"),
        (lambda: host_exact(*np.zeros((2, 12_000, 1))), "GiB"),
        (lambda: HostCoupling(groups=0), "groups must be a whole number of at least 1"),
        (lambda: HostCoupling(groups=7)(RNG, X1), r"multiple of 7 \(groups\); got 64"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input_is_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("within", [False, True])
def test_on_a_manifold_the_cost_is_that_of_the_device(within):
    sphere = Sphere(2)
    x0, x1 = (np.asarray(sphere.uniform(jax.random.key(k), (12,))) for k in (0, 1))
    labels = np.arange(12) % 2
    conditions = SameClass() if within else None
    found = host_exact(x0, x1, labels, conditions, manifold=sphere)
    expected = exact(conditions, manifold=sphere)(jax.random.key(0), x0, x1, labels)[0]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match="points off by up to 1"):
        host_exact(2 * x0, x1, manifold=sphere)
