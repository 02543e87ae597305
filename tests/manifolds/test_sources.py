"""Sources on manifolds: keyed by the example, distributed as their densities say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.manifolds import (
    SO3,
    Euclidean,
    FlatProduct,
    Hyperbolic,
    Product,
    Simplex,
    Sphere,
    Torus,
    UniformOn,
    WrappedNormal,
)

KEY = jax.random.key(0)
SPHERE = Sphere(2)
POSE = Product({"position": Euclidean(3), "rotation": SO3()})
ROUND = Product({"place": Sphere(2), "angles": Torus(2)})
SOURCES = {
    "uniform, sphere": UniformOn(SPHERE),
    "uniform, product": UniformOn(ROUND),
    "normal, sphere": WrappedNormal(SPHERE, jnp.asarray([1.0, 0.0, 0.0]), 0.5),
    "normal, hyperbolic": WrappedNormal(Hyperbolic(2)),
    "normal, pose": WrappedNormal(POSE, scale=0.5),
    "normal, flat pose": WrappedNormal(FlatProduct((Euclidean(3), SO3()))),
}


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_an_example_depends_on_its_place_alone(name):
    source = SOURCES[name]
    shape = source.manifold.shape
    every = source.sample(KEY, jnp.arange(6), shape)
    some = source.sample(KEY, jnp.asarray([4, 1]), shape)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[jnp.asarray([4, 1])], b), every, some)
    source.manifold.check("x0", every)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(every))
    assert source.log_prob(every).shape == (6,)
    drawn = Draw(source=source)(KEY, jnp.arange(6), every)
    assert jax.tree.map(jnp.shape, drawn.x0) == jax.tree.map(jnp.shape, every)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform, sphere", "normal, sphere"])
def test_the_density_is_that_of_the_points(name):
    """The mean of 1 / p over the points is the volume."""
    source = SOURCES[name]
    x = source.sample(KEY, jnp.arange(20_000), (3,))
    if name.startswith("uniform"):
        np.testing.assert_allclose(source.log_prob(x), -np.log(4 * np.pi), rtol=1e-6)
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.02)
        return
    found = SPHERE.dist(x, jnp.broadcast_to(source.mean, x.shape))
    np.testing.assert_allclose(jnp.mean(found**2), 2 * 0.5**2, rtol=0.02)
    near = found < 1.0  # a cap of area 2 pi (1 - cos 1)
    area = jnp.mean(jnp.where(near, jnp.exp(-source.log_prob(x)), 0))
    np.testing.assert_allclose(area, 2 * np.pi * (1 - np.cos(1.0)), rtol=0.02)


@pytest.mark.slow
def test_several_points_of_an_example_are_independent_and_their_densities_are_summed():
    source = SOURCES["normal, sphere"]
    x = source.sample(KEY, jnp.arange(5), (4, 3))
    assert x.shape == (5, 4, 3)
    each = source.log_prob(x.reshape(20, 3)).reshape(5, 4)
    np.testing.assert_allclose(source.log_prob(x), each.sum(axis=1), rtol=1e-6)
    assert len(np.unique(np.asarray(x)[..., 0])) == 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformOn(Hyperbolic(2)), "infinite volume"),
        (lambda: UniformOn(POSE), "infinite volume"),
        (lambda: UniformOn(Sphere), "manifold is the class Sphere"),
        (lambda: WrappedNormal("sphere"), "manifold must be an object with wrapped_normal"),
        (lambda: WrappedNormal(SPHERE, jnp.ones(3)), "the mean must be points of Sphere"),
        (lambda: WrappedNormal(SPHERE, scale=-1.0), "scale must be positive"),
        (lambda: UniformOn(SPHERE).sample(KEY, jnp.arange(3), (2,)), r"have shape \(3,\).*\(2,\)"),
        (lambda: UniformOn(SPHERE).sample(KEY, jnp.arange(3), {"a": (3,)}), "points of Sphere"),
        (lambda: UniformOn(ROUND).sample(KEY, jnp.arange(3), {"place": (3,)}), "points of Product"),
        (lambda: UniformOn(SPHERE).log_prob(jnp.ones((3, 2))), "x must have shape"),
        (
            lambda: WrappedNormal(Simplex(2)).log_prob(jnp.full((3, 3), 1 / 3)),
            "its density is not offered",
        ),
    ],
)
def test_what_is_no_source_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
