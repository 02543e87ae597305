"""What manifolds refuse, and the rules where a geodesic is not unique."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
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

KEY = jax.random.key(0)
POSE = Product({"position": Euclidean(3), "rotation": SO3()})
E = jnp.eye(3)
UNIT = E[:1]

OFF = [
    (Sphere(2), 1.5 * UNIT, "unit vectors; got points off by up to 0.5. Write manifold.project"),
    (Torus(2), jnp.asarray([[180.0, 0.0]]), "angles in radians.*off by up to 174.*jnp.deg2rad"),
    (SO3(), -E[None], "orthogonal matrices of determinant 1; got points off by up to 2"),
    (SO3(), 1.1 * E[None], "got points off by up to 0.331"),
    (Hyperbolic(2), jnp.asarray([[0.0, 1.25]]), "inside of the unit ball; got.*off by up to 0.25"),
    (SPD(3), -E[None], "symmetric positive definite matrices; got points off by up to 2"),
    (SPD(2), jnp.asarray([[[1.0, 1.0], [1.0, 1.0]]]), "positive definite matrices; got points off"),
    (SPD(2), jnp.asarray([[[1.0, 0.5], [0.0, 1.0]]]), "off by up to 0.5"),
    (Simplex(2), jnp.asarray([[0.5, 0.5, 0.5]]), "probabilities that sum to 1.*off by up to 0.5"),
    (Simplex(1), jnp.asarray([[1.25, -0.25]]), "off by up to 0.25"),
    (Sphere(2), jnp.nan * UNIT, "x must be finite"),
    (POSE, {"position": UNIT, "rotation": 2 * E[None]}, r"x\['rotation'\] must be points of SO3"),
    (FlatProduct((Sphere(2), Torus(1))), jnp.ones((1, 4)), r"manifold.split\(x\)\[0\] must be"),
]


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(("manifold", "x", "sentence"), OFF)
def test_points_off_the_manifold(manifold, x, sentence):
    with pytest.raises(InputError, match=sentence):
        manifold.check("x", x)
    if "finite" not in sentence:
        manifold.check("x", manifold.project(x))


WRONG = [
    (lambda: Sphere(2).exp(E[:, :2], E[:, :2]), r"x must have shape \(..., 3\), points of Sphere"),
    (lambda: Sphere(2).log(E, E[:1]), "y must be shaped as x"),
    (lambda: SO3().dist(jnp.arange(9).reshape(3, 3), E), "x must be of floats; got int32"),
    (lambda: Sphere(2).tangent(E, E), r"coordinates must have shape \(3, 2\)"),
    (lambda: POSE.log({"position": UNIT}, {"position": UNIT}), "x must be built as the product is"),
    (lambda: POSE.check("x", UNIT), "x must be built as the product is"),
    (
        lambda: POSE.project({"position": E, "rotation": E[None]}),
        "the parts of x must have the same leading axes",
    ),
    (lambda: FlatProduct((POSE,)), "FlatProduct takes no Product"),
    (lambda: FlatProduct([SO3()]), "must be a tuple of manifolds"),
    (lambda: Product({}), "needs at least one manifold"),
    (lambda: Product({"a": Sphere}), "is the class Sphere"),
    (lambda: Sphere(0), "n of Sphere must be a whole number of at least 1"),
    (lambda: Torus(0.5), "n of Torus"),
    (lambda: Hyperbolic(-1), "n of Hyperbolic"),
    (lambda: SPD("a"), "n of SPD"),
    (lambda: Simplex(True), "n of Simplex"),
    (lambda: Euclidean((2, 0)), "the size of Euclidean"),
    (lambda: Euclidean(3).uniform(KEY, (2,)), "infinite volume, and so no uniform distribution"),
    (lambda: Hyperbolic(2).uniform_log_prob(jnp.zeros(2)), "write manifold.wrapped_normal"),
    (lambda: POSE.uniform(KEY), "infinite volume"),
    (lambda: Sphere(2).uniform(KEY, 3), "shape must be a tuple"),
    (lambda: Sphere(2).uniform(0, (3,)), "key must be"),
    (lambda: Sphere(2).wrapped_normal(KEY, UNIT, -1.0), "scale must be positive"),
    (lambda: Sphere(2).wrapped_normal(KEY, E, jnp.ones(2)), "scale must be a number or have"),
    (lambda: Simplex(2).wrapped_normal_log_prob(E, E), "reflected at its boundary"),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG)
def test_wrong_arguments(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def test_a_traced_program_is_checked_for_shapes_alone():
    jax.jit(lambda x: Sphere(2).check("x", x))(2 * UNIT)
    with pytest.raises(InputError, match="x must have shape"):
        jax.jit(lambda x: Sphere(2).check("x", x))(jnp.ones((1, 2)))


@pytest.mark.slow
def test_antipodal_points_have_a_rule():
    x = jnp.concatenate([E, Sphere(2).project(jnp.asarray([[0.3, -2.0, 1.0]]))])
    u = Sphere(2).log(x, -x)
    np.testing.assert_allclose(jnp.linalg.norm(u, axis=-1), math.pi, rtol=1e-6)
    np.testing.assert_allclose(Sphere(2).exp(x, u), -x, atol=1e-6)
    first = Sphere(2).tangent(x, jnp.broadcast_to(jnp.asarray([math.pi, 0.0]), (4, 2)))
    np.testing.assert_allclose(u, first, atol=1e-6)
    np.testing.assert_allclose(Sphere(2).dist(x, -x), math.pi, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [[1.0, 0, 0], [-0.6, 0.8, 0], [0.1, -0.2, -0.9]])
def test_half_a_turn_takes_the_axis_whose_largest_element_is_positive(axis):
    axis = Sphere(2).project(jnp.asarray(axis))
    turn = 2 * jnp.outer(axis, axis) - E
    largest = axis[jnp.argmax(jnp.abs(axis))]
    expected = SO3().tangent(E, math.pi * axis * jnp.sign(largest))
    np.testing.assert_allclose(SO3().log(E, turn), expected, atol=1e-5)
    assert float(SO3().dist(E, turn)) == pytest.approx(math.pi, rel=1e-6)


def test_half_a_turn_of_an_angle_goes_as_the_numbers_stand():
    found = Torus(2).log(jnp.asarray([0.0, math.pi]), jnp.asarray([math.pi, 0.0]))
    np.testing.assert_allclose(found, [math.pi, -math.pi], rtol=1e-6)


def test_a_geodesic_of_the_simplex_is_reflected_at_the_boundary():
    x = jnp.asarray([0.5, 0.5])
    u = Simplex(1).tangent(x, jnp.asarray([2.0]))
    inside, end = Simplex(1).exp(x, 0.5 * u), Simplex(1).exp(x, u)
    Simplex(1).check("end", end)
    assert float(jnp.min(inside)) > 0
    assert float(Simplex(1).dist(x, end)) < 2
