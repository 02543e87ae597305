import re

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.conditions import ClassIds, Sequence, nulls
from fmjax.models.dit import DiT, preset
from fmjax.models.transformer import SHARDING_RULES, Attention, Block

B = 4


def test_fresh_blocks_are_the_identity():
    block = Block(heads=2, mlp_ratio=4.0, dtype=jnp.float32, kernel="xla")
    rng = np.random.default_rng(0)
    h, c = (rng.normal(size=shape).astype(np.float32) for shape in [(B, 6, 16), (B, 16)])
    (out, _), _ = jax.jit(block.init_with_output)(jax.random.key(2), h, c)
    np.testing.assert_array_equal(out, h)


def test_attention_is_its_formula():
    heads, D = 2, 8
    rng = np.random.default_rng(0)
    h = rng.normal(size=(3, 5, D)).astype(np.float32)
    qkv, out = (rng.normal(size=(D, n)).astype(np.float32) for n in (3 * D, D))
    params = {"qkv": {"kernel": qkv, "bias": np.zeros(3 * D, np.float32)},
              "out": {"kernel": out, "bias": np.zeros(D, np.float32)}}  # fmt: skip
    ours = Attention(heads, jnp.float32, "xla").apply({"params": params}, h)
    direct = []
    for columns in np.split(qkv, heads, axis=1):  # head by head, then q, k, v
        q, k, v = np.split(h @ columns, 3, axis=-1)
        weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(D // heads))
        direct.append(weights @ v / weights.sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(ours, np.concatenate(direct, -1) @ out, rtol=1e-3, atol=1e-3)


def test_every_rule_names_a_leaf_of_the_dit():
    assert DiT.sharding_rules == SHARDING_RULES
    conditions = {"class": ClassIds(2), "text": Sequence(4, 3)}
    model, labels = preset("DiT-S/8", conditions=conditions), nulls(conditions, 1)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)), jnp.ones(1), labels
    )
    paths = [
        (jax.tree_util.keystr(keys, simple=True, separator="/"), x.ndim)
        for keys, x in jax.tree_util.tree_leaves_with_path(shapes)
    ]
    for pattern, axes in SHARDING_RULES:
        ranks = [rank for path, rank in paths if re.search(pattern, path)]
        assert set(ranks) == {len(axes)}, pattern
