"""Schedules with closed forms: the derivatives, and the inverse of the signal-to-noise ratio."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.checks import check_between
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.schedules.base import END, clamp, with_slope

HALF_PI = 0.5 * math.pi


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
        check_between("sigma_min", self.sigma_min, 0, 1, "[)")

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to t."""
        return t

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to 1 - (1 - sigma_min) t, written so that sigma_1 is sigma_min to the last bit."""
        return (1.0 - t) + self.sigma_min * t

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to 1."""
        return jnp.ones_like(t)

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to -(1 - sigma_min)."""
        return jnp.full_like(t, -(1.0 - self.sigma_min))

    def t_at_log_snr(self, value: Float[Array, "*value"]) -> Float[Array, "*value"]:
        """With k = 1 - sigma_min: sigmoid(value / 2 + log k) / k, at most 1."""
        k = 1.0 - self.sigma_min
        return jnp.minimum(jax.nn.sigmoid(0.5 * value + math.log(k)) / k, 1.0)


@dataclass(frozen=True)
class VP:
    """The variance-preserving diffusion with a linear beta, as a path from noise to data.

    With s = 1 - t and D = beta_max - beta_min:

    alpha_t = exp(-s^2 D / 4 - s beta_min / 2),  sigma_t = sqrt(1 - alpha_t^2).

    At t = 0 a little of the data is left: alpha_0 = 0.0066 and sigma_0 = 0.99998 with the defaults.
    The derivative of sigma_t is bounded at t = 1 (see `fmjax.schedules`). Source: Song et
    al., arXiv:2011.13456, appendix C, where time runs from data to noise.

    Args:
        beta_min: the rate of noise at the data, positive.
        beta_max: the rate of noise at the source, at least beta_min.

    Raises:
        InputError: not 0 < beta_min <= beta_max < infinity.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        if not 0.0 < self.beta_min <= self.beta_max < math.inf:
            raise InputError(
                "VP needs 0 < beta_min <= beta_max, both finite; "
                f"got beta_min={self.beta_min!r} and beta_max={self.beta_max!r}."
            )

    def _log_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        s = 1.0 - t
        return -s * (0.25 * s * (self.beta_max - self.beta_min) + 0.5 * self.beta_min)

    def _sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        return jnp.sqrt(-jnp.expm1(2.0 * self._log_alpha(t)))

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to exp(-s^2 D / 4 - s beta_min / 2)."""
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to sqrt(1 - alpha_t^2), accurate where alpha_t is close to 1."""
        return with_slope(self._sigma, self.d_sigma, t)

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to alpha_t beta_t / 2 with beta_t = beta_min + s D."""
        beta = self.beta_min + (1.0 - t) * (self.beta_max - self.beta_min)
        return 0.5 * beta * self.alpha(t)

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to -alpha_t d_alpha_t / sigma_t, read at most at t = 1 - `END`."""
        t = clamp(t, 0.0, 1.0 - END)
        return -self.alpha(t) * self.d_alpha(t) / self._sigma(t)

    def t_at_log_snr(self, value: Float[Array, "*value"]) -> Float[Array, "*value"]:
        """With m = softplus(-value): s = 2 m / (beta_min + sqrt(beta_min^2 + 2 m D)), at most 1."""
        m = jax.nn.softplus(-value)
        spread = self.beta_max - self.beta_min
        # Beyond s = 1 the answer is t = 0; stopping m there keeps the square root finite.
        m = jnp.minimum(m, 0.5 * spread + self.beta_min)
        s = 2.0 * m / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * spread * m))
        return 1.0 - jnp.minimum(s, 1.0)


@dataclass(frozen=True)
class LinearVP:
    """The variance-preserving path whose data weight is linear in time.

    alpha_t = t,  sigma_t = sqrt(1 - t^2).

    The derivative of sigma_t is bounded at t = 1 (see `fmjax.schedules`). Source: the code
    accompanying Lipman et al., arXiv:2412.06264.
    """

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to t."""
        return t

    def _sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        return jnp.sqrt((1.0 - t) * (1.0 + t))

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to sqrt(1 - t^2)."""
        return with_slope(self._sigma, self.d_sigma, t)

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to 1."""
        return jnp.ones_like(t)

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to -t / sigma_t, read at most at t = 1 - `END`, where it is -224."""
        t = clamp(t, 0.0, 1.0 - END)
        return -t / self._sigma(t)

    def t_at_log_snr(self, value: Float[Array, "*value"]) -> Float[Array, "*value"]:
        """Equal to sqrt(sigmoid(value))."""
        # By logarithms: the sigmoid itself underflows below -87 in float32.
        return jnp.exp(0.5 * jax.nn.log_sigmoid(value))


@dataclass(frozen=True)
class Cosine:
    """The trigonometric variance-preserving path (GVP).

    alpha_t = sin(pi t / 2),  sigma_t = cos(pi t / 2).

    Source: Albergo and Vanden-Eijnden, arXiv:2209.15571; named GVP by Ma et al., arXiv:2401.08740.
    """

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to sin(pi t / 2)."""
        return jnp.sin(HALF_PI * t)

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to cos(pi t / 2), as a sine, so that it is 0 at t = 1 and not -4e-8."""
        return jnp.sin(HALF_PI * (1.0 - t))

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to (pi / 2) sigma_t."""
        return HALF_PI * self.sigma(t)

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to -(pi / 2) alpha_t."""
        return -HALF_PI * self.alpha(t)

    def t_at_log_snr(self, value: Float[Array, "*value"]) -> Float[Array, "*value"]:
        """Equal to (2 / pi) arctan(exp(value / 2))."""
        # arctan(r) = pi / 2 - arctan(1 / r): the exponential never overflows.
        upper = value > 0
        part = jnp.arctan(jnp.exp(0.5 * jnp.where(upper, -value, value))) / HALF_PI
        return jnp.where(upper, 1.0 - part, part)


@dataclass(frozen=True)
class Polynomial:
    """The convex path of degree n.

    alpha_t = t^n,  sigma_t = 1 - t^n.

    n = 1 is the straight line; above 1 the path lingers at the source. Source: the convex schedules
    of Lipman et al., arXiv:2412.06264.

    Args:
        n: the degree, at least 1, not necessarily whole. Between 1 and 2 the second derivative is
            infinite at t = 0; it is given as 0 there.

    Raises:
        InputError: n is below 1 or not finite.
    """

    n: float = 2

    def __post_init__(self):
        check_between("the degree n of Polynomial", self.n, 1, math.inf, "[)")

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to t^n."""
        return _power(t, self.n)

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to 1 - t^n, without cancellation near t = 1."""
        near_one = t > 0.5
        by_log = -jnp.expm1(self.n * jnp.log(jnp.where(near_one, t, 1.0)))
        return jnp.where(near_one, by_log, 1.0 - _power(t, self.n))

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to n t^(n - 1)."""
        return self.n * _power(t, self.n - 1)

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to -n t^(n - 1)."""
        return -self.d_alpha(t)

    def t_at_log_snr(self, value: Float[Array, "*value"]) -> Float[Array, "*value"]:
        """Equal to sigmoid(value / 2)^(1 / n)."""
        return jnp.exp(jax.nn.log_sigmoid(0.5 * value) / self.n)


def _power(t: Array, p: float) -> Array:
    """t^p for p >= 0, with finite derivatives of every order at t = 0."""
    if p == int(p):
        return t ** int(p)
    positive = t > 0
    return jnp.where(positive, jnp.where(positive, t, 1.0) ** p, 0.0)
