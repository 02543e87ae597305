import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from fmjax.numerics import host_assignment
from fmjax.numerics.host_assignment import least_cost_columns

RNG = np.random.default_rng(0)


def clouds(n, d=2, shift=0.0):
    x, y = RNG.normal(size=(2, n, d))
    return ((x[:, None] - y[None] - shift) ** 2).sum(axis=-1)


COSTS = {
    "points": clouds(300),
    "far apart": clouds(300, shift=50.0),
    "many features": clouds(200, d=64),
    "any numbers": RNG.normal(size=(200, 200)) * 1e4,
    "equal": np.zeros((150, 150)),
    "a line": np.abs(np.subtract.outer(*RNG.normal(size=(2, 250)))),
    "many scales": np.outer(np.geomspace(1e-4, 1e4, 200), np.geomspace(1e4, 1e-4, 200)),
    "ties": RNG.integers(0, 2, (200, 200)).astype(float),
    "huge": clouds(150) * 1e30,  # float32 overflows on the way
    "small": clouds(5),
    "one": np.ones((1, 1)),
}


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_the_pairing_is_the_best_whatever_the_costs(cost):
    columns = least_cost_columns(cost)
    np.testing.assert_array_equal(np.sort(columns), np.arange(len(cost)))
    best = cost[linear_sum_assignment(cost)].sum()
    found = cost[np.arange(len(cost)), columns].sum()
    np.testing.assert_allclose(found, best, rtol=1e-10, atol=1e-10 * np.abs(cost).max())


def test_the_potentials_are_near_those_of_the_best_pairing():
    # The pairing is exact whatever they are, but takes many times longer where they are wrong.
    cost = clouds(300)
    rows, columns = host_assignment._potentials(cost.astype(np.float32))
    left = (cost - rows[:, None] - columns[None]) / cost.mean()
    assert left[linear_sum_assignment(cost)].mean() < 0.003
    assert left.min() > -0.03
