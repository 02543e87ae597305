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


@pytest.mark.slow
def test_a_target_drawn_again_takes_its_future_along():
    third = jnp.arange(40.0)[:, None]
    first, second = third + 0.1, third + 0.2
    lined = chain(KEY, (first, second, third), partial(0.4))
    np.testing.assert_allclose(lined[0], lined[2] + 0.1, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(lined[1], lined[2] + 0.2, rtol=1e-5, atol=1e-5)
    assert len(set(np.asarray(lined[2]).ravel())) < 40


def rows_of(x):
    return {tuple(row) for row in np.asarray(x).tolist()}


def test_a_smaller_snapshot_keeps_every_row_and_repeats_some():
    snapshots = (GRID[:23], 2 * GRID, 3 * GRID[:40])
    lined = chain(KEY, snapshots, exact())
    for x, as_it_came in zip(lined, snapshots, strict=True):
        assert x.shape == (N, 2)
        assert rows_of(x) == rows_of(as_it_came)


@pytest.mark.slow
def test_a_larger_snapshot_becomes_a_subset_that_repeats_no_row():
    snapshots = (GRID, 2 * GRID[:23])
    lined = chain(KEY, snapshots, exact(), size=16)
    for x, as_it_came in zip(lined, snapshots, strict=True):
        assert x.shape == (16, 2)
        assert len(rows_of(x)) == 16
        assert rows_of(x) <= rows_of(as_it_came)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 7, 12])
def test_every_row_of_a_snapshot_is_expected_equally_often(size):
    values, other = jnp.arange(7.0)[:, None], jnp.zeros((7, 1))

    def counts(key):
        first = chain(key, (values, other), independent, size)[0]
        return jnp.sum(first == values.T, axis=0)

    found = jax.vmap(counts)(jax.random.split(KEY, 4000)).mean(axis=0)
    # The number of times one row comes has a variance of at most size / 7.
    np.testing.assert_allclose(found, size / 7, atol=5 * np.sqrt(size / 7 / 4000))


def test_snapshots_of_one_size_are_not_drawn_again_and_each_other_one_has_its_own_draw():
    a, b, c = chain(KEY, (GRID[:30], GRID[:30], GRID), independent)
    np.testing.assert_array_equal(c, GRID)
    assert not np.array_equal(a, b)
    again = chain(KEY, (GRID[:30], GRID[:30], GRID), independent)
    np.testing.assert_array_equal(a, again[0])
    other = chain(jax.random.key(1), (GRID[:30], GRID[:30], GRID), independent)
    assert not np.array_equal(a, other[0])


def test_bad_snapshots_are_refused():
    with pytest.raises(InputError, match="two or more snapshots; got 1"):
        chain(KEY, (GRID,), exact())
    with pytest.raises(InputError, match=r"rows of one shape; got \[\(64, 2\), \(64, 1\)\]"):
        chain(KEY, (GRID, GRID[:, :1]), exact())
    with pytest.raises(InputError, match="at least one row each"):
        chain(KEY, (GRID, GRID[:0]), exact())
    with pytest.raises(InputError, match="the size of a chain"):
        chain(KEY, (GRID, GRID), exact(), size=0)
