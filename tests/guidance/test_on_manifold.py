"""Guidance on a manifold: rules of tangent vectors, and none that measures in flat space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, Projected, Rescale, ZeroStar, autoguidance, classifier_free
from fmjax.manifolds import Sphere

SPHERE = Sphere(2)
X = SPHERE.uniform(jax.random.key(0), (4,))
T = jnp.full(4, 0.5)


def velocity(x, t, labels):
    return jnp.stack([labels.astype(x.dtype)] * 3, axis=1)


def weak(x, t, labels):
    return 0.5 * x + velocity(x, t, labels)


def test_a_guided_velocity_is_tangent_and_the_combination_of_tangent_ones():
    labels = jnp.arange(4)
    found = classifier_free(velocity, 0, manifold=SPHERE)(X, T, Guided(labels, 2.0))
    expected = SPHERE.to_tangent(X, 2.0 * velocity(X, T, labels))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = autoguidance(velocity, weak, manifold=SPHERE)(X, T, Guided(labels, 2.0))
    np.testing.assert_allclose(found, SPHERE.to_tangent(X, velocity(X, T, labels)), atol=1e-6)


@pytest.mark.parametrize("rule", [Rescale(), ZeroStar(), Projected()])
def test_rules_that_measure_in_flat_space_are_refused(rule):
    message = f"{type(rule).__name__} measures velocities in flat space, and the flow is on Sphere"
    with pytest.raises(InputError, match=message):
        classifier_free(velocity, 0, rule=rule, manifold=SPHERE)
    with pytest.raises(InputError, match=message):
        autoguidance(velocity, weak, rule=rule, manifold=SPHERE)
