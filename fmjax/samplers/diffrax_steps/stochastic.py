"""Steps with noise, as a diffrax solver around a step of the ODE.

A step from t to t' of size h draws one standard normal xi for each example, and changes the step of
the ODE in one of four ways. With g the diffusion coefficient, z = g^2 h / sigma^2 is about the
share of the noise in x that is replaced.

``drift``: the velocity becomes u + g^2 / 2 score + g xi / sqrt(h), constant noise over the step.
For Euler it is Euler and Maruyama's step, for Heun the stochastic Heun step of additive noise. On a
manifold xi is drawn in the tangent space and the step is along a geodesic, which makes it the
geodesic random walk (De Bortoli et al., arXiv:2202.02763, algorithm 1).

``churn``: before the step, x is taken back to the time r < t whose ratio (sigma / alpha)^2 is 1 + z
times that at t, by x_r = (alpha_r / alpha) x + sqrt(sigma_r^2 - (alpha_r sigma / alpha)^2) xi.

``overshoot``: the step goes on to the time o > t' whose ratio is that at t' divided by 1 + z, and
the point there is taken back to t' in the same way.

``refresh``: after the step, the noise x0 in it is replaced in part,
x = alpha' x1 + sigma' (sqrt(1 - eta^2) x0 + eta xi) with eta^2 = z / (1 + z).

All converge to the SDE dx = (u + g^2 / 2 score) dt + g dW as h goes to 0:

- Going back adds noise of variance alpha_r^2 z (sigma / alpha)^2 = g^2 h + O(h^2), over a time d
  with 2 d (sigma^2 alpha' / alpha - sigma sigma') = g^2 h + O(h^2), a prime the derivative. It
  moves x by -d (alpha' / alpha) x, and the ODE over the same time by d u. Together that is
  d (u - (alpha' / alpha) x) = d (sigma^2 alpha' / alpha - sigma sigma') score = g^2 h / 2 score.
- Refreshing adds noise of variance sigma^2 eta^2 = g^2 h + O(h^2), and moves x by
  sigma (sqrt(1 - eta^2) - 1) x0 = -(z / 2) sigma x0 + O(h^2) = g^2 h / 2 score + O(h^2).

A g that does not vanish at the data, where sigma does, slows churn and refresh down: refresh has no
more than sigma to replace, and its order falls from 1 to 1/2.

Going back is exact for the marginals of an affine path, so that churn and overshoot err in them by
the steps of the ODE alone, whatever g is. This module imports diffrax, so it is imported late.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Key, Real, UInt32

from fmjax.conventions import Array, Labels, TimeFunction
from fmjax.manifolds import Manifold
from fmjax.schedules import inverse_log_snr, log_snr


class StepArgs(NamedTuple):
    """What the velocity is called with, beside x and t.

    Attributes:
        labels: the conditions.
        keys: the data of one random key per example (batch, ...). jax_debug_key_reuse takes a key
            that enters diffrax's loop for one that is used in every step, though steps fold it.
        on: 1, or 0 in a step without noise.
        force: the noise of the step, xi / sqrt(h), shaped as x; 0 outside of ``drift``.
    """

    labels: Labels
    keys: UInt32[Array, "batch ..."]
    on: Float[Array, ""] | float = 0.0
    force: Float[Array, "batch ..."] | float = 0.0


def step_noise(
    keys: Key[Array, " batch"],
    step: Int[Array, ""],
    x: Float[Array, " batch *shape"],
    manifold: Manifold | None = None,
) -> Float[Array, " batch *shape"]:
    """Standard normal noise shaped as x; that of an example depends on its key and the step.

    On a manifold it is standard normal in the tangent space at x.
    """
    shape = x.shape[1:]
    if manifold is not None:
        shape = (*shape[: len(shape) - len(manifold.shape)], manifold.dim)

    def one(key):
        return jax.random.normal(jax.random.fold_in(key, step), shape, x.dtype)

    xi = jax.vmap(one)(keys)
    return xi if manifold is None else manifold.tangent(x, xi)


class NoisySolver(diffrax.AbstractSolver):
    """The step of the ODE by `base`, with noise in the way that `kind` names (see the module)."""

    base: diffrax.AbstractSolver
    kind: str
    diffusion: TimeFunction
    schedule: Any  # of the path; None where it has none, which is for ``drift`` alone
    last: int  # the step that takes no noise; -1 for none
    key_impl: Any  # of the keys, as `jax.random.key_impl` names it
    manifold: Manifold | None = None

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def init(self, terms, t0, t1, y0, args):
        """The number of the step."""
        return jnp.zeros((), jnp.int32)

    def func(self, terms: Any, t0: Real[ArrayLike, ""], y0: Any, args: Any) -> Any:
        """The velocity."""
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from t0 to t1."""
        on = solver_state != self.last
        keys = jax.random.wrap_key_data(args.keys, impl=self.key_impl)
        xi = step_noise(keys, solver_state, y0, self.manifold)

        def ode(start, end, x, args):
            return self.base.step(terms, start, end, x, args, None, made_jump)[0]

        y1 = getattr(self, f"_{self.kind}")(ode, t0, t1, y0, args, on, xi)
        info = {"y0": y0, "y1": y1}
        return y1, None, info, solver_state + 1, diffrax.RESULTS.successful

    def _drift(self, ode, t0, t1, x, args, on, xi):
        return ode(t0, t1, x, args._replace(on=on.astype(x.dtype), force=xi / jnp.sqrt(t1 - t0)))

    def _churn(self, ode, t0, t1, x, args, on, xi):
        z = self._share(t0, t1 - t0, on)  # a change of the log signal-to-noise ratio
        earlier = inverse_log_snr(self.schedule, log_snr(self.schedule, t0) - z)
        earlier = jnp.where(z > 0, jnp.minimum(earlier, t0), t0)
        return ode(earlier, t1, self._back(t0, earlier, x, xi), args)

    def _overshoot(self, ode, t0, t1, x, args, on, xi):
        z = self._share(t1, t1 - t0, on)
        later = inverse_log_snr(self.schedule, log_snr(self.schedule, t1) + z)
        later = jnp.where(z > 0, jnp.maximum(later, t1), t1)
        return self._back(later, t1, ode(t0, later, x, args), xi)

    def _refresh(self, ode, t0, t1, x, args, on, xi):
        s, z = self.schedule, self._share(t1, t1 - t0, on)
        after = ode(t0, t1, x, args)
        # The noise and data that x and the end of the step are made of, one equation each.
        det = s.alpha(t0) * s.sigma(t1) - s.alpha(t1) * s.sigma(t0)
        x0 = (s.alpha(t0) * after - s.alpha(t1) * x) / det
        # exp(-z / 2) = sqrt(1 - eta^2), with the z of `_share`.
        return after + s.sigma(t1) * (jnp.expm1(-0.5 * z) * x0 + jnp.sqrt(-jnp.expm1(-z)) * xi)

    def _share(self, t: Array, h: Array, on: Array) -> Array:
        """log(1 + g^2 h / sigma^2) at t; infinite where there is no noise left to replace."""
        square, variance = self.diffusion(t) ** 2 * h, self.schedule.sigma(t) ** 2
        some = variance > 0
        z = jnp.where(some, jnp.log1p(square / jnp.where(some, variance, 1.0)), jnp.inf)
        return jnp.where(on, z, 0.0)

    def _back(self, late: Array, early: Array, x: Array, xi: Array) -> Array:
        """A point of the marginal at `late`, made one of the earlier marginal."""
        s, moved = self.schedule, late != early
        keep = jnp.where(moved, s.alpha(early) / jnp.where(moved, s.alpha(late), 1.0), 1.0)
        variance = s.sigma(early) ** 2 - (keep * s.sigma(late)) ** 2
        std = jnp.sqrt(jnp.where(moved & (variance > 0), variance, 0.0))
        return keep * x + std * xi
