import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from fmjax.couplings import cost as cost_module
from fmjax.couplings import exact, in_groups, independent, partial, sinkhorn, unbalanced
from fmjax.couplings.cost import squared_cost
from fmjax.errors import InputError

KEY = jax.random.key(0)
N = 64
X0 = jax.random.normal(jax.random.key(1), (N, 2))
X1 = 0.5 * jax.random.normal(jax.random.key(2), (N, 2)) + jnp.asarray([[3.0, -1.0]])
LABELS = {"class": jnp.arange(N) % 4, "place": jnp.arange(2.0 * N).reshape(N, 2)}
EXACT = jax.jit(exact())


def sorted_rows(x):
    x = np.asarray(x).reshape(len(x), -1)
    return x[np.lexsort(x.T)]


def pair_cost(x0, x1):
    return np.square(np.asarray(x0, np.float64) - np.asarray(x1, np.float64)).sum()


@pytest.fixture(scope="module")
def paired():
    return EXACT(KEY, X0, X1, LABELS)


def test_the_marginals_are_kept_and_no_target_moves(paired):
    x0, x1, labels = paired
    np.testing.assert_array_equal(sorted_rows(x0), sorted_rows(X0))
    np.testing.assert_array_equal(x1, X1)
    jax.tree.map(np.testing.assert_array_equal, labels, LABELS)
    assert x0.dtype == X0.dtype


def test_the_exact_cost_is_pots_and_scipys(paired):
    a, b = np.asarray(X0, np.float64), np.asarray(X1, np.float64)
    distances = np.square(a[:, None] - b[None]).sum(-1)
    found = pair_cost(paired[0], paired[1])
    np.testing.assert_allclose(found, distances[linear_sum_assignment(distances)].sum(), rtol=1e-6)
    ot = pytest.importorskip("ot")
    uniform = np.full(N, 1 / N)
    np.testing.assert_allclose(found / N, ot.emd2(uniform, uniform, distances), rtol=1e-6)
    assert found < pair_cost(X0, X1)


def test_the_pairing_undoes_a_permutation():
    # Points that moved little: the optimal pairing is the identity, however they were shuffled.
    grid = jnp.stack(jnp.meshgrid(jnp.arange(8.0), jnp.arange(8.0)), -1).reshape(N, 2)
    moved = grid + 0.1 * jax.random.normal(KEY, grid.shape)
    shuffled = jax.random.permutation(jax.random.key(7), grid)
    np.testing.assert_array_equal(EXACT(KEY, shuffled, moved, LABELS)[0], grid)


def test_a_second_call_compiles_nothing_and_gives_the_same(paired, count_compilations):
    with count_compilations() as compiled:
        again = EXACT(KEY, X0, X1, LABELS)
    assert compiled.count == 0, compiled.names
    np.testing.assert_array_equal(again[0], paired[0])


@pytest.mark.slow
def test_images_in_half_precision_are_paired_in_float32(float16):
    # Shifted so far that float16 distances would overflow, and the Gram matrix lose its digits.
    images = jax.random.normal(KEY, (N, 4, 4, 2)) + 500
    shuffled = jax.random.permutation(jax.random.key(7), images, axis=0)
    near = (images + 0.05).astype(jnp.float16)
    x0, x1, _ = exact()(KEY, shuffled.astype(jnp.float16), near)
    assert x0.dtype == x1.dtype == jnp.float16
    np.testing.assert_array_equal(x0, images.astype(jnp.float16))


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("features", [(), (3,), (4, 10)], ids=str)
def test_the_cost_is_the_squared_distance(features):
    rng = np.random.default_rng(0)
    a, b = (100 + rng.normal(size=(5, *features)), 100 + rng.normal(size=(7, *features)))
    flat_a, flat_b = a.reshape(5, -1), b.reshape(7, -1)
    expected = np.square(flat_a[:, None] - flat_b[None]).sum(-1)
    a32, b32 = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    np.testing.assert_allclose(squared_cost(a32, b32), expected, atol=2e-4 * (1 + expected.max()))
    with jax.enable_x64(True):
        found = squared_cost(jnp.asarray(a), jnp.asarray(b))
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_the_gathered_points_are_differentiable_and_the_choice_is_not():
    def loss(x0):
        paired_x0, x1, _ = exact()(KEY, x0, X1)
        return jnp.sum((paired_x0 - x1) ** 2)

    gradient = jax.grad(loss)(X0)
    x0, x1, _ = EXACT(KEY, X0, X1, LABELS)
    np.testing.assert_allclose(
        sorted_rows(gradient), sorted_rows(2 * (x0 - x1)), rtol=1e-5, atol=1e-5
    )


def test_couplings_are_equal_and_hash_alike_when_their_arguments_are():
    assert exact() == exact()
    assert hash(sinkhorn(0.5)) == hash(sinkhorn(0.5))
    assert sinkhorn(0.5) != sinkhorn(0.6)
    assert in_groups(exact(), 2) != in_groups(exact(), 4)
    assert unbalanced(1.0, 2.0) == unbalanced(1.0, 2.0, 2.0)
    assert partial(0.5) != exact()


@pytest.mark.parametrize(
    ("x0", "x1", "labels", "sentence"),
    [
        (X0, X1[:, :1], None, r"one shape, .*got x0 \(64, 2\) and x1 \(64, 1\)"),
        (X0[:5], X1, None, "one shape"),
        (jnp.zeros(()), jnp.zeros(()), None, "one shape"),
        (X0, X1, jnp.zeros(3), "leading size of the batch, 64"),
        (X0.at[2, 0].set(jnp.nan), X1, None, "x0 must be finite"),
        (X0, X1.at[0, 1].set(jnp.inf), None, "x1 must be finite"),
    ],
)
def test_bad_batches_are_refused(x0, x1, labels, sentence):
    with pytest.raises(InputError, match=sentence):
        exact()(KEY, x0, x1, labels)


def test_a_batch_too_large_for_the_memory_is_refused_before_it_is_compiled():
    x = jax.ShapeDtypeStruct((20_000, 2), jnp.float32)
    with pytest.raises(InputError, match=r"1\.5 GiB.*in_groups\(coupling, 2\)"):
        jax.eval_shape(exact(), KEY, x, x)
    cost_module.check_memory(16_384)
    with pytest.raises(InputError, match="in_groups"):
        cost_module.check_memory(16_384, itemsize=8)


def test_independent_changes_nothing():
    assert independent(KEY, X0, X1, LABELS) == (X0, X1, LABELS)
