import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.guidance import (
    Between,
    Guided,
    class_weights,
    classifier_free,
    interpolated,
    over_time,
    slerp,
    spherical_weights,
)
from fmjax.models.mlp import MLP

NULL = 3
RNG = np.random.default_rng(0)
TABLE, X = (RNG.normal(size=(n, 4)).astype("float32") for n in (NULL + 1, 5))
T = np.linspace(0, 1, 5, dtype="float32")
A, B = np.array([0, 1, 2, 0, 1]), np.array([1, 2, 0, 0, NULL])
S = np.array([0.0, 1.0, 0.5, 0.3, 0.8], np.float32)


def velocity(x, t, labels):
    return jnp.tanh(x + jnp.asarray(TABLE)[labels]) + t[:, None]


def velocity_by_hand(labels):
    return np.tanh(X + TABLE[labels]) + T[:, None]


def rotation(u, v, s):
    """Slerp by Gram-Schmidt and an angle, one example in numpy."""
    r_u, r_v = np.linalg.norm(u), np.linalg.norm(v)
    across = v / r_v - np.dot(u, v) / (r_u * r_v) * u / r_u
    angle = s * np.arccos(np.clip(np.dot(u, v) / (r_u * r_v), -1, 1))
    direction = np.cos(angle) * u / r_u + np.sin(angle) * across / np.linalg.norm(across)
    return ((1 - s) * r_u + s * r_v) * direction


def test_slerp_turns_by_the_share_of_the_angle_and_keeps_the_length_between():
    with jax.enable_x64(True):
        u, v = (np.random.default_rng(k).normal(size=(5, 2, 3)) for k in range(2))
        got = jax.jit(slerp)(u, v, np.asarray(S, np.float64))
    for i in range(5):
        expected = rotation(u[i].ravel(), v[i].ravel(), float(S[i]))
        np.testing.assert_allclose(np.ravel(got[i]), expected, rtol=1e-7, atol=1e-9)


def test_slerp_of_parallel_opposed_or_no_arrays_is_linear_with_a_finite_gradient():
    @jax.jit
    def both(u, v, s):
        return slerp(u, v, s), jax.grad(lambda *a: jnp.sum(slerp(*a)), (0, 1, 2))(u, v, s)

    u, s = X[:1], np.array([0.3], np.float32)
    for other in (1.0, 2.0, -1.0, 0.0, 1.0 + 1e-7):
        v = np.float32(other) * u
        found, gradients = both(u, v, s)
        line = 0.7 * u + 0.3 * v
        np.testing.assert_allclose(found, line, rtol=1e-5, atol=1e-5, err_msg=str(other))
        assert all(np.isfinite(g).all() for g in gradients), other


def test_slerp_meets_the_line_without_a_jump():
    angle = np.float32([[1.3e-3], [1.5e-3]])  # on either side of where it becomes linear
    u, s = np.float32([[1, 0], [1, 0]]), np.float32([0.3, 0.3])
    v = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    # The arc lies s (1 - s) angle^2 / 2 = 2.4e-7 beyond its chord; the rest is for rounding.
    np.testing.assert_allclose(jax.jit(slerp)(u, v, s), 0.7 * u + 0.3 * v, atol=3e-6)


@pytest.mark.parametrize("how", ["linear", "spherical"])
def test_velocities_between_two_conditions(how):
    field = jax.jit(interpolated(velocity, how))
    start, end = velocity_by_hand(A), velocity_by_hand(B)
    for s in (S, 0.3):
        u = field(X, T, Between(A, B, s))
        each = np.broadcast_to(np.float32(s), (5,))
        if how == "linear":
            blend = (1 - each)[:, None] * start + each[:, None] * end
        else:
            blend = jax.jit(slerp)(start, end, each)
        np.testing.assert_allclose(u, blend, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(field(X, T, Between(A, B, 0.0)), start, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(field(X, T, Between(A, B, 1.0)), end, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_both_ends_are_one_call():
    calls = []

    def noted(x, t, labels):
        calls.append(1)
        return velocity(x, t, labels)

    interpolated(noted)(X, T, Between(A, B, S))
    assert len(calls) == 1


def test_with_guidance_either_way_the_linear_one_is_the_same():
    w = np.linspace(0, 4, 5, dtype="float32")
    guided = classifier_free(velocity, NULL, interval=(0.2, 0.8))
    outside = interpolated(guided)
    inside = classifier_free(interpolated(velocity), Between(NULL, NULL, 0.0), interval=(0.2, 0.8))

    @jax.jit
    def program(x, t, a, b, s, w):
        return (
            outside(x, t, Between(Guided(a, w), Guided(b, w), s)),
            inside(x, t, Guided(Between(a, b, s), w)),
            interpolated(velocity)(x, t, Between(a, b, s)),
            # A scale of its own at each end, one of them shared.
            outside(x, t, Between(Guided(a, 2.0), Guided(b, w), 1.0)),
            guided(x, t, Guided(b, w)),
        )

    u, other, without, at_the_end, end = (np.asarray(a) for a in program(X, T, A, B, S, w))
    np.testing.assert_allclose(u, other, rtol=1e-4, atol=1e-5)
    assert np.abs(u - without).max() > 0.1
    np.testing.assert_allclose(at_the_end, end, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (A, r"takes Between\(start, end, s\); got"),
        (Between(A, {"id": B}, 0.5), "must be built alike"),
        (Between(A, B[:4], 0.5), "must have one shape"),
        (Between(A, B, jnp.ones(4)), r"s must be one number or one per example, \(5,\); .* \(4,\)"),
    ],
)
def test_ends_that_do_not_fit_are_refused(conditions, message):
    with pytest.raises(InputError, match=message):
        interpolated(velocity)(X, T, conditions)


def test_an_unknown_interpolation_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'slerp'.*linear, spherical"):
        interpolated(velocity, "slerp")


def test_labels_may_change_over_time_inside_guidance_and_around_it():
    def labels_at(labels, t):
        return jnp.where(t < 0.5, labels["first"], labels["then"])

    pair = {"first": A, "then": B}
    now = np.where(T < 0.5, A, B)
    field, guided = over_time(velocity, labels_at), classifier_free(velocity, NULL)
    inside = classifier_free(field, {"first": NULL, "then": NULL})
    around = over_time(guided, lambda c, t: Guided(labels_at(c.labels, t), c.w))

    @jax.jit
    def program(x, t, pair, now):
        both = [f(x, t, Guided(pair, 2.0)) for f in (inside, around)]
        return field(x, t, pair), guided(x, t, Guided(now, 2.0)), both

    plain, expected, both = program(X, T, pair, now)
    np.testing.assert_allclose(plain, velocity_by_hand(now), rtol=1e-5, atol=1e-5)
    for found in both:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_class_weights_mix_the_embeddings():
    weights = np.asarray(jax.jit(class_weights, static_argnums=3)(A, B, S, NULL))
    assert weights.shape == (5, NULL + 1)
    s = S[:, None]
    np.testing.assert_allclose(weights @ TABLE, (1 - s) * TABLE[A] + s * TABLE[B], atol=1e-5)


def test_spherical_weights_go_along_the_arc_of_the_embeddings():
    directions = TABLE / np.linalg.norm(TABLE, axis=1, keepdims=True)
    of_table = jax.jit(functools.partial(spherical_weights, A, B, S))
    weights = np.asarray(of_table(directions))
    mixed = weights @ directions
    for i in (0, 1, 2, 4):
        expected = rotation(np.asarray(directions[A[i]]), np.asarray(directions[B[i]]), float(S[i]))
        np.testing.assert_allclose(mixed[i], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed[3], directions[0], atol=1e-5)  # from a class to itself
    # The weights depend on the angle alone, not on the lengths.
    np.testing.assert_allclose(of_table(3 * TABLE), weights, atol=1e-5)


def test_an_id_that_is_no_class_gives_nan():
    a, b = np.array([0, -1, NULL + 1]), np.zeros(3, int)
    for weights in (
        class_weights(a, b, 0.5, NULL),
        jax.jit(lambda a, b: class_weights(a, b, 0.5, NULL))(a, b),
        jax.jit(lambda a, b: spherical_weights(a, b, 0.5, TABLE))(a, b),
    ):
        weights = np.asarray(weights)
        assert np.isfinite(weights[0]).all()
        assert np.isnan(weights[1]).any()
        assert np.isnan(weights[2]).any()


def test_weights_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"one shape.*a \(5,\), b \(4,\) and s \(\)"):
        class_weights(A, B[:4], 0.5, NULL)
    with pytest.raises(InputError, match=r"s \(4,\)"):
        spherical_weights(A, B, S[:4], TABLE)


@pytest.mark.slow
def test_a_network_is_guided_towards_weights_over_classes():
    model = MLP(width=8, depth=1, conditions=ClassIds(NULL), zero_init=False)
    params = jax.jit(model.init)(jax.random.key(2), X, T, A)
    net = jax.jit(lambda x, t, labels: model.apply(params, x, t, labels))
    guided = classifier_free(net, class_weights(NULL, NULL, 0.0, NULL))
    u = guided(X, T, Guided(class_weights(A, B, jnp.ones(5), NULL), 2.0))
    expected = classifier_free(net, NULL)(X, T, Guided(B, 2.0))
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_weights_of_one_pair_are_those_of_the_pair_among_many():
    every = spherical_weights(A[:4].reshape(2, 2), B[:4].reshape(2, 2), np.float32(0.3), TABLE)
    assert every.shape == (2, 2, NULL + 1)
    for place in np.ndindex(2, 2):
        a, b = A[:4].reshape(2, 2)[place], B[:4].reshape(2, 2)[place]
        np.testing.assert_allclose(every[place], spherical_weights(a, b, 0.3, TABLE), rtol=1e-5)
