"""Couplings by the length of geodesics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from fmjax.couplings import exact, in_groups, partial, sinkhorn, unbalanced
from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.manifolds import SO3, Euclidean, Product, Sphere, Torus, UniformOn, WrappedNormal

KEY = jax.random.key(0)
TORUS = Torus(2)
POSE = Product({"position": Euclidean(3), "rotation": SO3()})
MANIFOLDS = {"sphere": Sphere(2), "torus": TORUS, "so3": SO3(), "pose": POSE}


def points(manifold, seed, n=16):
    source = WrappedNormal(manifold)
    return source.sample(jax.random.key(seed), jnp.arange(n), manifold.shape)


def costs(manifold, x0, x1):
    """Pair by pair, in numpy's order."""
    n = len(jax.tree.leaves(x0)[0])
    each = [
        [manifold.dist(*(jax.tree.map(lambda a, i=i: a[i], x) for x, i in ((x0, i), (x1, j)))) ** 2
         for j in range(n)]
        for i in range(n)
    ]  # fmt: skip
    return np.asarray(each)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_total_squared_length_is_the_least(name):
    manifold = MANIFOLDS[name]
    x0, x1 = points(manifold, 0, 8), points(manifold, 1, 8)
    labels = jnp.arange(8)
    found, same, kept = exact(manifold=manifold)(KEY, x0, x1, labels)
    rows, columns = linear_sum_assignment(costs(manifold, x0, x1))
    best = costs(manifold, x0, x1)[rows, columns].sum()
    np.testing.assert_allclose(jnp.sum(manifold.dist(found, x1) ** 2), best, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, same, x1)
    np.testing.assert_array_equal(kept, labels)


@pytest.mark.slow
def test_neighbours_across_the_jump_of_an_angle_are_neighbours():
    x0 = jnp.asarray([[3.1, 0.0], [0.1, 0.0]])
    x1 = jnp.asarray([[0.0, 0.0], [-3.1, 0.0]])
    found = exact(manifold=TORUS)(KEY, x0, x1)[0]
    np.testing.assert_array_equal(found, x0[::-1])
    straight = exact()(KEY, jnp.asarray([[3.1, 0.0], [-3.0, 0.0]]), x1)[0]
    np.testing.assert_array_equal(straight[0], jnp.asarray([3.1, 0.0]))


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda m: sinkhorn(0.05, manifold=m),
        lambda m: sinkhorn(0.05, "sample", manifold=m),
        lambda m: unbalanced(0.05, 1.0, manifold=m),
        lambda m: partial(0.5, manifold=m),
        lambda m: in_groups(exact(manifold=m), 2),
    ],
)
def test_every_coupling_pairs_a_product_and_shortens_its_geodesics(make):
    x0, x1 = points(POSE, 0), points(POSE, 1)
    before = jnp.mean(POSE.dist(x0, x1) ** 2)
    y0, y1, labels = jax.jit(make(POSE))(KEY, x0, x1, jnp.arange(16))
    assert jnp.mean(POSE.dist(y0, y1) ** 2) < before
    POSE.check("x0", y0)
    np.testing.assert_array_equal(
        y1["position"], x1["position"][labels]
    )  # labels follow their points


@pytest.mark.slow
def test_a_draw_couples_on_the_manifold():
    sphere = Sphere(2)
    x1 = points(sphere, 1)
    plain, paired = (
        Draw(source=UniformOn(sphere), **more)(KEY, jnp.arange(16), x1)
        for more in ({}, {"coupling": exact(manifold=sphere)})
    )
    lengths = [jnp.sum(sphere.dist(args.x0, args.x1) ** 2) for args in (plain, paired)]
    assert lengths[1] < lengths[0]


@pytest.mark.slow
def test_in_flat_space_it_is_the_coupling_without_a_manifold():
    x0, x1 = jax.random.normal(KEY, (2, 12, 3))
    expected = exact()(KEY, x0, x1)[0]
    np.testing.assert_array_equal(exact(manifold=Euclidean(3))(KEY, x0, x1)[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact(manifold=Sphere), "manifold is the class Sphere"),
        (
            lambda: exact(manifold=Sphere(2))(KEY, jnp.ones((2, 3)), jnp.ones((2, 3))),
            "x0 must be p",
        ),
        (lambda: exact(manifold=Sphere(2))(KEY, jnp.ones((2, 2)), jnp.ones((2, 2))), "have shape"),
        (lambda: exact(manifold=POSE)(KEY, *[jnp.ones((2, 3))] * 2), "built as the product is"),
        (lambda: exact()(KEY, points(POSE, 0), points(POSE, 1)), "write manifold=Product"),
        (
            lambda: exact(manifold=Torus(7))(KEY, *[jnp.zeros((8000, 7))] * 2),
            "above the limit",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
