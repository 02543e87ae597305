import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free, drop_labels, scale_from_excess

NULL = 3
TABLE = jax.random.normal(jax.random.key(0), (NULL + 1, 5))
W = jax.random.normal(jax.random.key(1), (5, 5))


def velocity(x, t, labels):
    return jnp.tanh((x + TABLE[labels]) @ W) + t[:, None]


X = jax.random.normal(jax.random.key(2), (6, 5))
T = jnp.linspace(0, 1, 6)
LABELS = jnp.array([0, 1, 2, 0, 1, 2])
guided = classifier_free(velocity, NULL)


def test_w_one_is_the_conditional_field_and_w_zero_the_unconditional_one_exactly():
    null = jnp.full(6, NULL)
    # The same vmapped product, so that equality is to the last bit.
    u_null, u_cond = jax.vmap(velocity, (None, None, 0))(X, T, jnp.stack([null, LABELS]))
    np.testing.assert_array_equal(guided(X, T, Guided(LABELS, 1.0)), u_cond)
    np.testing.assert_array_equal(guided(X, T, Guided(LABELS, 0.0)), u_null)


@pytest.mark.parametrize("w", [-0.5, 0.3, 1.5, 7.0])
def test_the_vmapped_call_equals_two_separate_calls(w):
    expected = (1 - w) * velocity(X, T, jnp.full(6, NULL)) + w * velocity(X, T, LABELS)
    np.testing.assert_allclose(guided(X, T, Guided(LABELS, w)), expected, rtol=1e-5, atol=1e-5)


def test_one_scale_per_example():
    w = jnp.linspace(0, 3, 6)
    rows = [guided(X, T, Guided(LABELS, float(s)))[i] for i, s in enumerate(w)]
    np.testing.assert_allclose(
        guided(X, T, Guided(LABELS, w)), jnp.stack(rows), rtol=1e-5, atol=1e-5
    )


def test_sweeping_the_scale_and_the_labels_compiles_nothing(count_compilations):
    f = jax.jit(lambda labels, w: guided(X, T, Guided(labels, w)))
    scales = [jnp.full(6, w) for w in (0.0, 1.0, 1.5, 4.0)]
    others = [(LABELS + i) % NULL for i in range(4)]
    f(LABELS, scales[0]).block_until_ready()
    with count_compilations() as compiled:
        for labels, w in zip(others, scales, strict=True):
            f(labels, w).block_until_ready()
    assert compiled.count == 0, compiled.names


def dot_products(f, *args):
    def count(jaxpr):
        total = 0
        for eqn in jaxpr.eqns:
            total += eqn.primitive.name == "dot_general"
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                total += count(inner) if hasattr(inner, "eqns") else 0
        return total

    return count(jax.make_jaxpr(f)(*args).jaxpr)


def test_both_branches_share_the_dot_products_of_one_call():
    single = dot_products(velocity, X, T, LABELS)
    assert single == 1
    assert dot_products(guided, X, T, Guided(LABELS, 1.5)) == single


def test_work_on_x_and_t_alone_is_done_once():
    def costly(x, t, labels):
        return (x @ W) * (1 + TABLE[labels])

    jaxpr = jax.make_jaxpr(classifier_free(costly, NULL))(X, T, Guided(LABELS, 1.5))
    (dot,) = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert dot.outvars[0].aval.shape == X.shape  # without a branch axis


def test_a_pytree_of_conditions_is_guided_as_a_whole():
    def velocity(x, t, labels):
        return x * labels["scale"][:, None] + labels["text"]

    null = {"scale": 0.5, "text": jnp.arange(5.0)}
    labels = {"scale": T, "text": X}
    u = classifier_free(velocity, null)(X, T, Guided(labels, 2.0))
    expected = -(X * 0.5 + jnp.arange(5.0)[None]) + 2 * (X * T[:, None] + X)
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-5)


def test_the_other_convention_is_converted():
    s, u_null, u_cond = 2.0, velocity(X, T, jnp.full(6, NULL)), velocity(X, T, LABELS)
    other = (1 + s) * u_cond - s * u_null
    u = guided(X, T, Guided(LABELS, scale_from_excess(s)))
    np.testing.assert_allclose(u, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conditions", [LABELS, None, Guided(None, 1.5)])
def test_guidance_without_labels_is_refused(conditions):
    with pytest.raises(InputError, match="Guided"):
        guided(X, T, conditions)


@pytest.mark.parametrize("w", [jnp.ones(5), jnp.ones((6, 1))])
def test_a_scale_of_the_wrong_shape_is_refused(w):
    with pytest.raises(InputError, match="one per example"):
        guided(X, T, Guided(LABELS, w))


KEYS = jax.random.split(jax.random.key(5), 20_000)
MANY = jnp.arange(20_000) % NULL


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_labels_are_dropped_at_their_rate_and_otherwise_kept(rate):
    dropped = drop_labels(KEYS, MANY, NULL, rate)
    share = float(jnp.mean(dropped == NULL))
    assert abs(share - rate) <= 4 * np.sqrt(rate * (1 - rate) / len(MANY))
    assert jnp.all((dropped == NULL) | (dropped == MANY))


def test_a_drop_takes_every_leaf_of_a_condition_together():
    labels = {"a": MANY, "b": jnp.ones((len(MANY), 2))}
    dropped = drop_labels(KEYS, labels, {"a": NULL, "b": jnp.zeros(2)}, 0.3)
    np.testing.assert_array_equal(dropped["a"] == NULL, jnp.all(dropped["b"] == 0, axis=1))


def test_a_drop_can_be_forced_either_way():
    force = MANY == 1
    dropped = drop_labels(KEYS, MANY, NULL, 0.5, force_drop=force)
    np.testing.assert_array_equal(dropped, jnp.where(force, NULL, MANY))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_drop_rate_outside_its_interval_is_refused(rate):
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        drop_labels(KEYS, MANY, NULL, rate)
