"""Densities on manifolds: they integrate to one, and have the volume terms right."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.manifolds import (
    SO3,
    SPD,
    Euclidean,
    FlatProduct,
    Hyperbolic,
    Product,
    Simplex,
    Sphere,
    Torus,
)
from tests.conftest import nightly_but

# The area of the sphere, or of the manifold, at a distance r from a point.
SHELLS = [
    (Sphere(1), math.pi, lambda r: 2 + 0 * r),
    (Sphere(2), math.pi, lambda r: 2 * math.pi * jnp.sin(r)),
    (SO3(), math.pi, lambda r: 16 * math.pi * jnp.square(jnp.sin(r / 2))),
    (Hyperbolic(2), 9.0, lambda r: 2 * math.pi * jnp.sinh(r)),
    (Euclidean(3), 9.0, lambda r: 4 * math.pi * jnp.square(r)),
]


@pytest.mark.day_cases(3)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("manifold", "far", "area"), SHELLS, ids=lambda x: None if callable(x) else repr(x)
)
@pytest.mark.parametrize("scale", [0.3, 1.2])
def test_a_wrapped_normal_integrates_to_one(manifold, far, area, scale):
    n = 4000
    with jax.enable_x64(True):
        r = (jnp.arange(n) + 0.5) * far / n
        mean = jnp.broadcast_to(manifold.origin.astype(float), (n, *manifold.shape))
        along = jnp.zeros((n, manifold.dim)).at[:, 0].set(r)
        x = manifold.exp(mean, manifold.tangent(mean, along))
        density = jnp.exp(manifold.wrapped_normal_log_prob(x, mean, scale))
        total = float(jnp.sum(density * area(r)) * far / n)
        sizes = float(jnp.sum(area(r)) * far / n)
    assert total == pytest.approx(1, abs=1e-4)
    if math.isfinite(manifold.volume):
        assert sizes == pytest.approx(manifold.volume, rel=1e-5)


@pytest.mark.slow
def test_a_wrapped_normal_on_the_torus_integrates_to_one():
    angles = (np.arange(64) + 0.5) * 2 * math.pi / 64 - math.pi
    x = jnp.stack(jnp.meshgrid(angles, angles), axis=-1)
    mean = jnp.broadcast_to(jnp.asarray([3.0, -1.0]), x.shape)
    density = jnp.exp(Torus(2).wrapped_normal_log_prob(x, mean, 1.5))
    assert float(jnp.mean(density)) * Torus(2).volume == pytest.approx(1, abs=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("manifold", nightly_but([Hyperbolic(3), SPD(2)], SPD(2)), ids=repr)
def test_the_volume_term_is_the_determinant_of_the_derivative_of_exp(manifold):
    with jax.enable_x64(True):
        x = manifold.exp(manifold.origin, manifold.tangent(manifold.origin, jnp.full(3, 0.4)))
        c = jnp.asarray([0.7, -0.4, 1.1])

        def end(c):
            return manifold.exp(x, manifold.tangent(x, c))

        y, moves = end(c), jnp.moveaxis(jax.jacfwd(end)(c), -1, 0)
        rows = jax.vmap(lambda row: manifold.tangent(y, row))(jnp.eye(3))
        matrix = jax.vmap(lambda a: jax.vmap(lambda b: manifold.inner(y, a, b))(rows))(moves)
        expected = float(jnp.linalg.slogdet(matrix)[1])
        square = jnp.sum(jnp.square(c))
        normal = -0.5 * float(square) - 1.5 * math.log(2 * math.pi)
        found = float(manifold.wrapped_normal_log_prob(y, x, 1.0))
    assert found == pytest.approx(normal - expected, abs=1e-9)
    assert expected > 0.01


@pytest.mark.slow
def test_uniform_points_of_the_simplex_are_dirichlet_one_half():
    p = np.asarray(Simplex(2).uniform(jax.random.key(0), (20_000,)))
    assert p.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert p.var(axis=0) == pytest.approx([(1 / 3) * (2 / 3) / 2.5] * 3, abs=0.005)


@pytest.mark.slow
def test_uniform_rotations_have_the_angles_of_the_volume():
    """The mean of the angle is pi / 2 + 2 / pi under the density (1 - cos) / pi."""
    x = SO3().uniform(jax.random.key(1), (20_000,))
    angle = SO3().dist(x, jnp.broadcast_to(jnp.eye(3), x.shape))
    assert float(jnp.mean(angle)) == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)


@pytest.mark.slow
def test_the_density_of_a_product_is_the_product():
    parts = (Sphere(2), Torus(1))
    product, flat = Product(parts), FlatProduct(parts)
    x, mean = (product.uniform(jax.random.key(i), (4,)) for i in range(2))
    expected = sum(
        part.wrapped_normal_log_prob(*pair, 0.7)
        for part, pair in zip(parts, zip(x, mean, strict=True), strict=True)
    )
    found = product.wrapped_normal_log_prob(x, mean, 0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    joined = flat.wrapped_normal_log_prob(flat.join(x), flat.join(mean), 0.7)
    np.testing.assert_allclose(joined, expected, rtol=1e-6)
    uniform = sum(part.uniform_log_prob(one) for part, one in zip(parts, x, strict=True))
    np.testing.assert_allclose(product.uniform_log_prob(x), uniform, rtol=1e-6)
