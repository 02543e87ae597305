"""The timestep shift of SD3 and FLUX, of single times and of whole distributions."""

import math
from dataclasses import dataclass, field

from jaxtyping import Float

from fmjax.checks import check_positive
from fmjax.conventions import Array, at_least_float32
from fmjax.errors import InputError
from fmjax.times.base import TimeDistribution, check_distribution
from fmjax.times.distributions import Uniform


def shift_time(t: Float[Array, "*t"], shift: float) -> Float[Array, "*t"]:
    """Shifts times towards the noise by the factor s, as SD3 and FLUX do for larger images.

    In their time tau = 1 - t it is tau' = s tau / (1 + (s - 1) tau); here

        t' = t / (t + s (1 - t)),    that is    logit(t') = logit(t) - ln s.

    It maps 0 to 0 and 1 to 1 exactly; the inverse is the shift by 1 / s, and two shifts multiply.
    Source: Esser et al., arXiv:2403.03206, section 5.3 (resolution-dependent shifting).

    Args:
        t: times in [0, 1], any shape.
        shift: s, positive; above 1 gives more times near the noise, 1 changes nothing.

    Returns:
        The shifted times, shaped as t.

    Raises:
        InputError: shift is not positive.
    """
    check_positive("shift", shift)
    t = at_least_float32(t)
    return t / (t + shift * (1 - t))


@dataclass(frozen=True)
class Shifted:
    """A distribution followed by `shift_time`.

    Args:
        distribution: the distribution before the shift.
        shift: s of `shift_time`; `resolution_shift` and `sqrt_shift` give it from the image size.

    Raises:
        InputError: shift is not positive, or the distribution is shifted already.
    """

    distribution: TimeDistribution = field(default_factory=Uniform)
    shift: float = 1.0

    def __post_init__(self):
        check_positive("shift", self.shift)
        check_distribution("the distribution", self.distribution)
        if isinstance(self.distribution, Shifted):
            first = self.distribution.shift
            raise InputError(
                f"the distribution is shifted already, by {first}; a second shift by {self.shift} "
                f"would multiply it. For both write Shifted(distribution, {first * self.shift})."
            )

    def quantile(self, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
        """The shifted quantile of the distribution."""
        return shift_time(self.distribution.quantile(u), self.shift)

    def density(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """p(t') s / (s t + 1 - t)^2 at the time t' = s t / (s t + 1 - t) before the shift."""
        t, s = at_least_float32(t), self.shift
        return self.distribution.density(shift_time(t, 1 / s)) * (s / (s * t + (1 - t)) ** 2)


def resolution_shift(
    num_tokens: int,
    base_tokens: int = 256,
    max_tokens: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> float:
    """The shift s = exp(mu) of FLUX, with mu linear in the number of tokens.

    mu = base_shift at base_tokens and max_shift at max_tokens, continued beyond both. Source: the
    sampling code of FLUX.1 (Black Forest Labs), which has no paper for it.

    Args:
        num_tokens: tokens of one image, e.g. (H / patch) (W / patch).
        base_tokens: where mu is base_shift.
        max_tokens: where mu is max_shift, above base_tokens.
        base_shift: mu at base_tokens.
        max_shift: mu at max_tokens.

    Returns:
        s, for `shift_time` or `Shifted`.

    Raises:
        InputError: a number of tokens is not positive, or max_tokens is not above base_tokens.
    """
    check_positive("num_tokens", num_tokens)
    check_positive("base_tokens", base_tokens)
    if not max_tokens > base_tokens:
        raise InputError(
            f"max_tokens must be above base_tokens = {base_tokens}; got {max_tokens!r}."
        )
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return math.exp(base_shift + slope * (num_tokens - base_tokens))


def sqrt_shift(num_tokens: int, base_tokens: int) -> float:
    """The shift s = sqrt(num_tokens / base_tokens) of SD3.

    With it, an image of more pixels is as uncertain at t' as the smaller one at t.

    Source: Esser et al., arXiv:2403.03206, section 5.3 (m and n pixels there).

    Args:
        num_tokens: tokens (or pixels) of one image.
        base_tokens: the number for which no shift is needed.

    Returns:
        s, for `shift_time` or `Shifted`.

    Raises:
        InputError: a number is not positive.
    """
    check_positive("num_tokens", num_tokens)
    check_positive("base_tokens", base_tokens)
    return math.sqrt(num_tokens / base_tokens)
