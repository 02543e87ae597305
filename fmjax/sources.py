"""Sources: where a flow starts, the distribution of x0.

==================  ============================================================================
`StandardNormal`    independent standard normal numbers, the default of everything
`UniformBox`        independent uniform numbers between two bounds
`Empirical`         given points, such as the images that another image is made of
`JointSource`       of a pytree, a source for each part
==================  ============================================================================

A source draws example i from ``fold_in(key, i)``, so that it gives the same points on any number of
devices. One of your own is a frozen dataclass with the two methods of `Source`; those on manifolds
are `fmjax.manifolds.UniformOn` and `fmjax.manifolds.WrappedNormal`.

A velocity tells the score, and so allows sampling with noise, only where x0 is standard normal and
independent of x1.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.array_checks import check_floats, check_returned
from fmjax.checks import check_finite_number
from fmjax.conventions import Array, example_keys, per_example_sum
from fmjax.errors import InputError

Shape = Any
"""The shape of one example, a tuple of numbers; or a pytree of such tuples."""


class Law(Protocol):
    """Something random that each example has one of."""

    def sample(self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape) -> Any:
        """Draws for the examples at the places `index` (batch,) of the global batch.

        Args:
            key: one for all; example i is keyed by ``fold_in(key, i)``.
            index: places in the global batch, int (batch,).
            shape: the shape of one example.

        Returns:
            An array (batch, *shape), or a pytree of them where the shape is one; noise of a loss
            may have another shape, (batch, ...).
        """


NO_NOISE: Mapping[str, Law] = MappingProxyType({})
"""The noise of a path or a loss that takes none."""


class Source(Law, Protocol):
    """A distribution of x0."""

    def log_prob(self, x: Any) -> Float[Array, " batch"]:
        """The log-density in nats (batch,) of points (batch, ...), or of a pytree of them."""


def example_shape(x: Any) -> Shape:
    """The shape of one example of a batch, or of a pytree of batches."""
    return jax.tree.map(lambda leaf: tuple(jnp.shape(leaf)[1:]), x)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(isinstance(size, int) and size >= 0 for size in shape)


def _for_each_shape(
    draw: Callable[[PRNGKeyArray, tuple[int, ...]], Array], key: PRNGKeyArray, shape: Shape
):
    """``draw(key, shape)``; of a pytree of shapes each by itself, with a key of its own."""
    if _is_shape(shape):
        return draw(key, shape)
    shapes, tree = jax.tree.flatten(shape, is_leaf=_is_shape)
    if not shapes or not all(map(_is_shape, shapes)):
        raise InputError(
            "shape must be a tuple of whole numbers of at least 0, or a pytree of such tuples; got "
            f"{shape!r:.60}."
        )
    parts = [draw(jax.random.fold_in(key, i), one) for i, one in enumerate(shapes)]
    return jax.tree.unflatten(tree, parts)


@dataclass(frozen=True)
class StandardNormal:
    """Independent standard normal numbers, N(0, I).

    Example:
        >>> x0 = StandardNormal().sample(jax.random.key(0), jnp.arange(4), (8, 8, 1))
        >>> x0.shape
        (4, 8, 8, 1)
    """

    def sample(self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape) -> Any:
        """Points (batch, *shape), float32; see `Law.sample`."""

        def draw(key, shape):
            return jax.vmap(lambda k: jax.random.normal(k, shape))(example_keys(key, index))

        return _for_each_shape(draw, key, shape)

    def log_prob(self, x: Any) -> Float[Array, " batch"]:
        """log N(x; 0, I) in nats (batch,), of an array (batch, ...) or a pytree of them.

        Raises:
            InputError: x is not of floats.
        """
        for leaf in jax.tree.leaves(x) or [x]:
            check_floats("x", leaf)
        parts = [-0.5 * (leaf**2 + math.log(2 * math.pi)) for leaf in jax.tree.leaves(x)]
        return sum(map(per_example_sum, parts))  # type: ignore[return-value]  # there is one at least


@dataclass(frozen=True)
class UniformBox:
    """Independent numbers, uniform on [low, high).

    Args:
        low: the lower bound.
        high: the upper bound, above it.

    Raises:
        InputError: a bound is not finite, or high is not above low.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self):
        check_finite_number("low", self.low)
        check_finite_number("high", self.high)
        if self.low >= self.high:
            raise InputError(f"high must be above low; got low={self.low} and high={self.high}.")

    def sample(self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape) -> Any:
        """Points (batch, *shape), float32; see `Law.sample`."""

        def draw(key, shape):
            def one(k):
                return jax.random.uniform(k, shape, minval=self.low, maxval=self.high)

            return jax.vmap(one)(example_keys(key, index))

        return _for_each_shape(draw, key, shape)

    def log_prob(self, x: Any) -> Float[Array, " batch"]:
        """-d log(high - low) in nats (batch,), and -infinity outside of the box."""

        def one(leaf):
            inside = (leaf >= self.low) & (leaf <= self.high)
            return per_example_sum(jnp.where(inside, -math.log(self.high - self.low), -jnp.inf))

        return sum(one(leaf) for leaf in jax.tree.leaves(x))


@dataclass(frozen=True, eq=False)
class Empirical:
    """Given points, each as likely as any other: a source that is data.

    Args:
        points: (n, ...), or a pytree of such arrays, at least one of them.

    Raises:
        InputError: there are no points, or the arrays differ in their number.
    """

    points: Any

    def __post_init__(self):
        sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(self.points)}
        if len(sizes) != 1 or sizes in ({()}, {(0,)}):
            raise InputError(
                "the points of a source must be arrays (n, ...) of one n, at least 1; got "
                f"{[jnp.shape(leaf) for leaf in jax.tree.leaves(self.points)]}."
            )

    def sample(self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape) -> Any:
        """Points drawn with replacement (batch, *shape); see `Law.sample`.

        Raises:
            InputError: the points have another shape.
        """
        if example_shape(self.points) != shape:
            raise InputError(
                f"the points of this source have shape {example_shape(self.points)}, and "
                f"{shape} is needed, the shape of the data."
            )
        n = len(jax.tree.leaves(self.points)[0])
        rows = jax.vmap(lambda k: jax.random.randint(k, (), 0, n))(example_keys(key, index))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], self.points)

    def log_prob(self, x: Any) -> Float[Array, " batch"]:
        """Refused: points have no density.

        Raises:
            InputError: always.
        """
        raise InputError(
            "a source that is data has no density, so that its flow has no likelihood; train from "
            "StandardNormal() for one."
        )


@dataclass(frozen=True, eq=False)
class JointSource:
    """A source for each part of a pytree, independent of each other.

    Args:
        sources: a dictionary, or another pytree, of sources, built as x0.

    Example:
        >>> source = JointSource({"position": StandardNormal(), "angle": UniformBox(-3.0, 3.0)})
        >>> x0 = source.sample(jax.random.key(0), jnp.arange(2), {"position": (3,), "angle": (1,)})
    """

    sources: Any

    def sample(self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape) -> Any:
        """A pytree of points; see `Law.sample`."""
        return self._each(
            lambda i, source, part: source.sample(jax.random.fold_in(key, i), index, part), shape
        )

    def log_prob(self, x: Any) -> Float[Array, " batch"]:
        """The sum of the log-densities of the parts, in nats (batch,)."""
        return sum(jax.tree.leaves(self._each(lambda i, source, part: source.log_prob(part), x)))

    def _each(self, f: Callable, parts: Any) -> Any:
        sources, tree = jax.tree.flatten(self.sources)
        try:
            found = tree.flatten_up_to(parts)
        except ValueError as error:
            raise InputError(f"x must be built as the sources are, {tree}: {error}.") from error
        pairs = enumerate(zip(sources, found, strict=True))
        return jax.tree.unflatten(tree, [f(i, source, part) for i, (source, part) in pairs])


STANDARD_NORMAL = StandardNormal()


def draw_source(
    source: Source, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape
) -> Any:
    """Points of a source, checked to be of the shape that was asked for.

    Args:
        source: whose.
        key: as in `Law.sample`.
        index: as in `Law.sample`.
        shape: as in `Law.sample`.

    Raises:
        InputError: the source gives another shape, or neither floats nor tokens (int32).
    """
    x0 = source.sample(key, index, shape)
    batch = jnp.shape(index)
    wanted = jax.tree.map(
        lambda one: jax.ShapeDtypeStruct(batch + one, jnp.float32), shape, is_leaf=_is_shape
    )
    # A path of floats refuses tokens, and one of tokens floats; both are right here.
    as_drawn = jax.tree.map(lambda x: jnp.zeros_like(x, jnp.float32) if _is_tokens(x) else x, x0)
    check_returned(f"sample of {type(source).__name__}", as_drawn, "the data", wanted)
    return x0


def _is_tokens(x: Any) -> bool:
    return getattr(x, "dtype", None) == jnp.int32
