"""Manifolds by name: the dimension follows from how many numbers a point has."""

import math

import pytest

from fmjax.errors import InputError
from fmjax.manifolds import (
    SO3,
    SPD,
    Euclidean,
    FlatProduct,
    Hyperbolic,
    Simplex,
    Sphere,
    Torus,
    manifold_by_name,
)

FOUND = {
    ("euclidean", 4): Euclidean(4),
    ("sphere", 3): Sphere(2),
    ("sphere", 2): Sphere(1),
    ("torus", 7): Torus(7),
    ("so3", 9): SO3(),
    ("hyperbolic", 2): Hyperbolic(2),
    ("spd", 9): SPD(3),
    ("simplex", 4): Simplex(3),
    ("sphere2", 3): Sphere(2),
    ("so3,euclidean3", 12): FlatProduct((SO3(), Euclidean(3))),
    ("so3,euclidean", 12): FlatProduct((SO3(), Euclidean(3))),
    ("torus2,sphere,spd2", 9): FlatProduct((Torus(2), Sphere(2), SPD(2))),
}


@pytest.mark.parametrize(("asked", "expected"), FOUND.items(), ids=map(str, FOUND))
def test_a_name_and_a_size_make_a_manifold(asked, expected):
    found = manifold_by_name(*asked)
    assert found == expected
    assert math.prod(found.shape) == asked[1]


REFUSED = {
    ("ball", 3): "unknown manifold 'ball'",
    ("spere", 3): "Did you mean 'sphere'",
    ("so4", 16): "unknown manifold 'so4'",
    ("so32", 9): "unknown manifold 'so32'",
    ("sphere0", 1): "unknown manifold 'sphere0'",
    ("", 3): "unknown manifold ''",
    ("so3,", 9): "unknown manifold ''",
    ("so3", 8): "no point of the manifold 'so3' has 8 numbers: so3 has matrices of 9 numbers",
    ("sphere", 1): "no point of the manifold 'sphere' has 1 numbers: sphere has unit vectors of n",
    ("spd", 8): "spd has matrices of n.2 numbers",
    ("sphere3", 3): "no point of the manifold 'sphere3' has 3 numbers",
    ("so3,euclidean3", 9): "no point of .* has 9 numbers: so3 has .*; euclidean has n numbers",
    ("so3,euclidean", 9): "no point of the manifold 'so3,euclidean' has 9 numbers",
    ("torus,sphere", 5): "must have the number of each part but one",
}


@pytest.mark.parametrize(("asked", "message"), REFUSED.items(), ids=map(str, REFUSED))
def test_another_name_or_size_is_refused(asked, message):
    with pytest.raises(InputError, match=message):
        manifold_by_name(*asked)
