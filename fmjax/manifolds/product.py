"""Products of manifolds: over the parts of a pytree, or over slices of one array."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_methods
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.manifolds import even
from fmjax.manifolds.base import Manifold


def _is_manifold(value: Any) -> bool:
    return isinstance(value, Manifold)


@dataclass(frozen=True, eq=False)
class Product(Manifold):
    """A manifold for each part of a pytree, with the sum of their metrics.

    A geodesic is a geodesic in each part, and a squared distance the sum of the parts' own.

    Args:
        parts: a dictionary, or another pytree, of manifolds, built as the points are.

    Raises:
        InputError: there are none, or one is no manifold.

    Example:
        >>> from fmjax.manifolds import SO3, Euclidean
        >>> pose = Product({"position": Euclidean(3), "rotation": SO3()})
        >>> pose.dim
        6
    """

    parts: Any

    def __post_init__(self):
        found = self._manifolds
        if not found:
            raise InputError("Product needs at least one manifold; got none.")
        for part in found:
            check_methods("a part of Product", part, "exp", "log", such_as="Sphere(2)")

    @property
    def _manifolds(self) -> list[Any]:
        return jax.tree.leaves(self.parts, is_leaf=_is_manifold)

    @property
    def _tree(self) -> Any:
        return jax.tree.structure(self.parts, is_leaf=_is_manifold)

    @property
    def shape(self) -> Any:
        """A pytree of shapes."""
        return self._tree.unflatten([part.shape for part in self._manifolds])

    @property
    def dim(self) -> int:
        """The sum of the dimensions."""
        return sum(part.dim for part in self._manifolds)

    @property
    def volume(self) -> float:
        """The product of the volumes."""
        return math.prod(part.volume for part in self._manifolds)

    @property
    def origin(self) -> Any:
        """The pytree of the parts' own."""
        return self._tree.unflatten([part.origin for part in self._manifolds])

    def check(self, what: str, x: Any) -> None:
        """Checks each part; see `Manifold.check`."""
        for name, part, value in zip(
            self._names(what), self._manifolds, self._parts(what, x), strict=True
        ):
            part.check(name, value)

    def _names(self, what: str) -> list[str]:
        ways = jax.tree_util.tree_flatten_with_path(self.parts, is_leaf=_is_manifold)[0]
        return [what + jax.tree_util.keystr(way) for way, _ in ways]

    def _parts(self, what: str, x: Any) -> list[Any]:
        try:
            return self._tree.flatten_up_to(x)
        except ValueError as error:
            raise InputError(
                f"{what} must be built as the product is, {self._tree}; got "
                f"{jax.tree.structure(x)}."
            ) from error

    def _floats(self, **arrays: Any) -> tuple[Any, ...]:
        split = {what: self._parts(what, x) for what, x in arrays.items()}
        names = {what: self._names(what) for what in arrays}
        each = [
            part._floats(**{names[what][i]: split[what][i] for what in arrays})
            for i, part in enumerate(self._manifolds)
        ]
        batches = {
            part._batch(values[0]) for part, values in zip(self._manifolds, each, strict=True)
        }
        if len(batches) != 1:
            raise InputError(
                f"the parts of {next(iter(arrays))} must have the same leading axes; got "
                f"{sorted(batches)}."
            )
        return tuple(self._tree.unflatten(values) for values in zip(*each, strict=True))

    def _batch(self, x: Any) -> tuple[int, ...]:
        return self._manifolds[0]._batch(self._tree.flatten_up_to(x)[0])

    def _each(self, f: Callable[..., Any], *trees: Any) -> list[Any]:
        """f(part, values of the part ...) for each part."""
        flat = [self._tree.flatten_up_to(tree) for tree in trees]
        return [f(*values) for values in zip(self._manifolds, *flat, strict=True)]

    def _map(self, f: Callable[..., Any], *trees: Any) -> Any:
        return self._tree.unflatten(self._each(f, *trees))

    def _exp(self, x, u):
        return self._map(lambda part, *values: part._exp(*values), x, u)

    def _log(self, x, y):
        return self._map(lambda part, *values: part._log(*values), x, y)

    def _dist(self, x, y):
        each = self._each(lambda part, *values: part._dist(*values), x, y)
        # The length of a vector of distances, whose derivative is 0 where all are.
        square: Any = sum(jnp.square(one) for one in each)
        return even.root(square)

    def _inner(self, x, u, v):
        return sum(self._each(lambda part, *values: part._inner(*values), x, u, v))

    def _project(self, x):
        return self._map(lambda part, value: part._project(value), x)

    def _to_tangent(self, x, u):
        return self._map(lambda part, *values: part._to_tangent(*values), x, u)

    def _transport(self, x, y, u):
        return self._map(lambda part, *values: part._transport(*values), x, y, u)

    def _tangent(self, x, coordinates):
        return self._map(
            lambda part, value, own: part._tangent(value, own), x, self._split(coordinates)
        )

    def _split(self, coordinates: Array) -> Any:
        ends = [sum(part.dim for part in self._manifolds[:i]) for i in range(1, self._count)]
        return self._tree.unflatten(jnp.split(coordinates, ends, axis=-1))

    @property
    def _count(self) -> int:
        return len(self._manifolds)

    def _uniform(self, key, shape):
        keys = jax.random.split(key, self._count)
        return self._map(
            lambda part, one: part._uniform(one, shape), self._tree.unflatten(list(keys))
        )

    def _log_volume_element(self, x):
        return sum(self._each(lambda part, value: part._log_volume_element(value), x))

    def _wrapped_normal_log_prob(self, x, mean, scale):
        return sum(
            self._each(lambda part, *values: part._wrapped_normal_log_prob(*values, scale), x, mean)
        )

    def _off(self, x):
        return jnp.max(jnp.stack(self._each(lambda part, value: part._off(value), x)), axis=0)


@dataclass(frozen=True)
class FlatProduct(Manifold):
    """A product whose points are one array: the parts, flattened, one after the other.

    Args:
        parts: manifolds, in the order of the slices.

    Raises:
        InputError: there are none, or one is no manifold, or is a product of pytrees.

    Example:
        >>> from fmjax.manifolds import SO3, Euclidean
        >>> pose = FlatProduct((Euclidean(3), SO3()))
        >>> pose.shape
        (12,)
    """

    parts: tuple[Manifold, ...]

    def __post_init__(self):
        if not isinstance(self.parts, tuple):
            raise InputError(
                f"the parts of FlatProduct must be a tuple of manifolds; got {self.parts!r:.60}. "
                "A pytree of them is Product."
            )
        if any(isinstance(part, Product) for part in Product(self.parts)._manifolds):
            raise InputError(
                "FlatProduct takes no Product, whose points are no one array; write FlatProduct."
            )

    @property
    def _product(self) -> Product:
        return Product(self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """(the sum of the sizes of the parts,)."""
        return (sum(math.prod(part.shape) for part in self.parts),)

    @property
    def dim(self) -> int:
        """The sum of the dimensions."""
        return self._product.dim

    @property
    def volume(self) -> float:
        """The product of the volumes."""
        return self._product.volume

    @property
    def origin(self) -> Float[Array, " size"]:
        """The parts' own, one after the other."""
        return self._join(self._product.origin)

    _of = "its parts in slices of the last axis"

    def split(self, x: Float[Array, "... size"]) -> tuple[Float[Array, "..."], ...]:
        """The parts of points (..., size), each (..., *shape of the part)."""
        (x,) = self._floats(x=x)
        return self._split(x)

    def join(self, parts: tuple[Float[Array, "..."], ...]) -> Float[Array, "... size"]:
        """Points (..., size) of their parts; the inverse of `split`."""
        (parts,) = self._product._floats(parts=parts)
        return self._join(parts)

    def _split(self, x: Array) -> tuple[Array, ...]:
        sizes = [math.prod(part.shape) for part in self.parts]
        ends = [sum(sizes[:i]) for i in range(1, len(sizes))]
        pieces = jnp.split(x, ends, axis=-1)
        return tuple(
            piece.reshape(x.shape[:-1] + part.shape)
            for piece, part in zip(pieces, self.parts, strict=True)
        )

    def _join(self, parts: tuple[Array, ...]) -> Array:
        flat = [
            one.reshape((*part._batch(one), math.prod(part.shape)))
            for one, part in zip(parts, self.parts, strict=True)
        ]
        return jnp.concatenate(flat, axis=-1)

    def check(self, what: str, x: Any) -> None:
        """Checks each part; see `Manifold.check`."""
        self._product.check(f"manifold.split({what})", self.split(x))

    def _exp(self, x, u):
        return self._join(self._product._exp(self._split(x), self._split(u)))

    def _log(self, x, y):
        return self._join(self._product._log(self._split(x), self._split(y)))

    def _dist(self, x, y):
        return self._product._dist(self._split(x), self._split(y))

    def _inner(self, x, u, v):
        return self._product._inner(self._split(x), self._split(u), self._split(v))

    def _project(self, x):
        return self._join(self._product._project(self._split(x)))

    def _to_tangent(self, x, u):
        return self._join(self._product._to_tangent(self._split(x), self._split(u)))

    def _transport(self, x, y, u):
        parts = self._product._transport(self._split(x), self._split(y), self._split(u))
        return self._join(parts)

    def _tangent(self, x, coordinates):
        return self._join(self._product._tangent(self._split(x), coordinates))

    def _uniform(self, key, shape):
        return self._join(self._product._uniform(key, shape))

    def _log_volume_element(self, x):
        return self._product._log_volume_element(self._split(x))

    def _wrapped_normal_log_prob(self, x, mean, scale):
        return self._product._wrapped_normal_log_prob(self._split(x), self._split(mean), scale)

    @property
    def ambient_shape(self) -> tuple[int, ...]:
        """(the sum of the sizes of the parts in the space around,)."""
        return (sum(self._ambient_sizes),)

    @property
    def _ambient_sizes(self) -> list[int]:
        return [math.prod(part.ambient_shape) for part in self.parts]

    def _ambient(self, x):
        each = self._each(lambda part, own: part._ambient(own), self._split(x))
        return jnp.concatenate([one.reshape(*x.shape[:-1], -1) for one in each], axis=-1)

    def _pull_back(self, x, w):
        pieces = self._ambient_pieces(w)
        return self._join(
            self._each(lambda part, *own: part._pull_back(*own), self._split(x), pieces)
        )

    def _from_ambient(self, w):
        pieces = self._ambient_pieces(w)
        return self._join(self._each(lambda part, own: part._from_ambient(own), pieces))

    def _each(self, f: Callable[..., Any], *values: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(f(*each) for each in zip(self.parts, *values, strict=True))

    def _ambient_pieces(self, w: Array) -> tuple[Array, ...]:
        sizes = self._ambient_sizes
        ends = [sum(sizes[:i]) for i in range(1, len(sizes))]
        pieces = jnp.split(w, ends, axis=-1)
        return tuple(
            piece.reshape(w.shape[:-1] + part.ambient_shape)
            for piece, part in zip(pieces, self.parts, strict=True)
        )

    def _off(self, x):
        return self._product._off(self._split(x))
