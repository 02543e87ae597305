"""What every manifold is, and what is the same on all of them."""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, Real

from fmjax.array_checks import as_floats, check_finite, is_concrete, shape_of
from fmjax.checks import check_at_least
from fmjax.conventions import Array, check_key
from fmjax.errors import InputError
from fmjax.manifolds import even

Shape = Any
"""The shape of one point, a tuple of whole numbers; of a product, a pytree of such tuples."""

TOLERANCE = 1e-4
"""How far off a manifold points may be that `Manifold.check` lets pass."""

# On GPUs and TPUs the default product of float32 matrices has the accuracy of a shorter format.
matmul = functools.partial(jnp.matmul, precision="highest")


def dot(u: Float[Array, "... n"], v: Float[Array, "... n"]) -> Float[Array, "..."]:
    """The sum of products over the last axis, (..., n) -> (...)."""
    return jnp.sum(u * v, axis=-1)


def eps_of(x: Float[Array, "..."]) -> float:
    """The distance of 1 to the next number, in the precision of x."""
    return float(jnp.finfo(x.dtype).eps)


class Manifold(ABC):
    """A Riemannian manifold whose points are arrays.

    A subclass gives `shape`, `dim`, `volume`, `origin` and the functions that begin with an
    underscore; those get floats in float32 or wider, of the right shape. Tangent vectors at x have
    the shape of x. Densities are with respect to the Riemannian volume.
    """

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """The shape of one point."""

    @property
    def ambient_shape(self) -> tuple[int, ...]:
        """The shape of one point in the space around; see `ambient`."""
        return self.shape

    @property
    @abstractmethod
    def dim(self) -> int:
        """The dimension of the manifold."""

    @property
    @abstractmethod
    def volume(self) -> float:
        """The Riemannian volume; infinite where the manifold is not compact."""

    @property
    @abstractmethod
    def origin(self) -> Any:
        """One point, of shape `shape`: 0, the last unit vector, the identity, equal chances."""

    def exp(self, x: Any, u: Any) -> Any:
        """The end of the geodesic from x with the initial velocity u, at time 1.

        Args:
            x: points (..., *shape).
            u: tangent vectors at x, shaped as x.

        Returns:
            Points shaped as x.

        Raises:
            InputError: the arrays are no floats, or have another shape.
        """
        return self._exp(*self._floats(x=x, u=u))

    def log(self, x: Any, y: Any) -> Any:
        """The initial velocity of the shortest geodesic from x to y, the inverse of `exp`.

        Args:
            x: points (..., *shape).
            y: points shaped as x.

        Returns:
            Tangent vectors at x, shaped as x. Where there are several shortest geodesics, the class
            of the manifold says which it is.

        Raises:
            InputError: as in `exp`.
        """
        return self._log(*self._floats(x=x, y=y))

    def dist(self, x: Any, y: Any) -> Float[Array, "..."]:
        """The length of the shortest geodesic between x and y.

        Args:
            x: points (..., *shape).
            y: points shaped as x.

        Returns:
            Distances (...). The derivative is 0 where there is none: at x = y, and where the
            distance is the largest.

        Raises:
            InputError: as in `exp`.
        """
        return self._dist(*self._floats(x=x, y=y))

    def inner(self, x: Any, u: Any, v: Any) -> Float[Array, "..."]:
        """The metric <u, v> at x.

        Args:
            x: points (..., *shape).
            u: tangent vectors at x, shaped as x.
            v: tangent vectors at x, shaped as x.

        Returns:
            Numbers (...).

        Raises:
            InputError: as in `exp`.
        """
        return self._inner(*self._floats(x=x, u=u, v=v))

    def project(self, x: Any) -> Any:
        """A point of the manifold near x; a point of the manifold stays.

        Args:
            x: any arrays (..., *shape).

        Raises:
            InputError: as in `exp`.
        """
        return self._project(*self._floats(x=x))

    def to_tangent(self, x: Any, u: Any) -> Any:
        """The tangent vector at x nearest to u, orthogonally in the metric.

        Args:
            x: points (..., *shape).
            u: any arrays shaped as x.

        Raises:
            InputError: as in `exp`.
        """
        return self._to_tangent(*self._floats(x=x, u=u))

    def transport(self, x: Any, y: Any, u: Any) -> Any:
        """Parallel transport of u along the geodesic from x to y, the one that `log` takes.

        Args:
            x: points (..., *shape).
            y: points shaped as x.
            u: tangent vectors at x, shaped as x.

        Returns:
            Tangent vectors at y.

        Raises:
            InputError: as in `exp`.
        """
        return self._transport(*self._floats(x=x, y=y, u=u))

    def ambient(self, x: Any) -> Any:
        """Points as a network is to see them: without a seam, in the space around the manifold.

        The angles of a torus as their cosines and sines; all others as they are.

        Args:
            x: points (..., *shape).

        Returns:
            Arrays (..., *ambient_shape).

        Raises:
            InputError: as in `exp`.
        """
        return self._ambient(*self._floats(x=x))

    def tangent(self, x: Any, coordinates: Float[Array, "... {self.dim}"]) -> Any:
        """The tangent vector at x with given coordinates in one orthonormal frame.

        Linear in the coordinates, so that the rows of the identity give the frame.

        Args:
            x: points (..., *shape).
            coordinates: (..., dim), with the leading axes of x.

        Raises:
            InputError: as in `exp`.
        """
        (x,) = self._floats(x=x)
        coordinates = as_floats("coordinates", coordinates)
        wanted = (*self._batch(x), self.dim)
        if coordinates.shape != wanted:
            raise InputError(
                f"coordinates must have shape {wanted}, the leading axes of x and dim; got "
                f"{coordinates.shape}."
            )
        return self._tangent(x, coordinates)

    def log_volume_element(self, x: Any) -> Float[Array, "..."]:
        """log(sqrt(det g)), up to a constant: how much volume the coordinates of x have.

        It is 0 where the metric is that of the arrays, as on the sphere. The Riemannian divergence
        of a velocity u is the trace of its derivative along the tangent space, plus the derivative
        of this in the direction of u.

        Args:
            x: points (..., *shape).

        Returns:
            Numbers (...).

        Raises:
            InputError: as in `exp`.
        """
        return self._log_volume_element(*self._floats(x=x))

    def uniform(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Any:
        """Points drawn uniformly with respect to the Riemannian volume.

        Args:
            key: a random key.
            shape: the shape of the batch.

        Returns:
            Points (*shape, *self.shape), float32.

        Raises:
            InputError: the volume is infinite, the key is none, or the shape is no tuple of whole
                numbers.
        """
        self._check_compact()
        check_key(key)
        if not isinstance(shape, tuple):
            raise InputError(f"shape must be a tuple, such as (8,), of the batch; got {shape!r}.")
        return self._uniform(key, tuple(check_at_least("shape", size, 0) for size in shape))

    def uniform_log_prob(self, x: Any) -> Float[Array, "..."]:
        """The log-density of the uniform distribution, -log(volume) in nats (...).

        Args:
            x: points (..., *shape).

        Raises:
            InputError: as in `exp`, or the volume is infinite.
        """
        self._check_compact()
        (x,) = self._floats(x=x)
        return jnp.full(self._batch(x), -math.log(self.volume), jax.tree.leaves(x)[0].dtype)

    def wrapped_normal(
        self, key: PRNGKeyArray, mean: Any, scale: float | Real[Array, "..."] = 1.0
    ) -> Any:
        """Points exp(mean, scale u), with u standard normal in the tangent space at the mean.

        Args:
            key: a random key.
            mean: points (..., *shape).
            scale: positive, a number or an array (...).

        Returns:
            Points shaped as the mean.

        Raises:
            InputError: as in `exp`, or the key is none.
        """
        check_key(key)
        (mean,) = self._floats(mean=mean)
        batch = self._batch(mean)
        dtype = jax.tree.leaves(mean)[0].dtype
        u = jax.random.normal(key, (*batch, self.dim), dtype)
        return self._exp(mean, self._tangent(mean, u * self._scale(scale, batch, dtype)[..., None]))

    def wrapped_normal_log_prob(
        self, x: Any, mean: Any, scale: float | Real[Array, "..."] = 1.0
    ) -> Float[Array, "..."]:
        """The log-density of `wrapped_normal` in nats.

        On a compact manifold it is a sum over the geodesics from the mean to x: of those that go
        round up to three times, which is exact to float32 for scales up to 3.

        Args:
            x: points (..., *shape).
            mean: points shaped as x.
            scale: positive, a number or an array (...).

        Returns:
            Log-densities (...).

        Raises:
            InputError: as in `exp`, or a geodesic ends at a boundary, as on the simplex.
        """
        x, mean = self._floats(x=x, mean=mean)
        dtype = jax.tree.leaves(x)[0].dtype
        return self._wrapped_normal_log_prob(x, mean, self._scale(scale, self._batch(x), dtype))

    def check(self, what: str, x: Any) -> None:
        """Checks points, outside of a traced program; in one, their shape alone.

        Args:
            what: the points, as the message names them.
            x: points (..., *shape).

        Raises:
            InputError: they are no floats, have another shape, are not finite, or are off the
                manifold by more than 1e-4; the message says by how much.
        """
        (x,) = self._floats(**{what: x})
        leaves = jax.tree.leaves(x)
        if not all(is_concrete(leaf) and leaf.size for leaf in leaves):
            return
        check_finite(what, jax.tree.map(jnp.atleast_1d, x))
        with jax.ensure_compile_time_eval():
            off = float(jnp.max(self._off(x)))
        if off > TOLERANCE:
            raise InputError(
                f"{what} must be points of {self}, {self._of}; got points off by up to {off:.3g}. "
                f"{self._advice(what)}"
            )

    # What a message says of the points, and what to do about wrong ones.
    _of = "its points"

    def _advice(self, what: str) -> str:
        return f"Write manifold.project({what}) if that is what you mean."

    def _floats(self, **arrays: Any) -> tuple[Any, ...]:
        """The arguments as floats, of the shape of points and of one shape."""
        found: list[Array] = []
        for name, value in arrays.items():
            value = as_floats(name, value)
            size = len(self.shape)
            lead = shape_of(name, value)[: value.ndim - size]
            if value.ndim < size or value.shape[value.ndim - size :] != self.shape:
                wanted = ", ".join(("...", *map(str, self.shape)))
                raise InputError(
                    f"{name} must have shape ({wanted}), points of {self} or vectors there; got "
                    f"{value.shape}."
                )
            if found and lead != found[0].shape[: found[0].ndim - size]:
                first = next(iter(arrays))
                raise InputError(
                    f"{name} must be shaped as {first}, {found[0].shape}; got {value.shape}."
                )
            found.append(value)
        return tuple(found)

    def _batch(self, x: Any) -> tuple[int, ...]:
        """The leading axes of points."""
        return x.shape[: x.ndim - len(self.shape)]

    def _scale(self, scale: Any, batch: tuple[int, ...], dtype: Any) -> Array:
        scale = jnp.asarray(as_floats("scale", scale), dtype)
        if scale.shape not in ((), batch):
            raise InputError(f"scale must be a number or have shape {batch}; got {scale.shape}.")
        if is_concrete(scale) and scale.size and not bool(jnp.all(scale > 0)):
            raise InputError(f"scale must be positive; got {float(jnp.min(scale)):g}.")
        return jnp.broadcast_to(scale, batch)

    def _check_compact(self) -> None:
        if math.isinf(self.volume):
            raise InputError(
                f"{self} has an infinite volume, and so no uniform distribution; write "
                "manifold.wrapped_normal(key, mean, scale)."
            )

    def _dist(self, x: Any, y: Any) -> Array:
        u = self._log(x, y)
        return even.root(self._inner(x, u, u))

    def _wrapped_normal_log_prob(self, x: Any, mean: Any, scale: Array) -> Array:
        """With one geodesic between any two points; see `_log_det_exp`."""
        u = self._log(mean, x)
        square = self._inner(mean, u, u)
        return normal_log_prob(square, scale, self.dim) - self._log_det_exp(mean, u)

    def _log_volume_element(self, x: Any) -> Array:
        return jnp.zeros(self._batch(x), jax.tree.leaves(x)[0].dtype)

    def _ambient(self, x: Any) -> Any:
        return x

    def _pull_back(self, x: Any, w: Any) -> Any:
        """The vector at x of a vector in the space around, by the transpose of its derivative."""
        return w

    def _from_ambient(self, w: Any) -> Any:
        """Numbers shaped as points, of a point in the space around; `project` does the rest."""
        return w

    def _log_det_exp(self, x: Any, u: Any) -> Array:
        """The log-determinant (...) of the derivative of u -> exp(x, u), in orthonormal frames."""
        raise NotImplementedError

    @abstractmethod
    def _exp(self, x: Any, u: Any) -> Any: ...

    @abstractmethod
    def _log(self, x: Any, y: Any) -> Any: ...

    @abstractmethod
    def _inner(self, x: Any, u: Any, v: Any) -> Array: ...

    @abstractmethod
    def _project(self, x: Any) -> Any: ...

    @abstractmethod
    def _to_tangent(self, x: Any, u: Any) -> Any: ...

    @abstractmethod
    def _transport(self, x: Any, y: Any, u: Any) -> Any: ...

    @abstractmethod
    def _tangent(self, x: Any, coordinates: Array) -> Any: ...

    @abstractmethod
    def _off(self, x: Any) -> Array:
        """How far off the manifold x is: the largest violation of its equations."""

    def _uniform(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class OfDimension(Manifold):
    """A manifold that is chosen by its dimension, whose points are n numbers unless it says else.

    Args:
        n: the dimension.

    Raises:
        InputError: n is no whole number of at least 1.
    """

    n: int

    def __post_init__(self):
        check_at_least(f"n of {type(self).__name__}", self.n)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,)."""
        return (self.n,)

    @property
    def dim(self) -> int:
        """The dimension, n."""
        return self.n


def normal_log_prob(
    square: Float[Array, "..."], scale: Float[Array, "..."], dim: int
) -> Float[Array, "..."]:
    """log N(u; 0, scale^2 I) of |u|^2 in `dim` dimensions."""
    return -0.5 * square / jnp.square(scale) - dim * (jnp.log(scale) + 0.5 * math.log(2 * math.pi))


def windings(distance: Float[Array, "*batch"]) -> Float[Array, "*batch 7"]:
    """distance + 2 pi k for k = -3 ... 3, with a new last axis (..., 7)."""
    return distance[..., None] + 2 * math.pi * jnp.arange(-3.0, 4.0, dtype=distance.dtype).reshape(
        (1,) * distance.ndim + (-1,)
    )


def round_log_prob(
    distance: Float[Array, "*batch"], scale: Float[Array, "..."], dim: int, radius: float
) -> Float[Array, "*batch"]:
    """The log-density of a wrapped normal at a distance from its mean, on a sphere of a radius.

    The geodesics that go round end there too, each stretched by (r / (R sin(r / R)))^(dim - 1). For
    dim > 1 the density is infinite where the sine is 0; the sine counts as at least sqrt(eps).
    """
    r = windings(distance)
    floor = math.sqrt(eps_of(distance))
    density = normal_log_prob(jnp.square(r), scale[..., None], dim)
    stretch = (dim - 1) * even.log_sin_over(jnp.square(r / radius), floor)
    return jax.nn.logsumexp(density - stretch, axis=-1)
