import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
TABLE = jax.random.normal(jax.random.key(0), (NULL + 1, 4))
X = jax.random.normal(jax.random.key(1), (5, 4))
T = jnp.linspace(0, 1, 5)
A, B = jnp.array([0, 1, 2, 0, 1]), jnp.array([1, 2, 0, 0, NULL])
S = jnp.array([0.0, 1.0, 0.5, 0.3, 0.8])


def velocity(x, t, labels):
    return jnp.tanh(x + TABLE[labels]) + t[:, None]


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
        got = slerp(jnp.asarray(u), jnp.asarray(v), jnp.asarray(np.asarray(S, np.float64)))
    for i in range(5):
        expected = rotation(u[i].ravel(), v[i].ravel(), float(S[i]))
        np.testing.assert_allclose(np.ravel(got[i]), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("other", [1.0, 2.0, -1.0, 0.0, 1.0 + 1e-7])
def test_slerp_of_parallel_opposed_or_no_arrays_is_linear_with_a_finite_gradient(other):
    u = X[:1]
    v, s = other * u, jnp.array([0.3])
    np.testing.assert_allclose(slerp(u, v, s), 0.7 * u + 0.3 * v, rtol=1e-5, atol=1e-6)
    gradients = jax.jit(jax.grad(lambda *a: jnp.sum(slerp(*a)), (0, 1, 2)))(u, v, s)
    assert all(bool(jnp.isfinite(g).all()) for g in gradients)


def test_slerp_meets_the_line_without_a_jump():
    u, across, s = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]]), jnp.array([0.3])
    for angle in (1.3e-3, 1.5e-3):  # on either side of where it becomes linear
        v = jnp.cos(angle) * u + jnp.sin(angle) * across
        np.testing.assert_allclose(slerp(u, v, s), 0.7 * u + 0.3 * v, atol=1e-6)


@pytest.mark.parametrize("how", ["linear", "spherical"])
def test_velocities_between_two_conditions(how):
    field = interpolated(velocity, how)
    start, end = velocity(X, T, A), velocity(X, T, B)
    for s in (S, 0.3):
        u = field(X, T, Between(A, B, s))
        each = jnp.broadcast_to(s, (5,))
        blend = slerp(start, end, each)
        if how == "linear":
            blend = (1 - each)[:, None] * start + each[:, None] * end
        np.testing.assert_allclose(u, blend, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(field(X, T, Between(A, B, 0.0)), start, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(field(X, T, Between(A, B, 1.0)), end, rtol=1e-5, atol=1e-6)


def test_both_ends_are_one_call():
    calls = []

    def noted(x, t, labels):
        calls.append(1)
        return velocity(x, t, labels)

    interpolated(noted)(X, T, Between(A, B, S))
    assert len(calls) == 1


def test_with_guidance_either_way_the_linear_one_is_the_same():
    w = jnp.linspace(0, 4, 5)
    outside = interpolated(classifier_free(velocity, NULL, interval=(0.2, 0.8)))
    inside = classifier_free(interpolated(velocity), Between(NULL, NULL, 0.0), interval=(0.2, 0.8))
    u = outside(X, T, Between(Guided(A, w), Guided(B, w), S))
    other = inside(X, T, Guided(Between(A, B, S), w))
    np.testing.assert_allclose(u, other, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(u - interpolated(velocity)(X, T, Between(A, B, S))).max()) > 0.1
    # A scale of its own at each end, one of them shared.
    u = outside(X, T, Between(Guided(A, 2.0), Guided(B, w), 1.0))
    np.testing.assert_allclose(
        u, classifier_free(velocity, NULL, interval=(0.2, 0.8))(X, T, Guided(B, w)), atol=1e-5
    )


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
    now = jnp.where(T < 0.5, A, B)
    field = over_time(velocity, labels_at)
    np.testing.assert_allclose(field(X, T, pair), velocity(X, T, now), rtol=1e-6)
    guided = classifier_free(velocity, NULL)
    expected = guided(X, T, Guided(now, 2.0))
    inside = classifier_free(field, {"first": NULL, "then": NULL})
    np.testing.assert_allclose(inside(X, T, Guided(pair, 2.0)), expected, atol=1e-5)
    around = over_time(guided, lambda c, t: Guided(labels_at(c.labels, t), c.w))
    np.testing.assert_allclose(around(X, T, Guided(pair, 2.0)), expected, atol=1e-5)


def test_class_weights_mix_the_embeddings():
    weights = class_weights(A, B, S, NULL)
    assert weights.shape == (5, NULL + 1)
    s = S[:, None]
    np.testing.assert_allclose(weights @ TABLE, (1 - s) * TABLE[A] + s * TABLE[B], atol=1e-6)


def test_spherical_weights_go_along_the_arc_of_the_embeddings():
    directions = TABLE / jnp.linalg.norm(TABLE, axis=1, keepdims=True)
    mixed = spherical_weights(A, B, S, directions) @ directions
    for i in (0, 1, 2, 4):
        expected = rotation(np.asarray(directions[A[i]]), np.asarray(directions[B[i]]), float(S[i]))
        np.testing.assert_allclose(mixed[i], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed[3], directions[0], atol=1e-6)  # from a class to itself
    # The weights depend on the angle alone, not on the lengths.
    np.testing.assert_allclose(
        spherical_weights(A, B, S, 3 * TABLE), spherical_weights(A, B, S, directions), atol=1e-5
    )


@pytest.mark.parametrize("bad", [-1, NULL + 1])
def test_an_id_that_is_no_class_gives_nan(bad):
    for weights in (
        class_weights(jnp.array([0, bad]), jnp.array([0, 0]), 0.5, NULL),
        spherical_weights(jnp.array([0, bad]), jnp.array([0, 0]), 0.5, TABLE),
    ):
        assert bool(jnp.isfinite(weights[0]).all())
        assert bool(jnp.isnan(weights[1]).any())


def test_weights_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"one shape.*a \(5,\), b \(4,\) and s \(\)"):
        class_weights(A, B[:4], 0.5, NULL)
    with pytest.raises(InputError, match=r"s \(4,\)"):
        spherical_weights(A, B, S[:4], TABLE)


@pytest.mark.slow
def test_a_network_is_guided_towards_weights_over_classes():
    model = MLP(width=8, depth=1, num_classes=NULL, zero_init=False)
    params = jax.jit(model.init)(jax.random.key(2), X, T, A)
    net = jax.jit(lambda x, t, labels: model.apply(params, x, t, labels))
    guided = classifier_free(net, class_weights(NULL, NULL, 0.0, NULL))
    u = guided(X, T, Guided(class_weights(A, B, jnp.ones(5), NULL), 2.0))
    expected = classifier_free(net, NULL)(X, T, Guided(B, 2.0))
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-6)
