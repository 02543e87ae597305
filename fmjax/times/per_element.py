"""Times of each element: one t for each token, pixel or frame instead of one for each example."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_at_least
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.times.base import TimeDistribution, check_distribution


@dataclass(frozen=True)
class PerElement:
    """Independent times for the elements of an example, each from one distribution.

    Where x1 is (batch, n, d), ``PerElement(Uniform())`` draws t (batch, n); with ``axes=2`` it is
    (batch, n, d). Source of the idea: Chen et al., arXiv:2407.01392 (diffusion forcing).

    Args:
        distribution: of each time.
        axes: how many leading axes of an example have times of their own, at least 1.

    Raises:
        InputError: axes is below 1.
    """

    distribution: TimeDistribution
    axes: int = 1

    def __post_init__(self):
        check_at_least("axes of PerElement", self.axes)
        check_distribution("the distribution", self.distribution)

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """As that of the distribution."""
        return self.distribution.quantile(u)

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """As that of the distribution."""
        return self.distribution.density(t)

    def elements(self, x1: Any) -> tuple[int, ...]:
        """The axes of an example that have times of their own.

        Raises:
            InputError: the examples have fewer axes.
        """
        shape = jnp.shape(x1)[1:]
        if len(shape) < self.axes:
            raise InputError(
                f"PerElement with axes={self.axes} needs examples of as many axes; got {shape}."
            )
        return shape[: self.axes]
