"""A source of your own: points of the plane near a circle, at equally likely angles.

The radius is normal with mean R and deviation s. For ``--config.source.name=ring_source:make``,
with R in ``source.high`` and s a quarter of it.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fmjax.conventions import example_keys
from fmjax.errors import InputError


@dataclass(frozen=True)
class Ring:
    """A ring around the origin.

    Attributes:
        radius: R.
        width: s, at most a quarter of R.
    """

    radius: float = 3.0
    width: float = 0.7

    def sample(self, key: Any, index: Any, shape: Any) -> Any:
        """Points (batch, 2), each by its place in the global batch."""
        if shape != (2,):
            raise InputError(f"a ring lies in the plane, and the data have shape {shape}.")

        def one(key):
            of_angle, of_radius = jax.random.split(key)
            angle = jax.random.uniform(of_angle, maxval=2 * math.pi)
            radius = self.radius + self.width * jax.random.normal(of_radius)
            return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

        return jax.vmap(one)(example_keys(key, index))

    def log_prob(self, x: Any) -> Any:
        """The density of the radius, spread over the circle of that radius; in nats (batch,)."""
        radius = jnp.linalg.norm(x, axis=1)
        of_radius = jax.scipy.stats.norm.logpdf(radius, self.radius, self.width)
        return of_radius - jnp.log(2 * math.pi * radius)


def make(config: Any, spec: Any) -> Ring:
    """The source of a configuration: `config` is its group ``source``, `spec` that of the data."""
    return Ring(config.high, config.high / 4)
