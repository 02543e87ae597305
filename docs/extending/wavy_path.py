"""A path of your own: straight lines with a wave of random size around them.

    x_t = (1 - t) x0 + t x1 + a sin(pi t) z,    u_t = x1 - x0 + a pi cos(pi t) z

For ``--config.path.name=wavy_path:make``, with the size a in ``path.sigma``.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp

from fmjax.conventions import at_least_float32, expand
from fmjax.paths import PathSample, squared
from fmjax.paths.base import check_noise
from fmjax.sources import StandardNormal


@dataclass(frozen=True)
class WavyPath:
    """The straight path with a wave; z is standard normal, shaped as x0.

    Attributes:
        size: a.
    """

    size: float
    noise = MappingProxyType({"z": StandardNormal()})

    def sample(self, x0: Any, x1: Any, t: Any, noise: Any = None) -> PathSample:
        """The point and its velocity at t (batch,)."""
        z = check_noise(self, noise)["z"]
        t = expand(at_least_float32(t), x1)
        wave, slope = jnp.sin(jnp.pi * t), jnp.pi * jnp.cos(jnp.pi * t)
        return PathSample(
            x_t=(1 - t) * x0 + t * x1 + self.size * wave * z,
            target=x1 - x0 + self.size * slope * z,
        )

    def distance(self, predicted: Any, target: Any, x_t: Any, t: Any) -> Any:
        """The mean squared error of each example (batch,)."""
        return squared(predicted, target, x_t, t)


def make(config: Any) -> WavyPath:
    """The path of a configuration: `config` is its group ``path``."""
    return WavyPath(config.sigma)
