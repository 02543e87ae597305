"""Manifolds: the spaces that points live in, where plus and minus become exp and log.

==================  ============================================================================
`Euclidean`         R^n, or arrays of any shape
`Sphere`            unit vectors of R^(n+1)
`Torus`             n angles in radians
`SO3`               rotations, as matrices (3, 3); the distance is the angle
`Hyperbolic`        the Poincare ball of curvature -1
`SPD`               symmetric positive definite matrices, with the affine-invariant metric
`Simplex`           n + 1 probabilities, with the Fisher metric
`Product`           a manifold for each part of a pytree
`FlatProduct`       a manifold for each slice of one array (..., size)
`Manifold`          what each of them has
`UniformOn`         a source: the uniform distribution on a compact manifold
`WrappedNormal`     a source: a normal distribution carried over from a tangent space
`in_tangent_space`  a network that gives tangent vectors
`in_ambient_space`  a network that sees angles as cosines and sines
`manifold_by_name`  one of these by its name and the count of its numbers
==================  ============================================================================

A manifold is a frozen dataclass of pure functions of arrays. Points are (..., *shape) with any
leading axes, and a result has the leading axes of its arguments. Values and first derivatives are
finite in float32 at every point and every pair of points, also where the geodesic between them is
not unique: each class says which one it takes there. The derivative of a distance is 0 where the
distance has none, at coincident points and at the farthest ones.
"""

from fmjax.manifolds.base import Manifold
from fmjax.manifolds.by_name import manifold_by_name
from fmjax.manifolds.flat import Euclidean, Torus
from fmjax.manifolds.hyperbolic import Hyperbolic
from fmjax.manifolds.positive import SPD
from fmjax.manifolds.product import FlatProduct, Product
from fmjax.manifolds.rotations import SO3
from fmjax.manifolds.simplex import Simplex
from fmjax.manifolds.sources import UniformOn, WrappedNormal
from fmjax.manifolds.sphere import Sphere
from fmjax.manifolds.velocities import in_ambient_space, in_tangent_space

__all__ = [
    "SO3",
    "SPD",
    "Euclidean",
    "FlatProduct",
    "Hyperbolic",
    "Manifold",
    "Product",
    "Simplex",
    "Sphere",
    "Torus",
    "UniformOn",
    "WrappedNormal",
    "in_ambient_space",
    "in_tangent_space",
    "manifold_by_name",
]
