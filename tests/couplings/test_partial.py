import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.couplings import exact, partial
from fmjax.couplings.partial import best_pairs
from fmjax.errors import InputError

KEY = jax.random.key(0)
N, KEPT = 40, 16  # n - kept dummies make an assignment of 64, which other tests compile too
X0 = jax.random.normal(jax.random.key(1), (N, 2))
X1 = jax.random.normal(jax.random.key(2), (N, 2)) + 1.0
COST = np.square(np.asarray(X0, np.float64)[:, None] - np.asarray(X1, np.float64)[None]).sum(-1)


def test_the_kept_pairs_are_the_cheapest_set_of_pairs():
    ot = pytest.importorskip("ot")
    uniform = np.full(N, 1 / N)
    expected = ot.partial.partial_wasserstein2(uniform, uniform, COST, m=KEPT / N)
    i, j = (np.asarray(k) for k in best_pairs(jnp.asarray(COST, jnp.float32), KEPT))
    assert len(set(i)) == len(set(j)) == KEPT
    np.testing.assert_allclose(COST[i, j].sum() / N, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_batch_is_filled_up_evenly_and_labels_follow():
    labels = jnp.arange(N)
    x0, x1, places = partial(KEPT / N)(KEY, X0, X1, labels)
    i, j = best_pairs(jnp.asarray(COST, jnp.float32), KEPT)
    pairs = {
        (tuple(np.asarray(X0[a])), tuple(np.asarray(X1[b]))) for a, b in zip(i, j, strict=True)
    }
    assert {(tuple(a), tuple(b)) for a, b in zip(*map(np.asarray, (x0, x1)), strict=True)} == pairs
    np.testing.assert_array_equal(x1, X1[places])
    counts = np.bincount(places, minlength=N)[np.asarray(j)]
    assert set(counts) == {2, 3}  # 40 / 16


def test_all_of_the_mass_is_the_exact_coupling():
    found, best = partial(1.0)(KEY, X0, X1), exact()(KEY, X0, X1)
    cost = [float(jnp.sum((x0 - x1) ** 2)) for x0, x1, _ in (found, best)]
    # The same pairs in another order: a sum of 2 N squares rounds otherwise.
    np.testing.assert_allclose(cost[0], cost[1], rtol=1e-5)
    assert set(map(tuple, np.asarray(found[1]))) == set(map(tuple, np.asarray(X1)))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(InputError, match=r"fraction, a share of the batch, must lie in \(0, 1\]"):
        partial(fraction)


def test_the_dummies_count_in_the_memory():
    x = jax.ShapeDtypeStruct((12_000, 2), jnp.float32)
    jax.eval_shape(exact(), KEY, x, x)
    with pytest.raises(InputError, match="pairing 22800 points"):
        jax.eval_shape(partial(0.1), KEY, x, x)
