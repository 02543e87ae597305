"""Drifting: its field is anti-symmetric and vanishes where it should; a generator learns by it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax.conditions import ClassIds
from fmjax.drifting import RADII, _group_loss, drift_field, make_drifting_loss_fn
from fmjax.errors import InputError
from fmjax.models.adapters import from_linen
from fmjax.models.mlp import MLP

N, P, K = 12, 9, 5


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def distances(x, y):
    return jnp.sqrt(jnp.sum((x[:, None] - y[None]) ** 2, axis=-1))


def field(x, data, others, radius=0.5, weights=None):
    d = distances(x, jnp.concatenate([others, data]))
    weights = jnp.ones(d.shape[1]) if weights is None else weights
    return drift_field(d, data, others, radius, weights)


@pytest.mark.slow
def test_swapping_data_and_others_turns_the_field_round():
    x, data, others = normal(N, 2), normal(P, 2, seed=1) + 1, normal(K, 2, seed=2)
    there, back = field(x, data, others)[0], field(x, others, data)[0]
    np.testing.assert_allclose(there, -back, atol=1e-5)
    assert np.abs(there).max() > 0.05


def test_its_coefficients_sum_to_zero_whatever_the_weights():
    x, data, others = normal(N, 2), normal(P, 2, seed=1), normal(K, 2, seed=2)
    v, c = field(x, data, others, weights=jnp.linspace(0.2, 3, P + K))
    np.testing.assert_allclose(c.sum(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(v, c @ jnp.concatenate([others, data]), atol=1e-5)
    shifted = field(x + 7, data + 7, others + 7, weights=jnp.linspace(0.2, 3, P + K))[0]
    np.testing.assert_allclose(shifted, v, atol=1e-4)


def test_it_is_the_sum_over_pairs_of_its_definition():
    x, data, others = normal(3, 2), normal(4, 2, seed=1), normal(2, 2, seed=2)
    y, radius = np.concatenate([others, data]), 0.5
    k = np.exp(-np.asarray(distances(x, y)) / radius)
    a = np.sqrt(k / k.sum(1, keepdims=True) * k / k.sum(0, keepdims=True))
    expected = np.zeros((3, 2))
    for i in range(3):
        for j in range(4):
            for m in range(2):
                expected[i] += a[i, 2 + j] * a[i, m] * np.asarray(data[j] - others[m])
    np.testing.assert_allclose(field(x, data, others, radius)[0], expected, atol=1e-5)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("shift", "vanishes"), [(0.0, True), (0.5, False)])
def test_its_mean_vanishes_where_data_and_others_have_one_distribution(shift, vanishes):
    x = jnp.array([[0.0, 0.0], [1.0, -1.0], [2.0, 0.5]])

    def one(key):
        data, others = jax.random.normal(key, (2, 16, 2))
        return field(x, data + shift, others)[0]

    found = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 2000)))
    scores = np.abs(found.mean(0)) / (found.std(0) / np.sqrt(len(found)))
    assert (scores.max() < 4) == vanishes


def shift_generator(params, x0, labels):
    return x0 + params


@pytest.mark.slow
def test_the_gradient_is_that_of_points_moved_along_the_field():
    """Only the generated points have a gradient: the mean of -2 V / unit."""
    x0, x1 = normal(1, N, 2), normal(1, P, 2, seed=1) + 3
    loss_fn = make_drifting_loss_fn(shift_generator, radii=(0.3,))
    value, gradient = jax.jit(jax.value_and_grad(loss_fn))(jnp.zeros((1, 2)), x0, x1)
    x, y = x0[0], jnp.concatenate([x0[0], x1[0]])
    d = np.array(distances(x, y))
    np.fill_diagonal(d, 1e-4)
    scale = d.mean()
    unit, d = scale / np.sqrt(2), d / scale
    d[np.arange(N), np.arange(N)] += 100
    v = np.asarray(drift_field(jnp.asarray(d), x1[0] / unit, x / unit, 0.3, jnp.ones(N + P))[0])
    v = v / np.sqrt((v**2).mean())
    np.testing.assert_allclose(value, (v**2).mean(), rtol=1e-4)
    np.testing.assert_allclose(gradient[0], -2 * v.sum(0) / (unit * v.size), rtol=1e-4)
    assert np.all(np.asarray(gradient) < 0)  # it would move up, to the data


def test_no_gradient_flows_through_the_data():
    loss_fn = make_drifting_loss_fn(shift_generator)
    slope = jax.jit(jax.grad(loss_fn, argnums=2))(
        jnp.zeros((1, 2)), normal(2, N, 2), normal(2, P, 2)
    )
    np.testing.assert_array_equal(slope, 0)


def test_each_group_drifts_by_itself():
    def per_group(params, x0, labels):
        return x0 + params[labels]

    x0, x1 = normal(2, N, 2), normal(2, P, 2, seed=1) + jnp.array([3.0, -3.0])[:, None, None]
    labels, gradient = jnp.arange(2), jax.jit(jax.grad(make_drifting_loss_fn(per_group)))
    both = gradient(jnp.zeros((2, 2)), x0, x1, labels)
    alone = gradient(jnp.zeros((2, 2)), x0[1:], x1[1:], labels[1:])
    np.testing.assert_allclose(2 * both[1], alone[1], rtol=1e-4, atol=1e-6)
    assert np.all(np.asarray(both[0]) < 0)
    assert np.all(np.asarray(both[1]) > 0)


@pytest.mark.slow
def test_features_have_fields_of_their_own_that_add_up():
    x0, x1, params = normal(1, N, 2), normal(1, P, 2, seed=1), jnp.zeros((1, 2))

    def loss(features):
        loss_fn = make_drifting_loss_fn(shift_generator, features=features)
        return jax.jit(loss_fn)(params, x0, x1)

    first, second = loss(lambda x: x[:, :1]), loss(lambda x: jnp.sin(x))
    both = loss(lambda x: {"a": x[:, :1], "b": jnp.sin(x)})
    np.testing.assert_allclose(both, first + second, rtol=1e-5)
    assert abs(first - second) > 1e-3


@pytest.mark.slow
def test_guidance_pushes_away_from_the_unconditional_data():
    seen = {}

    def generator(params, x0, labels):
        seen.update(labels)
        return x0 + params

    x0 = normal(1, 64, 2)
    loss_fn = make_drifting_loss_fn(generator, radii=(2.0,))

    def gradient(w, side):  # the generated points are at the data, those of all kinds beside them
        free = normal(K, 2, seed=2) + side
        given = {"unconditional": free, "guidance": jnp.array([w])}
        return jax.grad(loss_fn)(jnp.zeros((1, 2)), x0, x0, jnp.array([3]), **given)

    assert np.all(np.asarray(gradient(4.0, -3.0)) < -0.1)
    assert np.all(np.asarray(gradient(4.0, 3.0)) > 0.1)
    np.testing.assert_array_equal(seen["labels"], np.full(64, 3))
    np.testing.assert_array_equal(seen["guidance"], np.full(64, 4.0))


def train(loss_fn, params, draw, steps, rate=2e-3):
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry, key):
        params, state = carry
        updates, state = adam.update(jax.grad(loss_fn)(params, *draw(key)), state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(params):
        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(step, (params, adam.init(params)), keys)[0][0]

    return run(params)


@pytest.mark.nightly
def test_a_generator_learns_eight_gaussians_in_one_step():
    from fmjax.data.toys import eight_gaussians
    from fmjax.metrics.transport import wasserstein

    model = MLP(width=64, depth=3)
    apply_fn = from_linen(model)

    def generator(params, x0, labels):
        return x0 + apply_fn(params, x0, jnp.zeros(len(x0)), labels)

    points = jnp.asarray(eight_gaussians(np.random.default_rng(0), 20_000)[0])

    def draw(key):
        x0_key, x1_key = jax.random.split(key)
        x0 = jax.random.normal(x0_key, (1, 128, 2))
        return x0, points[jax.random.randint(x1_key, (1, 128), 0, len(points))]

    params = model.init(jax.random.key(0), jnp.zeros((2, 2)), jnp.zeros(2))["params"]
    loss_fn = make_drifting_loss_fn(generator, radii=(0.5, 0.2, 0.05))
    params = train(loss_fn, params, draw, 1500)
    made = generator(params, normal(1000, 2, seed=5), None)
    floor = wasserstein(points[:1000], points[1000:2000])
    assert wasserstein(normal(1000, 2, seed=5), points[:1000]) > 3
    assert wasserstein(made, points[:1000]) < floor + 0.3


def call(x0=(2, N, 2), x1=(2, P, 2), labels=None, generator=shift_generator, **how):
    made = {k: how.pop(k) for k in ("features", "radii") if k in how}
    loss_fn = make_drifting_loss_fn(generator, **made)
    given = [normal(*x) if isinstance(x, tuple) else x for x in (x0, x1)]
    return jax.eval_shape(functools.partial(loss_fn, jnp.zeros((1, 2)), *given, labels, **how))


FREE = {"unconditional": normal(K, 2), "guidance": jnp.ones(2)}


@pytest.mark.quick_cases(8)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"generator": 3}, "the generator must be a function"),
        ({"features": 3}, "the features must be a function"),
        ({"radii": ()}, "radii must be one or more positive numbers"),
        ({"radii": 0.2}, "radii must be one or more positive numbers"),
        ({"radii": (0.2, -0.1)}, "a radius of drifting must be a positive number; got -0.1"),
        ({"x0": (N, 2)}, r"x0 must be of shape \(groups, points, ...\).*x0\[None\]"),
        ({"x1": (2, 1, 2)}, "two points of each class or more, and x1 has 1"),
        ({"x0": (2, 1, 2)}, "two points of each class or more, and x0 has 1"),
        ({"x1": (3, P, 2)}, "must have the same groups; got 2 and 3"),
        ({"x1": jnp.ones((2, P, 2), int)}, "x1 must be of floats"),
        ({"x1": jnp.full((2, P, 2), jnp.nan)}, "x1 must be finite"),
        ({"labels": jnp.arange(3)}, "labels, one for each group, must have the leading size"),
        ({"generator": lambda p, x, y: x[:, :1]}, "the generator must return floats shaped as"),
        ({"features": lambda x: x[:3]}, "the features of the points must have the leading size"),
        ({"unconditional": normal(K, 2)}, "needs both the unconditional data and the scales"),
        ({"guidance": jnp.ones(2)}, "needs both the unconditional data and the scales"),
        (FREE | {"unconditional": normal(K, 3)}, r"points as those of x1, \(k, 2\)"),
        (FREE | {"unconditional": normal(0, 2)}, r"at least one; got \(0, 2\)"),
        (FREE | {"guidance": jnp.ones(3)}, r"one scale for each group, \(2,\); got \(3,\)"),
        (FREE | {"guidance": jnp.array([0.5, 2])}, "must be at least 1 in drifting; got 0.5"),
    ],
)
def test_what_does_not_fit_is_refused(how, message):
    with pytest.raises(InputError, match=message):
        call(**how)


@pytest.mark.slow
def test_a_conditional_network_of_ours_is_a_generator():
    model = MLP(width=8, depth=1, conditions=ClassIds(3), guidance=True)
    apply_fn = from_linen(model)

    def generator(params, x0, labels):
        return apply_fn(params, x0, jnp.zeros(len(x0)), labels)

    given = {"labels": jnp.zeros(2, int), "guidance": jnp.ones(2)}
    params = model.init(jax.random.key(0), jnp.zeros((2, 2)), jnp.zeros(2), given)["params"]
    loss_fn = jax.jit(make_drifting_loss_fn(generator, radii=RADII))
    grads = jax.grad(loss_fn)(params, normal(2, N, 2), normal(2, P, 2), jnp.arange(2), **FREE)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 0


@pytest.mark.nightly
def test_the_weight_of_the_unconditional_data_is_that_of_its_formula():
    n, w = 5, np.array([1.0, 2.5], np.float32)
    x0, x1, free = normal(2, n, 2), normal(2, 6, 2), normal(K, 2)
    loss_fn = make_drifting_loss_fn(lambda params, x0, labels: 0.5 * x0)
    found = loss_fn(None, x0, x1, unconditional=free, guidance=jnp.asarray(w))
    each = [
        _group_loss(0.5 * x0[g], x1[g], free, jnp.float32((w[g] - 1) * (n - 1) / K), RADII)
        for g in range(2)
    ]
    np.testing.assert_allclose(found, np.mean(each), rtol=1e-5)
