import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from fmjax.numerics.assignment import _augment, assign, greedy, potentials

N = 64
RNG = np.random.default_rng(0)


def total(cost, columns):
    assert sorted(columns.tolist()) == list(range(len(cost)))  # a permutation
    return cost[np.arange(len(cost)), columns].sum()


def _clouds(spread):
    x, y = RNG.normal(size=(2, N, 2))
    return np.square(x[:, None] - spread * y[None]).sum(-1)


COSTS = {
    "two clouds": _clouds(1.0),
    "a cloud and its copy far away": _clouds(1.0) + 1e3 * RNG.uniform(size=(N, 1)),
    "no structure": RNG.uniform(size=(N, N)),
    "many ties": RNG.integers(0, 3, (N, N)).astype(float),
    "all equal": np.ones((N, N)),
    "all zero": np.zeros((N, N)),
    "negative": -RNG.exponential(size=(N, N)),
    "products, whose scales differ by 1e6": np.outer(
        np.geomspace(1e-3, 1e3, N), RNG.permutation(np.geomspace(1e-3, 1e3, N))
    ),
    "a diagonal of bargains": RNG.uniform(size=(N, N)) - 100 * np.eye(N)[RNG.permutation(N)],
}


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
def test_the_optimum_is_scipys(cost):
    cost = np.asarray(cost, np.float32).astype(np.float64)
    best = cost[linear_sum_assignment(cost)].sum()
    found = total(cost, np.asarray(assign(jnp.asarray(cost, jnp.float32))))
    assert abs(found - best) <= 1e-6 * max(np.abs(cost).max(), abs(best))


AUGMENT = jax.jit(_augment)


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
def test_the_search_alone_is_exact(cost):
    # Without the potentials, which leave it so little to do that a fault would hardly show.
    cost = np.asarray(cost, np.float32)
    reduced = cost - cost.min(axis=1, keepdims=True)
    best = reduced[linear_sum_assignment(reduced)].sum(dtype=np.float64)
    found = total(reduced.astype(np.float64), np.asarray(AUGMENT(jnp.asarray(reduced))))
    assert abs(found - best) <= 1e-6 * max(reduced.max(), abs(best))


def test_the_potentials_are_near_those_of_the_best_pairing():
    # The pairing is exact whatever they are, but takes many times longer where they are wrong.
    cost = jnp.asarray(COSTS["two clouds"], jnp.float32)
    u, v = map(np.asarray, potentials(cost, jnp.std(cost)))
    left = (np.asarray(cost) - u[:, None] - v[None]) / float(cost.mean())
    assert left.min() > -1e-5
    assert left[linear_sum_assignment(cost)].mean() < 0.01


def test_one_forbidden_pair_is_worse_than_every_detour():
    # All but one free of charge and the last forbidden, against one apiece.
    cost = np.full((N, N), np.inf, np.float32)
    np.fill_diagonal(cost, 1.0)
    cost[np.arange(N - 1), np.arange(1, N)] = 0.0
    np.testing.assert_array_equal(assign(jnp.asarray(cost)), np.arange(N))


def test_forbidden_pairs_are_avoided_and_the_rest_is_optimal():
    cost = COSTS["no structure"].astype(np.float32)
    blocks = RNG.integers(0, 4, N)
    cost = np.where(blocks[:, None] == blocks[None], cost, np.inf)
    found = total(cost, np.asarray(assign(jnp.asarray(cost))))
    best = cost[linear_sum_assignment(cost)].sum()
    assert np.isfinite(found)
    np.testing.assert_allclose(found, best, rtol=1e-5)


def test_nan_costs_end_the_program_too():
    # Inside a compiled step nothing can raise; it must not run for ever either.
    cost = jnp.full((N, N), jnp.nan)
    assert sorted(np.asarray(assign(cost)).tolist()) == list(range(N))
    some = jnp.asarray(COSTS["two clouds"], jnp.float32).at[3].set(jnp.nan).at[:, 5].set(jnp.inf)
    assert sorted(np.asarray(assign(some)).tolist()) == list(range(N))
    assert sorted(np.asarray(greedy(some)).tolist()) == list(range(N))


def test_vmap_solves_each_problem_by_itself():
    costs = jnp.asarray(np.stack([COSTS["two clouds"], COSTS["many ties"]]), jnp.float32)
    for cost, columns in zip(costs, jax.vmap(assign)(costs), strict=True):
        cost = np.asarray(cost)
        best = cost[linear_sum_assignment(cost)].sum()
        np.testing.assert_allclose(total(cost, np.asarray(columns)), best, rtol=1e-5)


def test_float64_is_solved_in_float64():
    # Two permutations whose sums differ in the tenth digit: float32 cannot tell them apart.
    cost = np.full((4, 4), 2.0)
    np.fill_diagonal(cost, 1.0)
    shifted = np.roll(np.eye(4), 1, axis=1).astype(bool)
    cost[shifted] = 1.0 - 1e-10
    with jax.enable_x64(True):
        columns = np.asarray(assign(jnp.asarray(cost)))
    np.testing.assert_array_equal(columns, [1, 2, 3, 0])


def one_by_one(score):
    """The pairs of the greedy permutation, taken in a loop."""
    score, columns = score.copy(), np.empty(len(score), int)
    for _ in range(len(score)):
        i, j = np.unravel_index(np.argmax(score), score.shape)
        columns[i] = j
        score[i], score[:, j] = -np.inf, -np.inf
    return columns


def test_greedy_takes_the_best_pair_first():
    score = RNG.normal(size=(N, N)).astype(np.float32)
    np.testing.assert_array_equal(greedy(jnp.asarray(score)), one_by_one(score))


def test_greedy_ends_with_a_permutation_when_everything_ties():
    assert sorted(np.asarray(greedy(jnp.zeros((N, N)))).tolist()) == list(range(N))
    assert sorted(np.asarray(greedy(jnp.full((N, N), jnp.nan))).tolist()) == list(range(N))
