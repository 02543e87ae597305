"""The corrector: tokens are drawn anew on the way, so that early mistakes can be mended."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax.scipy.special import betainc
from jaxtyping import Float

from fmjax.checks import check_between, check_positive
from fmjax.conventions import Array
from fmjax.discrete.base import TokenPath, times_for
from fmjax.discrete.tokens import OfPlaces, Tokens, TokenTimes, invert_cdf


@dataclass(frozen=True)
class Corrector:
    """Draws tokens anew from p_t(. | x1), x1 drawn from the guess, at a rate that depends on t.

    Given x1 that leaves p_t(. | x1) as it is, and under the right posterior the marginals of x_t,
    whatever the rate: its flux has no divergence. The rate is

        redraws t^a (1 - t)^b / B(a + 1, b + 1),

    B the beta function: 0 at both ends, and `redraws` in all from t = 0 to 1 for each token. Where
    the source is the mask, tokens are masked again. Sources: the corrector of Gat et al.,
    arXiv:2407.15595, which adds a backward and a forward rate of this sum, infinite at t = 0; its
    time law t^a (1 - t)^b.

    Args:
        redraws: how often each token is drawn anew on the way, in the mean; positive.
        a: the power of t, at least 0.
        b: the power of 1 - t, at least 0.

    Raises:
        InputError: redraws is not positive, or a or b is negative or not finite.
    """

    redraws: float = 1.0
    a: float = 1.0
    b: float = 1.0

    def __post_init__(self):
        check_positive("redraws of the corrector", self.redraws, advice="For none write None.")
        check_between("a of the corrector", self.a, 0, 1e3)
        check_between("b of the corrector", self.b, 0, 1e3)

    def probability(
        self, t: Float[Array, "*times"], s: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        """The probability that a token is drawn anew between t and s."""
        before, after = (betainc(self.a + 1.0, self.b + 1.0, time) for time in (t, s))
        return -jnp.expm1(-self.redraws * (after - before))

    def apply(
        self, path: TokenPath, x: Tokens, x1: Tokens, t: TokenTimes, s: TokenTimes, u: OfPlaces
    ) -> Tokens:
        """Tokens after a step from t to s, some of them drawn anew from p_s(. | x1).

        Args:
            path: the path of the tokens.
            x: states at s (batch, ...).
            x1: the guess that they were made with (batch, ...).
            t: times (batch,).
            s: times (batch,).
            u: uniform numbers shaped as x.
        """
        chance = jnp.broadcast_to(times_for(self.probability(t, s), x), x.shape)
        # u below the chance is uniform there, once it is divided by it.
        again = u < chance
        inside = jnp.where(again, u / jnp.where(again, chance, 1.0), 0.0)
        anew = invert_cdf(path.probabilities(x1, times_for(s, x)), inside)
        return jnp.where(again, anew, x)
