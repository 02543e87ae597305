"""Schedules: the pair (alpha_t, sigma_t) of an affine path, with its derivatives.

A schedule is any object with the four methods of `Schedule`; t may have any shape.
"""

from dataclasses import dataclass
from typing import Protocol

import jax.numpy as jnp

from fmjax.conventions import Array
from fmjax.errors import InputError


class Schedule(Protocol):
    """alpha_t multiplies the data, sigma_t the source; alpha_0 = 0 and alpha_1 = sigma_0 = 1."""

    def alpha(self, t: Array) -> Array:
        """alpha_t, the weight of the data x1."""

    def sigma(self, t: Array) -> Array:
        """sigma_t, the weight of the source x0."""

    def d_alpha(self, t: Array) -> Array:
        """The time derivative of alpha_t."""

    def d_sigma(self, t: Array) -> Array:
        """The time derivative of sigma_t."""


@dataclass(frozen=True)
class Linear:
    """The conditional optimal-transport path, with Lipman's sigma_min.

    alpha_t = t,  sigma_t = 1 - (1 - sigma_min) t.

    With sigma_min = 0 it is the straight line of rectified flow (arXiv:2209.03003). Source:
    Lipman et al., arXiv:2210.02747, eq. (20) and (22).

    Args:
        sigma_min: the standard deviation left around each data point at t = 1, in [0, 1).

    Raises:
        InputError: sigma_min lies outside [0, 1).
    """

    sigma_min: float = 0.0

    def __post_init__(self):
        if not 0.0 <= self.sigma_min < 1.0:
            raise InputError(f"sigma_min must lie in [0, 1); got {self.sigma_min!r}.")

    def alpha(self, t: Array) -> Array:
        """Equal to t."""
        return t

    def sigma(self, t: Array) -> Array:
        """Equal to 1 - (1 - sigma_min) t."""
        return 1.0 - (1.0 - self.sigma_min) * t

    def d_alpha(self, t: Array) -> Array:
        """Equal to 1."""
        return jnp.ones_like(t)

    def d_sigma(self, t: Array) -> Array:
        """Equal to -(1 - sigma_min)."""
        return jnp.full_like(t, -(1.0 - self.sigma_min))
