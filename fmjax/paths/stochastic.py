"""Stochastic paths: the straight line with noise z of standard deviation s_t around it.

Their conditional density is N(x_t; t x1 + (1 - t) x0, s_t^2), with

    x_t = t x1 + (1 - t) x0 + s_t z,  u_t = x1 - x0 + s'_t z,  score = -z / s_t.

z is standard normal, and comes as ``noise={"z": z}``.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import as_floats, check_shaped_as, times_of
from fmjax.checks import check_between, check_positive
from fmjax.conventions import Array, expand
from fmjax.paths.base import PathSample, check_noise
from fmjax.paths.distances import squared
from fmjax.schedules import END, clamp
from fmjax.sources import STANDARD_NORMAL, Law

_NOISE: Mapping[str, Law] = MappingProxyType({"z": STANDARD_NORMAL})


class NoisyLine(abc.ABC):
    """The straight line with noise around it, of any standard deviation s_t."""

    noise = _NOISE

    @abc.abstractmethod
    def std(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """s_t, any shape of t."""

    @abc.abstractmethod
    def d_std(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The time derivative of s_t, any shape of t."""

    def sample(
        self,
        x0: Float[Array, " batch *shape"],
        x1: Float[Array, " batch *shape"],
        t: Float[Array, "batch ..."],
        noise: Mapping[str, Float[Array, " batch *shape"]] | None = None,
    ) -> PathSample:
        """The point and the conditional velocity at t.

        Args:
            x0: source points (batch, ...).
            x1: data points (batch, ...).
            t: times (batch,) in [0, 1]; or (batch, n, ...), one for each element of leading axes.
            noise: ``{"z": z}``, standard normal, shaped as x0.

        Returns:
            x_t and u_t (batch, ...), in float32 or wider whatever the inputs are.

        Raises:
            InputError: there is no z, it has another shape than x0, or an array is not of floats.
        """
        x0, z, x1, t = self._unpack(x0, x1, t, noise)
        return PathSample(
            x_t=t * x1 + (1.0 - t) * x0 + self.std(t) * z,
            target=x1 - x0 + self.d_std(t) * z,
        )

    def distance(
        self,
        predicted: Float[Array, " batch *shape"],
        target: Float[Array, " batch *shape"],
        x_t: Float[Array, " batch *shape"],
        t: Float[Array, "batch ..."],
    ) -> Float[Array, " batch"]:
        """The mean squared error of the velocity (batch,)."""
        return squared(predicted, target, x_t, t)

    def score(
        self,
        x0: Float[Array, " batch *shape"],
        x1: Float[Array, " batch *shape"],
        t: Float[Array, "batch ..."],
        noise: Mapping[str, Float[Array, " batch *shape"]] | None = None,
    ) -> Float[Array, " batch *shape"]:
        """The conditional score -z / s_t, shaped as x1; near an end s_t is read `END` inside.

        Where s_t vanishes at the ends, it grows without bound towards them. A network s(x, t) is
        trained without it: with the weight of `score_weight`, regress score_weight(t) s(x_t, t) on
        -z. Arguments and errors as in `sample`.
        """
        _, z, _, t = self._unpack(x0, x1, t, noise)
        return -z / self.std(clamp(t, END, 1.0 - END))

    def score_weight(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """lambda_t = s_t, by which the score becomes -z: bounded, and of unit variance.

        The lambda_t of SF2M (arXiv:2307.03672) is this times 2 / sigma^2.
        """
        return self.std(t)

    def _unpack(self, x0, x1, t, noise) -> tuple[Array, Array, Array, Array]:
        """x0, z, x1 and t ready to broadcast."""
        z = check_noise(self, noise)["z"]
        x0, x1, z = as_floats("x0", x0), as_floats("x1", x1), as_floats("the noise z", z)
        check_shaped_as(f"the noise z of {type(self).__name__}", z, "x0", x0.shape)
        check_shaped_as("x0", x0, "x1", x1.shape)
        return x0, z, x1, expand(times_of(t, x1), x1)


@dataclass(frozen=True)
class BrownianBridge(NoisyLine):
    """The Brownian bridge of diffusion sigma between x0 and x1, without its spikes at the ends.

    With q = t (1 - t) and e = softening:

    s_t = sigma q / sqrt(q + 4 e^2),  s'_t = sigma (1 - 2 t) (q / 2 + 4 e^2) / (q + 4 e^2)^(3/2).

    The bridge itself has s_t = sigma sqrt(q), whose derivative is infinite at both ends. Here s_t
    is exactly 0 there, u_t is exactly the time derivative of x_t, and |s'_t| <= sigma / (2 e),
    which is 50 sigma by default. Inside, s_t is smaller than the bridge's by the share 2 e^2 / q:
    0.08 % at t = 1/2, 2 % at t = 0.01.

    Paired by entropic transport with regularisation 2 sigma^2 it is the Schroedinger bridge: SB-CFM
    (Tong et al., arXiv:2302.00482) and, with the score, SF2M (Tong et al., arXiv:2307.03672).

    Args:
        sigma: the diffusion coefficient, positive.
        softening: e, positive and below 1.

    Raises:
        InputError: sigma is not a positive number, or softening lies outside (0, 1).

    Example:
        >>> x0, x1, t = jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.array([0.5])
        >>> BrownianBridge(0.5).sample(x0, x1, t, {"z": jnp.ones((1, 2))}).x_t.round(2)
        Array([[0.75, 0.75]], dtype=float32)
    """

    sigma: float = 1.0
    softening: float = 1e-2

    def __post_init__(self):
        _check_sigma("BrownianBridge", self.sigma)
        check_between("the softening of BrownianBridge", self.softening, 0, 1, "()")

    def std(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """s_t, any shape of t; 0 at both ends."""
        q = t * (1.0 - t)
        return self.sigma * q / jnp.sqrt(q + 4.0 * self.softening**2)

    def d_std(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The time derivative of s_t, any shape of t."""
        q, e2 = t * (1.0 - t), 4.0 * self.softening**2
        return self.sigma * (1.0 - 2.0 * t) * (0.5 * q + e2) / (q + e2) ** 1.5


@dataclass(frozen=True)
class NoisyStraight(NoisyLine):
    """The straight path in a tube of constant noise, I-CFM's: s_t = sigma, s'_t = 0.

    Source: Tong et al., arXiv:2302.00482 (I-CFM, and OT-CFM with an optimal coupling).

    Args:
        sigma: the standard deviation of the noise, positive; without noise take `AffinePath`.

    Raises:
        InputError: sigma is not a positive number.

    Example:
        >>> x0, x1, t = jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.array([0.5])
        >>> NoisyStraight(0.1).sample(x0, x1, t, {"z": jnp.ones((1, 2))}).x_t
        Array([[0.6, 0.6]], dtype=float32)
    """

    sigma: float = 0.1

    def __post_init__(self):
        _check_sigma("NoisyStraight", self.sigma)

    def std(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to sigma."""
        return jnp.full_like(t, self.sigma)

    def d_std(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to 0."""
        return jnp.zeros_like(t)


def _check_sigma(name: str, sigma: float) -> None:
    advice = "For a path without noise write AffinePath()."
    check_positive(f"sigma of {name}", sigma, advice=advice)
