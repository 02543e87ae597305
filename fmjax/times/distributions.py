"""The time distributions, and the weight that undoes the choice of one."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, betaln, logit, ndtri, xlog1py, xlogy
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_at_least, check_between, check_finite_number, check_positive
from fmjax.conventions import Array, TimeFunction, at_least_float32
from fmjax.errors import InputError
from fmjax.numerics.inversion import invert_increasing
from fmjax.times.base import TimeDistribution


@dataclass(frozen=True)
class Uniform:
    """t uniform on [0, 1]: density 1."""

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """Equal to u."""
        return at_least_float32(u)

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Equal to 1."""
        return jnp.ones_like(at_least_float32(t))


@dataclass(frozen=True)
class StepStarts:
    """The times at which k equal steps begin, equally often: t = floor(k u) / k.

    A network that is trained at these times alone, on pairs that a flow made, takes k Euler steps
    (Liu et al., arXiv:2209.03003, on distillation).

    Args:
        steps: k, at least 1; 1 gives t = 0 alone.

    Raises:
        InputError: steps is below 1.
    """

    steps: int = 1

    def __post_init__(self):
        check_at_least("steps of StepStarts", self.steps)

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """floor(k u) / k, below 1 at u = 1 too."""
        u = at_least_float32(u)
        return jnp.minimum(jnp.floor(self.steps * u), self.steps - 1) / self.steps

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Refused: single times have none.

        Raises:
            InputError: always.
        """
        raise InputError(
            "times of a grid have no density, and no importance weight; write "
            "time.importance=False, or take another distribution."
        )


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) normal with mean m and standard deviation s.

    t = sigmoid(m + s Phi^-1(u)). Source: Esser et al., arXiv:2403.03206, eq. (19). There t = 1 is
    noise; here it is data, so their mean m is -m here.

    Args:
        mean: m; above 0 draws more times near the data.
        std: s, positive.

    Raises:
        InputError: std is not positive, or mean is not finite.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self):
        check_positive("std of the logit-normal distribution", self.std)
        check_finite_number("mean of the logit-normal distribution", self.mean)

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """sigmoid(m + s Phi^-1(u)): 0 at u = 0 and 1 at u = 1."""
        return jax.nn.sigmoid(self.mean + self.std * ndtri(at_least_float32(u)))

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """exp(-(logit t - m)^2 / 2 s^2) / (s sqrt(2 pi) t (1 - t)), and 0 at both ends."""
        t = at_least_float32(t)
        inside = (t > 0) & (t < 1)
        t = jnp.where(inside, t, 0.5)
        z = (logit(t) - self.mean) / self.std
        value = jnp.exp(-0.5 * z**2) / (self.std * math.sqrt(2 * math.pi) * t * (1 - t))
        return jnp.where(inside, value, 0.0)


@dataclass(frozen=True)
class LogNormal:
    """The noise level of EDM: ln sigma_edm normal with mean m and standard deviation s.

    On the linear path the noise level per unit of data is sigma_t / alpha_t = (1 - t) / t, hence
    t = 1 / (1 + sigma_edm) and logit(t) = -ln sigma_edm: this is `LogitNormal` (-m, s).
    Source: Karras et al., arXiv:2206.00364, table 1 (P_mean, P_std; data of standard deviation 0.5
    there).

    Args:
        mean: m; above 0 draws more times near the noise.
        std: s, positive.

    Raises:
        InputError: std is not positive, or mean is not finite.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self):
        self._logit_normal()  # refuses what is out of range

    def _logit_normal(self) -> LogitNormal:
        return LogitNormal(-self.mean, self.std)

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """1 / (1 + exp(m - s Phi^-1(u))): 0 at u = 0 and 1 at u = 1."""
        return self._logit_normal().quantile(u)

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The density of ln sigma_edm at ln((1 - t) / t), over t (1 - t); 0 at both ends."""
        return self._logit_normal().density(t)


@dataclass(frozen=True)
class UShaped:
    """More times at both ends, for reflow: density proportional to exp(a t) + exp(a (1 - t)).

    With c = sinh(a / 2), the density is a cosh(a (t - 1/2)) / (2 c) and
    t = 1/2 + asinh((2 u - 1) c) / a. Source: Lee, Lin and Fanti, arXiv:2405.20320, section 4
    (a = 4). It is symmetric, so the direction of time does not matter.

    Args:
        a: how steep, in (0, 100]; small is near uniform.

    Raises:
        InputError: a lies outside (0, 100].
    """

    a: float = 4.0

    def __post_init__(self):
        # Beyond 100, exp(a) overflows float32.
        check_between("a of the u-shaped distribution", self.a, 0, 100, "(]")

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """1/2 + asinh((2 u - 1) sinh(a / 2)) / a."""
        centred = (2 * at_least_float32(u) - 1) * math.sinh(self.a / 2)
        return jnp.clip(0.5 + jnp.arcsinh(centred) / self.a, 0.0, 1.0)

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The value a cosh(a (t - 1/2)) / (2 sinh(a / 2))."""
        scale = self.a / (2 * math.sinh(self.a / 2))
        return scale * jnp.cosh(self.a * (at_least_float32(t) - 0.5))


@dataclass(frozen=True)
class Mode:
    """The mode distribution of SD3, with heavy tails: no time has density zero.

    SD3 draws tau = 1 - u - s (cos^2(pi u / 2) - 1 + u). In our time t = 1 - tau, with
    cos^2 = 1 - sin^2,

        t = u + s (u - sin^2(pi u / 2)),

    which increases in u, so it is the quantile as it stands. It is symmetric about 1/2.
    Source: Esser et al., arXiv:2403.03206, section 3.1.

    Args:
        scale: s in [-1, 2 / (pi - 2)]: above 0 favours the middle, below 0 the ends, 0 is uniform.
            At either limit the density is infinite (at 1/2, at the ends).

    Raises:
        InputError: scale lies outside its range, where t would not increase in u.
    """

    scale: float = 1.29

    def __post_init__(self):
        most = 2 / (math.pi - 2)
        advice = "The upper end is 2 / (pi - 2)."
        check_between("scale of the mode distribution", self.scale, -1, most, advice=advice)

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """The time u + s (u - sin^2(pi u / 2))."""
        u = at_least_float32(u)
        return jnp.clip(u + self.scale * (u - jnp.sin(0.5 * math.pi * u) ** 2), 0.0, 1.0)

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """1 / |dt/du| = 1 / (1 + s (1 - (pi / 2) sin(pi u))), u found from t by bisection."""
        u = invert_increasing(self.quantile, t)
        sine = jnp.sin(math.pi * jnp.minimum(u, 1 - u))  # of the nearer end, to be exactly 0 there
        slope = 1 + self.scale * (1 - 0.5 * math.pi * sine)
        return 1 / jnp.maximum(slope, 0.0)  # rounding must not turn +inf into a negative number


@dataclass(frozen=True)
class CosMap:
    """The distribution under which the linear path sees the noise levels of the cosine schedule.

    The density is 2 / (pi - 2 pi t + 2 pi t^2), and t = sin(a) / (sin(a) + cos(a)) with
    a = pi u / 2. It is symmetric about 1/2, so the direction of time does not matter. Source: Esser
    et al., arXiv:2403.03206, section 3.1.
    """

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """sin(pi u / 2) / (sin(pi u / 2) + cos(pi u / 2))."""
        u = at_least_float32(u)
        sine, cosine = jnp.sin(0.5 * math.pi * u), jnp.sin(0.5 * math.pi * (1 - u))
        return sine / (sine + cosine)  # the cosine written as a sine, to be exactly 0 at u = 1

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """2 / (pi (1 - 2 t (1 - t)))."""
        t = at_least_float32(t)
        return 2 / (math.pi * (1 - 2 * t * (1 - t)))


@dataclass(frozen=True)
class Beta:
    """The beta distribution: density t^(a-1) (1-t)^(b-1) / B(a, b).

    A parameter below 1 puts an integrable infinity at its end. With a = 1 or b = 1 the quantile is
    a power; otherwise it takes some 48 evaluations of the incomplete beta function, about 0.02 ms a
    draw on a CPU core: nothing beside a network, much beside a toy.

    Args:
        a: the exponent at t = 0 (noise), plus 1; positive.
        b: the exponent at t = 1 (data), plus 1; positive.

    Raises:
        InputError: a or b is not positive.
    """

    a: float = 1.0
    b: float = 1.0

    def __post_init__(self):
        check_positive("a of the beta distribution", self.a)
        check_positive("b of the beta distribution", self.b)

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """The inverse of the regularised incomplete beta function, by bisection if need be."""
        u = at_least_float32(u)
        if self.b == 1:
            return u ** (1 / self.a)
        if self.a == 1:
            return -jnp.expm1(jnp.log1p(-u) / self.b)
        return invert_increasing(lambda t: betainc(self.a, self.b, t), u)

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """t^(a-1) (1-t)^(b-1) / B(a, b), infinite at an end whose exponent is below 0."""
        t = at_least_float32(t)
        return jnp.exp(
            xlogy(self.a - 1, t) + xlog1py(self.b - 1, -t) - betaln(self.a, self.b).astype(t.dtype)
        )


def importance_weight(
    distribution: TimeDistribution, reference: TimeDistribution | None = None
) -> TimeFunction:
    """Makes the weight that keeps the objective of one distribution while drawing from another.

        weight(t) = p_reference(t) / p_drawn(t),    E_drawn[weight(t) f(t)] = E_reference[f(t)].

    Args:
        distribution: the distribution that t is drawn from.
        reference: the distribution whose objective is kept; `Uniform` if None.

    Returns:
        ``weight(t)``, shaped as t, never NaN or infinite. It is 0 where p_drawn is 0 or infinite:
        single times, drawn by rounding only (a logit-normal t of exactly 0, from u = 0). Near a
        time where p_drawn tends to 0 it is large, and so is the variance.
    """
    reference = Uniform() if reference is None else reference

    def weight(t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        density, wanted = distribution.density(t), reference.density(t)
        for of, found in ((distribution, density), (reference, wanted)):
            check_returned(f"density of {type(of).__name__}", found, "t", at_least_float32(t))
        possible = (density > 0) & jnp.isfinite(density)
        return jnp.where(possible, wanted / jnp.where(possible, density, 1.0), 0.0)

    return weight
