"""Solvers that diffrax does not have, written as diffrax solvers.

Multistep methods reuse earlier evaluations, so a step costs one. Those in the signal-to-noise ratio
integrate the linear part of the flow exactly: with lambda = log(alpha / sigma) and the predicted
data D(x, t) = E[x1 | x_t = x], the flow of an affine path is

    x(t) = (sigma_t / sigma_s) x(s) + sigma_t int_{lambda_s}^{lambda_t} e^lambda D d lambda.

At the ends of the path lambda is infinite, and a step there is of first order. The last step to
t = 1 answers D at the node before it, which is off by about (sigma / alpha)^2 of that node. With
equal steps h that is h^2 on the straight path and about 2 h on `LinearVP`, where the order of every
one of these solvers is therefore 1. The steps before the last have lengths log 2, log(3 / 2), ...
in lambda on the straight path, however small h is; `dpmpp_2m`, which only extrapolates, therefore
comes near its order 2 slowly: 1.5 was measured from 32 to 128 steps of a Gaussian flow, 1.8 from
256 to 1,024, and 1.9 for UniPC from 32 to 128. To t = 0.9 both have 2 or more. The cosine grid
takes short last steps; the exponential one begins its last step at sigma / alpha = 0.01, and the
error does not fall below the square of that.

Source: Lu et al., arXiv:2211.01095, eq. (9). This module imports diffrax, so it is imported late.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from fmjax.conventions import Array
from fmjax.predictions import convert
from fmjax.schedules import Schedule


class RK4(diffrax.AbstractERK):
    """The classical fourth-order Runge-Kutta method, which has no error estimate."""

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.zeros(4),
        c=np.array([0.5, 0.5, 1.0]),
    )
    interpolation_cls: ClassVar[Callable] = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k


class _Multistep(diffrax.AbstractSolver):
    """What the solvers below share: one evaluation a step, no error estimate."""

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def func(self, terms: Any, t0: Real[ArrayLike, ""], y0: Any, args: Any) -> Any:
        """The velocity."""
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from t0 to t1."""
        field, ends = _in_time(terms, t0, t1, args)
        advance = self.advance  # type: ignore[attr-defined]  # of each solver below
        y1, solver_state = advance(field, *ends, y0, solver_state)
        return y1, None, {"y0": y0, "y1": y1}, solver_state, diffrax.RESULTS.successful


def _in_time(
    terms: Any, t0: Float[Array, ""], t1: Float[Array, ""], args: Any
) -> tuple[Callable, tuple[Array, Array]]:
    """``field(t, x)`` and the ends of a step, in the time of the flow.

    diffrax runs backwards in the time -t, which increases; its field is still that of the flow.
    """
    way = jnp.sign(terms.contr(t0, t1))
    return lambda t, y: terms.vf(way * t, y, args), (way * t0, way * t1)


class _Earlier(NamedTuple):
    """The two evaluations before this one: times (infinite where there is none) and values."""

    t1: Array
    f1: Any
    t2: Array
    f2: Any


class AdamsBashforth(_Multistep):
    """Adams-Bashforth on any grid, of order 2 or 3.

    The velocity is extrapolated by the polynomial through the last evaluations, in Newton's form:
    with f[0, 1] = (f0 - f1) / (t0 - t1), f[0, 1, 2] = (f[0, 1] - f[1, 2]) / (t0 - t2), h the step,

        x(t0 + h) = x + h f0 + h^2 / 2 f[0, 1] + (h^3 / 3 + (t0 - t1) h^2 / 2) f[0, 1, 2].

    An evaluation that there was not lies at t = -inf, where its difference is 0. Order 2 so starts
    with a step of Euler; order 3 with one of Heun, which costs one evaluation more. Source: Hairer,
    Norsett and Wanner, Solving Ordinary Differential Equations I, section III.5.
    """

    order_: int = 2

    def init(self, terms, t0, t1, y0, args):
        """No earlier evaluations; for order 3 the Euler point at the end of the first step."""
        never = jnp.full_like(t0, -jnp.inf)
        if self.order_ == 2:
            zero = jax.tree.map(jnp.zeros_like, y0)
            return _Earlier(never, zero, never, zero)
        field, (t0, t1) = _in_time(terms, t0, t1, args)
        f0 = field(t0, y0)
        ahead = field(t1, jax.tree.map(lambda y, f: y + (t1 - t0) * f, y0, f0))
        return _Earlier(t1, ahead, never, f0)

    def advance(self, field, t0, t1, y0, earlier):
        """One step, and the evaluations for the next one."""
        h, h1, h2 = t1 - t0, t0 - earlier.t1, t0 - earlier.t2
        if self.order_ == 2:
            f0, known = field(t0, y0), earlier.t1
            bend = gap = None
        else:
            # At first the earlier point is the Euler point ahead, which makes the step Heun's.
            first = earlier.t1 == t1
            f0 = jax.lax.cond(first, lambda: earlier.f2, lambda: field(t0, y0))
            known = jnp.where(first, -jnp.inf, earlier.t1)
            bend, gap = (h**3 / 3 + h1 * h**2 / 2) / h2, earlier.t1 - earlier.t2

        def combine(y, f0, f1, f2):
            # Euler's step and the first difference; for order 3 the second difference too.
            y = y + h * f0 + h**2 / (2 * h1) * (f0 - f1)
            return y if bend is None else y + bend * ((f0 - f1) / h1 - (f1 - f2) / gap)

        y1 = jax.tree.map(combine, y0, f0, earlier.f1, earlier.f2)
        return y1, _Earlier(t0, f0, known, earlier.f1)


class _Predicted(NamedTuple):
    """What was known one step back (time, state, data) and two (time, data)."""

    t1: Array
    y1: Any
    d1: Any
    t2: Array
    d2: Any


class LogSNRMultistep(_Multistep):
    """DPM-Solver++ (2M), and with a corrector UniPC of order 2, on any affine path.

    Predictor, with h = lambda_1 - lambda_0, g = lambda_0 - lambda_{-1} and
    A = alpha_1 - alpha_0 sigma_1 / sigma_0:

        x_1 = (sigma_1 / sigma_0) x_0 + A (D_0 + h / (2 g) (D_0 - D_{-1})).

    It is of first order where h or g is infinite, the two ends of the path. The corrector replaces
    x_0, once D_0 is known, by the integral from t_{-1} of the quadratic through D_0, D_{-1} and
    D_{-2}. The first correction knows D_0 and D_{-1} alone, and adds to A D_{-1}

    - ``"paper"``: A (D_0 - D_{-1}) / 2, UniPC with B(h) = expm1(h) and rho = 1/2, which is what
      diffusers calls ``bh2``;
    - ``"interpolated"``: the integral of the line through both, as in the later corrections. From
      t = 0, where lambda is -infinity, that is A (D_0 - D_{-1}).

    Sources: Lu et al., arXiv:2211.01095, algorithm 2; Zhao et al., arXiv:2302.04867, algorithm 1
    with p = 2.
    """

    schedule: Schedule
    corrector: Literal["paper", "interpolated"] | None = None

    def init(self, terms, t0, t1, y0, args):
        """Nothing is known at first."""
        # Not NaN, which jax_debug_nans would stop at.
        zero, never = jax.tree.map(jnp.zeros_like, y0), jnp.full_like(t0, -jnp.inf)
        return _Predicted(never, y0, zero, never, zero)

    def advance(self, field, t0, t1, y0, known):
        """One step, and what is known for the next one."""
        s = self.schedule
        # The one evaluation of the step, as a prediction of the data at the state as predicted.
        f0 = field(t0, y0)

        def data(velocity, x):
            t = jnp.full(x.shape[:1], t0, x.dtype)
            return convert(velocity, x, t, s, source="velocity", target="x1")

        d0 = jax.tree.map(data, f0, y0)
        # UniPC: the new prediction corrects the state it was made at, before going on from it.
        if self.corrector is not None:
            y0 = self._correct(known, t0, y0, d0)
        # Predictor: the data extrapolated linearly in lambda, e^lambda integrated exactly.
        h, g = (_log_ratio(s, b) - _log_ratio(s, a) for a, b in ((t0, t1), (known.t1, t0)))
        ahead = _finite(h / (2 * g))
        keep, gain = _step_weights(s, t0, t1)
        y1 = jax.tree.map(
            lambda y, d, old: keep * y + gain * (d + ahead * (d - old)), y0, d0, known.d1
        )
        return y1, _Predicted(t0, y0, d0, known.t1, known.d1)

    def _correct(self, known, t0, y0, d0):
        s = self.schedule
        # The step from t_{-1} to t_0 again, now that the data at its end are known.
        keep, gain = (_finite(weight) for weight in _step_weights(s, known.t1, t0))
        a0, a1, a2 = (_log_ratio(s, t) for t in (t0, known.t1, known.t2))
        h, g = a0 - a1, a1 - a2
        # Weights of the first and the second divided difference,
        # sigma int e^l (l - l_1) / h and sigma int e^l (l - l_1) (l - l_0), by parts.
        linear = s.alpha(t0) - _finite(gain / h)
        bend = _finite(s.alpha(t0) * h**2 - (2 + h) * h * linear)
        if self.corrector == "paper":  # where D_{-2} is not known, bend multiplies 0
            linear = jnp.where(jnp.isfinite(known.t2), linear, gain / 2)
        started = jnp.isfinite(known.t1)  # no step before the first one

        def corrected(y0, y, d0, d1, d2):
            curve = ((d0 - d1) * _finite(1 / h) - (d1 - d2) * _finite(1 / g)) * _finite(1 / (h + g))
            return jnp.where(started, keep * y + gain * d1 + linear * (d0 - d1) + bend * curve, y0)

        return jax.tree.map(corrected, y0, known.y1, d0, known.d1, known.d2)


def _log_ratio(schedule: Schedule, t: Array) -> Array:
    """lambda; NaN at a time that there was not, whatever the schedule says of it."""
    return jnp.where(
        jnp.isfinite(t), jnp.log(schedule.alpha(t)) - jnp.log(schedule.sigma(t)), jnp.nan
    )


def _step_weights(schedule: Schedule, t0: Array, t1: Array) -> tuple[Array, Array]:
    """What stays of the state over a step, and what constant data adds to it."""
    keep = schedule.sigma(t1) / schedule.sigma(t0)
    return keep, schedule.alpha(t1) - schedule.alpha(t0) * keep


def _finite(x: Array) -> Array:
    """x, 0 where it is infinite or undefined: a term of a step to or from an end of the path."""
    return jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x))
