"""Energy, straightness and curvature against closed forms and a loop written out in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.metrics import (
    curvature,
    normalized_path_energy,
    path_energy,
    path_statistics,
    straightness,
)

X0 = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
W = 2.0


def rotation(x, t, labels):
    """Uniform rotation with angular speed W: v = W J x."""
    return W * jnp.stack([-x[:, 1], x[:, 0]], axis=1)


def by_a_loop(v, x0, steps):
    """The definitions (1) to (3) in float64, from the list of all velocities."""
    x, velocities = np.float64(x0), []
    for k in range(steps):
        velocities.append(np.float64(v(x, np.full(len(x), k / steps), None)))
        x = x + velocities[-1] / steps
    v_k = np.stack(velocities)
    return (
        x,
        np.float64(x0) + v_k[0],
        (v_k**2).sum(axis=2).mean(axis=0),
        ((v_k - (x - x0)[None]) ** 2).sum(axis=2).mean(axis=0),
        ((np.diff(v_k, axis=0) * steps) ** 2).sum(axis=2).mean(axis=0),
    )


def bent(x, t, labels):
    return np.sin(3 * x[:, ::-1]) + t[:, None] ** 2


def test_equals_the_definitions_written_out():
    def velocity(x, t, labels):
        return jnp.sin(3 * x[:, ::-1]) + t[:, None] ** 2

    expected = by_a_loop(bent, X0, steps=9)
    found = jax.jit(functools.partial(path_statistics, velocity, steps=9))(X0)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=2e-5)
    with jax.enable_x64(True):
        found = path_statistics(velocity, np.float64(X0), steps=9)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_constant_velocity_is_straight_and_its_energy_is_its_square():
    image = np.zeros((3, 2, 2, 1), np.float32)
    step = np.arange(1.0, 4.0, dtype=np.float32)

    def velocity(x, t, labels):
        return jnp.broadcast_to(labels[:, None, None, None], x.shape)

    found = path_statistics(velocity, image, step, steps=10)
    np.testing.assert_allclose(found.energy, 4 * step**2, rtol=1e-6)  # summed over four pixels
    np.testing.assert_array_equal(found.straightness, 0)
    np.testing.assert_array_equal(found.curvature, 0)
    np.testing.assert_allclose(found.x1, image + step[:, None, None, None], rtol=1e-5)
    np.testing.assert_array_equal(found.one_step, image + step[:, None, None, None])


def test_a_rotation_has_its_closed_form():
    # The flow: |v| = W r and |dv/dt| = W^2 r; the chord is 2 r sin(W / 2).
    steps, r2 = 2000, (np.float64(X0) ** 2).sum(axis=1)
    found = path_statistics(rotation, X0, steps=steps)
    np.testing.assert_allclose(found.energy, W**2 * r2, rtol=2e-3)
    np.testing.assert_allclose(found.curvature, W**4 * r2, rtol=4e-3)
    expected = (W**2 - 4 * np.sin(W / 2) ** 2) * r2
    np.testing.assert_allclose(found.straightness, expected, rtol=5e-3)
    # The Euler steps, exactly: each lengthens the radius by sqrt(1 + W^2 h^2).
    few = path_statistics(rotation, X0, steps=8)
    growth = (1 + (W / 8) ** 2) ** np.arange(8)
    np.testing.assert_allclose(few.energy, W**2 * r2 * growth.mean(), rtol=1e-5)
    np.testing.assert_allclose(few.curvature, W**4 * r2 * growth[:7].mean(), rtol=1e-5)


def test_nearly_straight_trajectories_keep_their_digits():
    # v = 1000 + 1e-3 t: the straightness is 1e-6 var(t), 15 decimal digits below the energy.
    def velocity(x, t, labels):
        return 1000 + 1e-3 * t[:, None]

    with jax.enable_x64(True):
        found = path_statistics(velocity, np.zeros((1, 1)), steps=10)
    np.testing.assert_allclose(found.straightness, 1e-6 * np.var(np.arange(10) / 10), rtol=1e-4)
    np.testing.assert_allclose(found.curvature, 1e-6, rtol=1e-6)


def test_the_means_are_those_of_the_batch_and_the_network_is_traced_once():
    calls = []

    def velocity(x, t, labels):
        calls.append(t.shape)
        return rotation(x, t, labels)

    found = path_statistics(velocity, X0, steps=8)
    assert calls == [(6,)]
    for function, values in (
        (path_energy, found.energy),
        (straightness, found.straightness),
        (curvature, found.curvature),
    ):
        np.testing.assert_allclose(function(rotation, X0, steps=8), values.mean(), rtol=1e-5)


def test_half_precision_networks_are_summed_in_float32():
    def velocity(x, t, labels):
        return jnp.ones_like(x, jnp.bfloat16)

    shapes = jax.eval_shape(functools.partial(path_statistics, velocity), X0)
    assert {leaf.dtype for leaf in shapes} == {jnp.dtype("float32")}
    assert [leaf.shape for leaf in shapes] == [(6, 2), (6, 2), (6,), (6,), (6,)]


def test_normalized_path_energy():
    assert normalized_path_energy(3.0, 2.0) == 0.5
    assert normalized_path_energy(jnp.float32(1.0), 2.0) == 0.5
    with pytest.raises(InputError, match="w2_squared must be a positive number"):
        normalized_path_energy(1.0, 0.0)


@pytest.mark.parametrize("steps", [1, 0, 2.5, True])
def test_steps_that_cannot_be_are_refused(steps):
    with pytest.raises(InputError, match="steps must be a whole number of at least 2; got"):
        path_statistics(rotation, X0, steps=steps)


def test_a_velocity_of_another_shape_is_refused():
    with pytest.raises(
        InputError, match=r"floats shaped as x, \(6, 2\); got float32 of shape \(6, 1\)"
    ):
        path_statistics(lambda x, t, labels: x[:, :1], X0)
