"""Networks of floats as networks of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.models.adapters import from_linen
from fmjax.models.dit import DiT
from fmjax.models.mlp import MLP
from fmjax.models.tokens import on_one_hot, one_hot, one_hot_shape, without_time

B, K = 3, 5
RNG = np.random.default_rng(0)
T = np.array([0.0, 0.4, 1.0], np.float32)
NETWORKS = {
    "mlp": (MLP(16, 2, conditions=ClassIds(2)), (4,)),
    "dit": (DiT(2, 16, 1, 2, conditions=ClassIds(2)), (4, 6, 2)),
}


def test_one_hot_vectors_have_a_place_for_the_masked_token():
    vectors = one_hot(jnp.array([0, 4, 5]), K)
    np.testing.assert_array_equal(vectors, np.eye(6)[[0, 4, 5]])
    assert np.isnan(one_hot(jnp.array([-1, 6]), K)).all()
    assert one_hot_shape((4, 6, 2), K) == (4, 6, 12)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("model", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_of_floats_gives_logits_of_tokens(model, shape):
    x = RNG.integers(0, K + 1, (B, *shape))
    labels = np.array([0, 1, 2])
    wide = jnp.zeros((B, *one_hot_shape(shape, K)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), wide, T, labels)["params"]
    params = jax.tree.map(lambda a: RNG.normal(0, 0.25, a.shape).astype(a.dtype), shapes)
    network = jax.jit(on_one_hot(from_linen(model), K))
    logits = network(params, x, T, labels)
    assert (logits.shape, logits.dtype) == ((B, *shape, K), jnp.float32)
    place = (0,) * len(shape)
    changed = x.copy()
    changed[(0, *place)] = (x[(0, *place)] + 1) % (K + 1)
    difference = np.abs(network(params, changed, T, labels) - logits)
    assert difference[0].max() > 1e-4
    np.testing.assert_array_equal(difference[1:], 0)
    changed[(0, *place)] = K + 1
    assert np.isnan(network(params, changed, T, labels)[0]).any()


def test_a_patch_of_tokens_is_embedded_by_a_table_for_each_place_of_it():
    """The first layer of a DiT on one-hot vectors sums rows of one table for each pixel."""
    table = RNG.normal(size=(2 * 2 * (K + 1), 7))
    patch = RNG.integers(0, K + 1, (1, 2, 2, 1))
    rows = table.reshape(2, 2, K + 1, 7)
    expected = sum(rows[i, j, patch[0, i, j, 0]] for i in range(2) for j in range(2))
    np.testing.assert_allclose(one_hot(patch, K).reshape(-1) @ table, expected, rtol=1e-5)


def test_what_is_no_network_of_tokens_is_refused():
    network = on_one_hot(lambda params, x, t, labels: x, K)
    with pytest.raises(InputError, match="x has dtype float32, and a network of tokens takes int"):
        network(None, jnp.zeros((1, 2)), jnp.zeros(1))
    with pytest.raises(InputError, match="vocabulary must be a whole number of at least 2; got 1"):
        on_one_hot(network, 1)
    with pytest.raises(InputError, match="apply_fn"):
        on_one_hot(None, K)
    with pytest.raises(InputError, match="apply_fn"):
        without_time(None)
