import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.couplings import schroedinger_bridge, sinkhorn, unbalanced
from fmjax.couplings.entropic import log_plan, pairs_from_plan
from fmjax.couplings.minibatch import MinibatchCoupling
from fmjax.errors import InputError

KEY = jax.random.key(0)
N = 64
RNG = np.random.default_rng(1)
X0 = RNG.normal(size=(N, 2)).astype("float32")
X1 = (0.5 * RNG.normal(size=(N, 2)) + [[2.0, 0.0]]).astype("float32")
COST = np.square(np.asarray(X0, np.float64)[:, None] - np.asarray(X1, np.float64)[None]).sum(-1)
UNIFORM = np.full(N, 1 / N)


def test_the_plan_is_pots():
    # Absolute epsilon on the squared distance: the reg of POT, not the half of it.
    ot = pytest.importorskip("ot")
    expected = ot.sinkhorn(UNIFORM, UNIFORM, COST, 2.0, method="sinkhorn_log", stopThr=1e-12)
    with jax.enable_x64(True):
        found = np.exp(log_plan(jnp.asarray(COST), 2.0, threshold=1e-10))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def test_a_relaxed_plan_is_pots():
    ot = pytest.importorskip("ot")
    expected = ot.unbalanced.sinkhorn_unbalanced(
        UNIFORM, UNIFORM, COST, 1.0, (4.0, 2.0), reg_type="kl", stopThr=1e-13, numItermax=5000
    )
    with jax.enable_x64(True):
        found = np.exp(log_plan(jnp.asarray(COST), 1.0, 4.0 / 5.0, 2.0 / 3.0, threshold=1e-11))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def test_forbidden_pairs_have_no_mass_and_the_marginals_hold():
    block = np.arange(N) % 2
    cost = np.where(block[:, None] == block[None], COST, np.inf).astype(np.float32)
    plan = np.exp(log_plan(jnp.asarray(cost), 1.0, threshold=1e-5))
    assert (plan[np.isinf(cost)] == 0).all()
    np.testing.assert_allclose(plan.sum(axis=0), UNIFORM, atol=1e-6)
    np.testing.assert_allclose(plan.sum(axis=1), UNIFORM, atol=1e-6)


def test_the_permutation_loses_no_point_and_saves_cost():
    x0, x1, labels = jax.jit(sinkhorn(0.1))(KEY, X0, X1, np.arange(N))
    assert set(map(tuple, np.asarray(x0))) == set(map(tuple, np.asarray(X0)))
    np.testing.assert_array_equal(x1, X1)
    np.testing.assert_array_equal(labels, np.arange(N))
    best = exact_cost()
    assert best <= np.square(np.asarray(x0) - np.asarray(x1)).sum() < 1.2 * best
    assert 1.2 * best < np.trace(COST)


def exact_cost():
    from scipy.optimize import linear_sum_assignment

    return (COST[linear_sum_assignment(COST)]).sum() * (1 - 1e-5)


@pytest.mark.slow
def test_a_bridge_draws_from_the_conditional_law_of_each_target():
    sigma = 1.0
    match = schroedinger_bridge(sigma).match
    cost = jnp.asarray(COST, jnp.float32)
    draws = 4000
    i = jax.jit(jax.vmap(lambda key: match(key, cost)[0]))(jax.random.split(KEY, draws))
    counts = np.stack([np.bincount(i[:, j], minlength=N) for j in range(N)], axis=1)
    plan = np.exp(log_plan(cost, 2 * sigma**2))
    conditional = plan / plan.sum(axis=0)
    error = (counts / draws - conditional) / np.sqrt(conditional * (1 - conditional) / draws + 1e-7)
    assert np.abs(error).max() < 6  # of 4096 numbers; no entry is off by a factor
    assert np.std(error[conditional > 1e-3]) == pytest.approx(1, abs=0.1)


def test_the_bridge_is_sinkhorn_at_two_sigma_squared():
    assert schroedinger_bridge(0.7) == sinkhorn(2 * 0.7**2, rounding="sample")
    assert isinstance(schroedinger_bridge(0.7), MinibatchCoupling)


def test_the_key_alone_decides_what_is_drawn(count_compilations):
    coupling = jax.jit(schroedinger_bridge(1.0))
    x0, x1, _ = coupling(KEY, X0, X1)
    other_key = jax.random.key(9)
    with count_compilations() as compiled:
        again = coupling(KEY, X0, X1)[0]
        other = coupling(other_key, X0, X1)[0]
    assert compiled.count == 0, compiled.names
    np.testing.assert_array_equal(again, x0)
    assert np.any(np.asarray(other) != np.asarray(x0))
    np.testing.assert_array_equal(x1, X1)


def test_unbalanced_gives_up_far_targets_and_labels_follow():
    outlier, labels = X1.copy(), {"place": np.arange(N)}
    outlier[5] = 40.0
    x0, x1, found = jax.jit(unbalanced(0.5, relax0=2.0))(KEY, X0, outlier, labels)
    assert x0.shape == x1.shape == X0.shape
    assert not np.any(np.asarray(found["place"]) == 5)
    np.testing.assert_array_equal(x1, outlier[np.asarray(found["place"])])
    assert set(map(tuple, np.asarray(x0))) <= set(map(tuple, np.asarray(X0)))


def test_held_marginals_lose_at_most_rounding():
    # With both marginals held every target has the share 1 / n, and comes once.
    coupling = jax.jit(unbalanced(1.0, relax0=float("inf"), threshold=1e-6))
    _, x1, _ = coupling(KEY, X0, X1)
    kept = len(set(map(tuple, np.asarray(x1))))
    assert kept >= N - 2


def test_systematic_draws_are_proportional():
    plan = np.random.default_rng(0).exponential(size=(3, 5)).astype(np.float32)
    plan[1, 2] = plan[0, 0] = plan[2, 4] = 0
    share = plan / plan.sum()
    total = np.zeros_like(plan)
    pairs = jax.jit(lambda key: pairs_from_plan(key, jnp.asarray(7 * plan), 20))
    for key in jax.random.split(KEY, 200):
        i, j = (np.asarray(k) for k in pairs(key))
        counts = np.zeros_like(plan)
        np.add.at(counts, (i, j), 1)
        # Floor or ceil of the expectation, for pairs and for targets.
        assert np.all(np.abs(counts - 20 * share) < 1 + 1e-4)
        assert np.all(np.abs(counts.sum(axis=0) - 20 * share.sum(axis=0)) < 1 + 1e-4)
        total += counts
    np.testing.assert_allclose(total / 4000, share, atol=0.01)
    assert (total[plan == 0] == 0).all()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: sinkhorn(0.0), "epsilon must be a positive number; got 0.0"),
        (lambda: sinkhorn(float("inf")), "epsilon must be a positive number; got inf"),
        (lambda: sinkhorn(float("nan")), "epsilon must be a positive number"),
        (lambda: sinkhorn(1.0, "permute"), "unknown rounding 'permute'. Did you mean"),
        (lambda: schroedinger_bridge(-1.0), "sigma must be a positive number"),
        (lambda: unbalanced(-1.0, 1.0), "epsilon must be a positive number"),
        (lambda: unbalanced(1.0, 0.0), "relax0 must be a positive number"),
        (lambda: unbalanced(1.0, 1.0, -2.0), "relax1 must be a positive number"),
    ],
)
def test_bad_arguments_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
