"""Time laws: how t is drawn in training.

A law is its quantile function: ``law.quantile(u)`` turns u uniform on [0, 1) into t, so that any
way of drawing u (independent, stratified, low-discrepancy) serves every law.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.scipy.special import logit, ndtri

from fmjax.conventions import Array
from fmjax.errors import InputError


class TimeLaw(Protocol):
    """A distribution of t on [0, 1]."""

    def quantile(self, u: Array) -> Array:
        """The time below which a share u of the draws lies; any shape, same shape out."""

    def density(self, t: Array) -> Array:
        """The probability density at t; any shape, same shape out."""


@dataclass(frozen=True)
class Uniform:
    """t uniform on [0, 1]: density 1."""

    def quantile(self, u: Array) -> Array:
        """Equal to u."""
        return u

    def density(self, t: Array) -> Array:
        """Equal to 1."""
        return jnp.ones_like(t)


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) normal with mean m and standard deviation s.

    t = sigmoid(m + s Phi^-1(u)). Source: Esser et al., arXiv:2403.03206, eq. (19). There t = 1 is
    noise; here it is data, so their mean m is -m here.

    Args:
        mean: m; above 0 draws more times near the data.
        std: s, positive.

    Raises:
        InputError: std is not positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self):
        if not self.std > 0:
            raise InputError(f"std of the logit-normal law must be positive; got {self.std!r}.")

    def quantile(self, u: Array) -> Array:
        """sigmoid(m + s Phi^-1(u)): 0 at u = 0 and 1 at u = 1."""
        return jax.nn.sigmoid(self.mean + self.std * ndtri(u))

    def density(self, t: Array) -> Array:
        """exp(-(logit t - m)^2 / 2 s^2) / (s sqrt(2 pi) t (1 - t)), and 0 at both ends."""
        inside = (t > 0) & (t < 1)
        t = jnp.where(inside, t, 0.5)
        z = (logit(t) - self.mean) / self.std
        value = jnp.exp(-0.5 * z**2) / (self.std * jnp.sqrt(2 * jnp.pi) * t * (1 - t))
        return jnp.where(inside, value, 0.0)
