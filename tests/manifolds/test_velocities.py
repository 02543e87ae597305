"""Networks and velocities that give tangent vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conventions import Output
from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
from fmjax.manifolds import (
    SO3,
    Euclidean,
    FlatProduct,
    Product,
    Sphere,
    Torus,
    in_ambient_space,
    in_tangent_space,
)

SPHERE = Sphere(2)
X = SPHERE.uniform(jax.random.key(0), (4,))
T = jnp.full(4, 0.5)


def network(params, x, t, labels):
    shift = jnp.asarray([[1.0, 2.0, 3.0]])
    return params * (x + shift + (0.0 if labels is None else labels[:, None]))


def velocity(x, t, labels):
    return network(2.0, x, t, labels)


def test_networks_and_velocities_become_tangent():
    expected = SPHERE.to_tangent(X, network(2.0, X, T, None))
    for found in (
        in_tangent_space(network, SPHERE)(2.0, X, T, None),
        in_tangent_space(velocity, SPHERE)(X, T, None),
    ):
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(SPHERE.inner(X, found, X), 0, atol=1e-6)


def test_it_is_the_same_inside_and_outside_of_guidance():
    labels = Guided(jnp.arange(4.0), 2.5)
    inside = classifier_free(in_tangent_space(velocity, SPHERE), 0.0)(X, T, labels)
    outside = in_tangent_space(classifier_free(velocity, 0.0), SPHERE)(X, T, labels)
    np.testing.assert_allclose(inside, outside, atol=1e-5)


@pytest.mark.slow
def test_of_a_product_each_part_becomes_tangent():
    pose = Product({"position": Euclidean(3), "rotation": SO3()})
    x = pose.wrapped_normal(
        jax.random.key(0), jax.tree.map(lambda o: jnp.stack([o] * 4), pose.origin)
    )
    u = in_tangent_space(lambda x, t, c: jax.tree.map(jnp.ones_like, x), pose)(x, T, None)
    np.testing.assert_array_equal(u["position"], jnp.ones((4, 3)))
    turned = jnp.swapaxes(x["rotation"], 1, 2) @ u["rotation"]
    np.testing.assert_allclose(turned + jnp.swapaxes(turned, 1, 2), 0, atol=1e-6)


def test_of_an_output_the_velocity_alone_is_projected():
    def several(params, x, t, labels):
        return Output(velocity=x + 1, divergence=t)

    found = in_tangent_space(several, SPHERE)(None, X, T, None)
    np.testing.assert_array_equal(found["divergence"], T)
    np.testing.assert_allclose(SPHERE.inner(X, found["velocity"], X), 0, atol=1e-6)
    other = in_tangent_space(lambda x, t, c: Output(x1=x), SPHERE)(X, T, None)
    np.testing.assert_array_equal(other["x1"], X)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: in_tangent_space(3, SPHERE), "the function must be a function"),
        (lambda: in_tangent_space(velocity, Sphere), "manifold is the class Sphere"),
        (lambda: in_tangent_space(velocity, SPHERE)(X, T), "got 2 arguments"),
        (
            lambda: in_tangent_space(lambda x, t, c: x[:, :2], SPHERE)(X, T, None),
            "the network must return",
        ),
    ],
)
def test_what_is_no_network_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


AMBIENT = {
    "torus": Torus(3),
    "product": FlatProduct((SO3(), Torus(2), Euclidean(2), Torus(1))),
}


@pytest.mark.slow
@pytest.mark.parametrize("manifold", AMBIENT.values(), ids=AMBIENT)
def test_what_a_network_gives_is_taken_back_by_the_transpose_of_the_derivative(manifold):
    mean = jnp.broadcast_to(manifold.origin, (4, *manifold.shape))
    x = manifold.wrapped_normal(jax.random.key(0), mean)
    w = jax.random.normal(jax.random.key(1), (4, *manifold.ambient_shape))
    u = jax.random.normal(jax.random.key(2), x.shape)
    seen, moved = jax.jvp(manifold.ambient, (x,), (u,))

    def apply_fn(params, x, t, labels):
        np.testing.assert_array_equal(x, seen)
        return params

    back = in_ambient_space(apply_fn, manifold)(w, x, T, None)
    assert seen.shape == w.shape
    np.testing.assert_allclose(jnp.sum(back * u, 1), jnp.sum(w * moved, 1), atol=1e-4)
    # A point comes back as its numbers, however long its cosines and sines are together.
    end = in_ambient_space(lambda *given: 2 * seen, manifold, "x1")(None, x, T)
    angles = [0, 1, 2] if manifold == Torus(3) else [9, 10, 13]
    np.testing.assert_allclose(end[:, angles], x[:, angles], atol=1e-5)


def test_of_an_output_all_that_is_shaped_as_x_is_taken_back():
    torus, x = Torus(2), jnp.zeros((4, 2))

    def several(params, x, t, labels):
        return Output(velocity=x + 1, diagonal=x + 2, divergence=t)

    found = in_ambient_space(several, torus)(None, x, T, None)
    np.testing.assert_array_equal(found["divergence"], T)
    np.testing.assert_array_equal(found["velocity"], jnp.full((4, 2), 1.0))
    np.testing.assert_array_equal(found["diagonal"], jnp.full((4, 2), 2.0))


def test_without_angles_the_network_is_the_same():
    assert in_ambient_space(network, SPHERE) is network
    with pytest.raises(InputError, match="unknown prediction on a manifold 'score'"):
        in_ambient_space(network, SPHERE, "score")
