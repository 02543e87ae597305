"""Inversion: the x at which an increasing function takes a given value."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Real

from fmjax.conventions import Array, at_least_float32


def invert_increasing(
    f: Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]],
    y: Real[Array, "*shape"],
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Array, "*shape"]:
    """Solves f(x) = y for x in [low, high], element by element, by bisection.

    The number of halvings is fixed, twice the digits of the dtype (48 in float32, 106 in float64),
    so that a root near low = 0 is found to the same relative precision as one near high. It runs
    under jit and vmap, and differentiates in both modes and to any order by the implicit function
    theorem, dx/dy = 1 / f'(x), with respect to whatever f closes over too.

    Args:
        f: strictly increasing and elementwise, in the dtype of its argument. Its values at low and
            high may be infinite.
        y: the values to reach, any shape; below f(low) the answer is low, above f(high) it is high,
            and NaN stays NaN.
        low: the lower end of the bracket.
        high: the upper end of the bracket.

    Returns:
        x, shaped as y, in float32 or wider. Where f' is zero or not finite at x, dx/dy is 0.
    """
    y = at_least_float32(y)
    least, most = jnp.full_like(y, low), jnp.full_like(y, high)
    halvings = 2 * (jnp.finfo(y.dtype).nmant + 1)

    def solve(residual, _):
        def halve(_, bracket):
            a, b = bracket
            middle = a + 0.5 * (b - a)
            below = residual(middle) < 0
            return jnp.where(below, middle, a), jnp.where(below, b, middle)

        a, b = jax.lax.fori_loop(0, halvings, halve, (least, most))
        # The ends themselves are returned exactly: halving alone stops a rounding short of low.
        # An infinite y is compared by itself, since inf - inf has no sign.
        at_low = (residual(least) >= 0) | (y == -jnp.inf)
        at_high = (residual(most) <= 0) | (y == jnp.inf)
        x = jnp.where(at_low, least, jnp.where(at_high, most, a + 0.5 * (b - a)))
        return jnp.where(jnp.isnan(y), y, x)

    def tangent_solve(linear, y_dot):
        slope = linear(jnp.ones_like(y_dot))
        usable = (slope != 0) & jnp.isfinite(slope)
        return jnp.where(usable, y_dot, 0.0) / jnp.where(usable, slope, 1.0)

    return jax.lax.custom_root(lambda x: f(x) - y, least, solve, tangent_solve)
