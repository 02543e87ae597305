"""Sources on manifolds: where a flow starts; `fmjax.sources` says what a source is."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.checks import check_methods
from fmjax.conventions import Array, example_keys, per_example_sum
from fmjax.errors import InputError
from fmjax.manifolds.base import Manifold, Shape


@dataclass(frozen=True)
class UniformOn:
    """The uniform distribution with respect to the Riemannian volume of a compact manifold.

    Args:
        manifold: where; of finite volume.

    Raises:
        InputError: the manifold is none, or its volume is infinite.

    Example:
        >>> from fmjax.manifolds import Sphere
        >>> x0 = UniformOn(Sphere(2)).sample(jax.random.key(0), jnp.arange(4), (3,))
        >>> x0.shape
        (4, 3)
    """

    manifold: Manifold

    def __post_init__(self):
        check_methods("the manifold", self.manifold, "uniform", such_as="manifolds.Sphere(2)")
        self.manifold._check_compact()

    def sample(self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape) -> Any:
        """Points (batch, *shape), float32; see `fmjax.sources.Law.sample`.

        Raises:
            InputError: the shape is not that of a point of the manifold, or of several.
        """
        lead = _leading(self.manifold, shape)
        return jax.vmap(lambda k: self.manifold.uniform(k, lead))(example_keys(key, index))

    def log_prob(self, x: Any) -> Float[Array, " batch"]:
        """-log(volume) in nats (batch,), summed over the points of an example.

        Raises:
            InputError: x has another shape than points of the manifold.
        """
        return per_example_sum(self.manifold.uniform_log_prob(x))


@dataclass(frozen=True, eq=False)
class WrappedNormal:
    """exp(mean, scale u), with u standard normal in the tangent space at the mean.

    Args:
        manifold: where.
        mean: a point of it; its origin if None.
        scale: positive; of a large one on a compact manifold see `Manifold.wrapped_normal`.

    Raises:
        InputError: the manifold is none, the mean is off it, or the scale is not positive.
    """

    manifold: Manifold
    mean: Any = None
    scale: float = 1.0

    def __post_init__(self):
        check_methods("the manifold", self.manifold, "wrapped_normal", such_as="Sphere(2)")
        if self.mean is not None:
            self.manifold.check("the mean", self.mean)
        self.manifold._scale(self.scale, (), jnp.float32)

    def sample(self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape) -> Any:
        """Points (batch, *shape), float32; see `fmjax.sources.Law.sample`.

        Raises:
            InputError: the shape is not that of a point of the manifold, or of several.
        """
        mean = self._means(_leading(self.manifold, shape))

        def one(k):
            return self.manifold.wrapped_normal(k, mean, self.scale)

        return jax.vmap(one)(example_keys(key, index))

    def log_prob(self, x: Any) -> Float[Array, " batch"]:
        """The log-density in nats (batch,), summed over the points of an example.

        Raises:
            InputError: x has another shape than points of the manifold, or the manifold has no such
                density, as the simplex.
        """
        shape = jax.tree.map(jnp.shape, x)
        mean = self._means(_leading(self.manifold, shape))
        return per_example_sum(self.manifold.wrapped_normal_log_prob(x, mean, self.scale))

    def _means(self, lead: tuple[int, ...]) -> Any:
        mean = self.manifold.origin if self.mean is None else self.mean
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, lead + jnp.shape(leaf)), mean)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, int) for size in value)


def _leading(manifold: Manifold, shape: Shape) -> tuple[int, ...]:
    """The leading axes of points, from their shape; checked to be points of the manifold."""
    wanted, tree = jax.tree.flatten(manifold.shape, is_leaf=_is_shape)
    found, built = jax.tree.flatten(shape, is_leaf=_is_shape)
    pairs = [(one, one[: len(one) - len(of)], of) for one, of in zip(found, wanted, strict=False)]
    leads = {lead for _, lead, _ in pairs}
    fits = built == tree and all(one == lead + of for one, lead, of in pairs)
    if not fits or len(leads) != 1:
        raise InputError(
            f"points of {manifold} have shape {manifold.shape}, after any leading axes; the data "
            f"has {shape}."
        )
    return leads.pop()
