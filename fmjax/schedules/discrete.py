"""The diffusion of K discrete steps with betas on a line, as a path from noise to data."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_at_least
from fmjax.conventions import ApplyFn, Array, Labels, Params
from fmjax.errors import InputError
from fmjax.schedules.base import END, clamp, with_slope

_DEGREE = 8


@dataclass(frozen=True)
class DiscreteVP:
    """The diffusion of DDPM, whose K steps lie at t = 1 - (k + 1) / K.

    With betas on a line from beta_min to beta_max, step k = 0, ..., K - 1 has

    alpha^2 = prod_{i <= k} (1 - beta_i),  sigma^2 = 1 - alpha^2,

    and t = 1 is the data itself, one step before the first. Between the steps log alpha is the
    smooth function that the sum of log(1 - beta_i) is of k: each power of beta sums to a polynomial
    in k, and those of the powers up to 7 leave next to nothing.
    A network of such a diffusion is asked at ``step(t)``; see `at_steps`. The derivative of sigma_t
    is bounded at t = 1 (see `fmjax.schedules`). Source: Ho et al., arXiv:2006.11239; steps as in Lu
    et al., arXiv:2206.00927, appendix D.4.

    Args:
        beta_min: of step 0, the nearest to the data.
        beta_max: of step K - 1, at most 0.1.
        steps: K, at least 2.

    Raises:
        InputError: not 0 < beta_min <= beta_max <= 0.1, or K is no whole number of at least 2.
    """

    beta_min: float = 1e-4
    beta_max: float = 0.02
    steps: int = 1000

    def __post_init__(self):
        check_at_least("the number of steps of DiscreteVP", self.steps, 2)
        if not 0.0 < self.beta_min <= self.beta_max <= 0.1:
            raise InputError(
                "DiscreteVP needs 0 < beta_min <= beta_max <= 0.1; "
                f"got beta_min={self.beta_min!r} and beta_max={self.beta_max!r}."
            )

    def step(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The number k of the step at t, a fraction between steps, and 0 from the first step on.

        Args:
            t: times, any shape.

        Returns:
            Shaped as t; whole at the times of the steps to the last bit.
        """
        k = self.steps * (1.0 - t) - 1.0
        # 1 - t is rounded, and K times as wrong in k.
        near = jnp.round(k) - k
        rounded = k + jnp.where(jnp.abs(near) < 0.5e-3, jax.lax.stop_gradient(near), 0.0)
        return clamp(rounded, 0.0, self.steps - 1.0)

    def _log_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        return _polynomial(_coefficients(self), 1.0 - t)

    def _sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        return jnp.sqrt(0.0 - jnp.expm1(2.0 * self._log_alpha(t)))  # 0, and not -0, at t = 1

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The square root of the product of 1 - beta_i."""
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to sqrt(1 - alpha_t^2), accurate where alpha_t is close to 1."""
        return with_slope(self._sigma, self.d_sigma, t)

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The derivative of alpha_t."""
        slope = tuple(-n * c for n, c in enumerate(_coefficients(self)) if n)
        return _polynomial(slope, 1.0 - t) * self.alpha(t)

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to -alpha_t d_alpha_t / sigma_t, read at most at t = 1 - `END`."""
        t = clamp(t, 0.0, 1.0 - END)
        return -self.alpha(t) * self.d_alpha(t) / self._sigma(t)


def at_steps(apply_fn: ApplyFn, schedule: DiscreteVP) -> ApplyFn:
    """A network of a diffusion of discrete steps, asked at times instead: at t, at ``step(t)``.

    Args:
        apply_fn: ``apply_fn(params, x, k, labels)``, k (batch,) in [0, K - 1].
        schedule: of the diffusion of K steps.

    Returns:
        ``apply_fn(params, x, t, labels)``, t (batch,) in [0, 1], 1 for the data. It raises
        InputError where the network gives what is not shaped as x.

    Example:
        >>> import jax.numpy as jnp
        >>> network = lambda params, x, k, labels: x * k[:, None]
        >>> at_steps(network, DiscreteVP())({}, jnp.ones((1, 2)), jnp.zeros(1), None)
        Array([[999., 999.]], dtype=float32)
    """

    def asked(
        params: Params,
        x: Float[Array, " batch *shape"],
        t: Float[Array, "batch ..."],
        labels: Labels = None,
    ) -> Float[Array, " batch *shape"]:
        out = apply_fn(params, x, schedule.step(t), labels)
        check_returned("the network", out, "x", x)
        return out

    return asked


def _polynomial(coefficients: tuple[float, ...], s: Array) -> Array:
    """c_0 + c_1 s + c_2 s^2 + ..., by Horner's rule."""
    value = jnp.full_like(s, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * s + c
    return value


@functools.lru_cache(maxsize=64)
def _coefficients(schedule: DiscreteVP) -> tuple[float, ...]:
    """log alpha as a polynomial in s = (k + 1) / K, without a constant term."""
    K = schedule.steps
    betas = np.linspace(schedule.beta_min, schedule.beta_max, K)
    s = np.arange(1, K + 1) / K
    values = 0.5 * np.cumsum(np.log1p(-betas)) / s
    degree = min(_DEGREE, K) - 1
    found = np.polynomial.Polynomial.fit(s, values, degree).convert().coef
    return (0.0, *map(float, found), *[0.0] * (degree + 1 - len(found)))
