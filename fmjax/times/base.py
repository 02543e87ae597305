"""What every time distribution is, and the strata it may be drawn in."""

from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from fmjax.checks import check_methods, check_positive
from fmjax.conventions import Array, at_least_float32
from fmjax.errors import InputError

Keys = Shaped[Array, "batch ..."]
"""Random keys, one for each example, as ``jax.random.split(key, batch)`` gives them."""


class TimeDistribution(Protocol):
    """A distribution of t on [0, 1]; results have the dtype of the argument, float32 at least."""

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """The time below which a share u of the draws lies; any shape, same shape out."""

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The probability density at t in [0, 1]; any shape, same shape out."""


def check_distribution(what: str, distribution: TimeDistribution) -> None:
    """Checks that something is a time distribution.

    Raises:
        InputError: it is a class, or lacks a method.
    """
    check_methods(what, distribution, "quantile", "density", such_as="times.Uniform()")


def stratified(
    u: Float[Array, " batch"], index: Int[Array, " batch"], n: int
) -> Float[Array, " batch"]:
    """Spreads uniforms over a global batch: example i gets a number in [i / n, (i + 1) / n).

    (index + u) / n, to be fed to a distribution's quantile. Each example needs only its own u and
    position, so the result is the same on any number of devices. Over the batch the mean of f(t)
    has a variance of order n^-3 for smooth f, against n^-1 for independent draws.

    A position always gets the same stratum: where the data at a position is not shuffled from step
    to step, rotate the strata with an offset drawn from the key of the step, ``(index + k) % n``.

    Args:
        u: uniform on [0, 1), (batch,).
        index: positions in the global batch, in 0, ..., n - 1, (batch,).
        n: the size of the global batch.

    Returns:
        Numbers in [0, 1), (batch,); 1 is excluded in float32 too, where n - 1 + u may round to n.

    Raises:
        InputError: n is not positive, or u and index differ in shape.
    """
    check_positive("n", n)
    if jnp.shape(u) != jnp.shape(index):
        raise InputError(
            f"u and index must have one shape, (batch,); got {jnp.shape(u)} and {jnp.shape(index)}."
        )
    u = at_least_float32(u)
    return jnp.minimum((jnp.asarray(index, u.dtype) + u) / n, 1 - float(jnp.finfo(u.dtype).epsneg))
