import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.couplings import chain, exact, independent, partial
from fmjax.errors import InputError

KEY = jax.random.key(0)
N = 64
GRID = jnp.stack(jnp.meshgrid(jnp.arange(8.0), jnp.arange(8.0)), -1).reshape(N, 2)


def test_shuffled_trajectories_are_found_again():
    # Points that drift little beside their spacing: each belongs to its own past.
    steps = 0.05 * jax.random.normal(KEY, (4, N, 2))
    truth = [GRID + jnp.sum(steps[:k], axis=0) for k in range(5)]
    shuffled = [jax.random.permutation(jax.random.key(k), x) for k, x in enumerate(truth)]
    lined = chain(KEY, shuffled, exact())
    np.testing.assert_array_equal(lined[-1], shuffled[-1])
    order = jax.random.permutation(jax.random.key(4), N)
    for x, true in zip(lined, truth, strict=True):
        np.testing.assert_array_equal(x, true[order])


def test_the_independent_coupling_leaves_them_as_they_are():
    snapshots = (GRID, 2 * GRID, 3 * GRID)
    for x, as_it_came in zip(chain(KEY, snapshots, independent), snapshots, strict=True):
        np.testing.assert_array_equal(x, as_it_came)


def test_a_target_drawn_again_takes_its_future_along():
    third = jnp.arange(40.0)[:, None]
    first, second = third + 0.1, third + 0.2
    lined = chain(KEY, (first, second, third), partial(0.4))
    np.testing.assert_allclose(lined[0], lined[2] + 0.1, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(lined[1], lined[2] + 0.2, rtol=1e-5, atol=1e-5)
    assert len(set(np.asarray(lined[2]).ravel())) < 40


def test_bad_snapshots_are_refused():
    with pytest.raises(InputError, match="two or more snapshots; got 1"):
        chain(KEY, (GRID,), exact())
    with pytest.raises(InputError, match=r"one shape; got \[\(64, 2\), \(63, 2\)\]"):
        chain(KEY, (GRID, GRID[1:]), exact())
