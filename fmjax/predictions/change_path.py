"""Change of path after training: the scheduler transform."""

import functools

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import as_floats, check_returned, times_of
from fmjax.checks import check_methods
from fmjax.conventions import Array, Labels, Velocity, expand
from fmjax.predictions.conversions import det_of, reach
from fmjax.schedules import Schedule, clamp, inverse_log_snr, log_snr, with_slope
from fmjax.schedules.base import check_schedule


def change_path(
    velocity: Velocity, source_schedule: Schedule, target_schedule: Schedule
) -> Velocity:
    """Uses a velocity trained on the path A = source_schedule on the path B = target_schedule.

    With s(t) the time at which A has the signal-to-noise ratio that B has at t, and c(t) the scale
    between them, x_t of B is c(t) times x_s of A, so that

    u_B(x, t) = (c' / c) x + c s' u_A(x / c, s).

    Both flows start from the same x0 and end at the same x1; only the way and its speed differ.
    This uses no score, so x0 and x1 may be coupled, and the source be any. For the score of the
    changed velocity (`convert`, `fmjax.samplers.sde.solve_sde`) x0 must be standard normal and
    independent of x1, as for that of any velocity. A
    ratio that A never takes (below that of `VP` at t = 0) is answered at the nearest end of A, so
    that the ends agree as far as alpha_0 is 0. Source: Lipman et al., arXiv:2412.06264, on changing
    the scheduler after training; Pokle et al., arXiv:2310.04432.

    Args:
        velocity: ``velocity(x, t, labels)``, trained on A.
        source_schedule: A.
        target_schedule: B.

    Returns:
        ``velocity(x, t, labels)`` on B, t (batch,); finite at both ends.
    """
    a, b = source_schedule, target_schedule
    check_schedule("source_schedule", a)
    check_schedule("target_schedule", b)
    check_methods("the velocity", velocity, such_as="lambda x, t, labels: ...")

    def changed(
        x: Float[Array, " batch *shape"], t: Float[Array, "batch ..."], labels: Labels = None
    ) -> Float[Array, " batch *shape"]:
        x = as_floats("x", x)
        t = times_of(t, x)
        s, d_s, c, d_c = _match(a, b, clamp(t, *_reach_of_match(a, b)))
        c, d_c, d_s = (expand(factor, x) for factor in (c, d_c, d_s))
        u = velocity(x / c, s, labels)
        check_returned("the velocity", u, "x", x)
        return (d_c / c) * x + c * d_s * u

    return changed


@functools.lru_cache(maxsize=256)
def _reach_of_match(a: Schedule, b: Schedule) -> tuple[float, float]:
    """Where the velocity on A says something, in the time of B: `_match` divides by its det."""
    return reach(lambda t: det_of(a, "velocity", _time(a, b, t)))


def _time(a: Schedule, b: Schedule, t: Array) -> Array:
    """The time s at which A has the signal-to-noise ratio of B at t."""
    return inverse_log_snr(a, log_snr(b, t))


def _scale(a: Schedule, b: Schedule, t: Array, s: Array) -> Array:
    """The scale c with alpha_B = c alpha_A(s) and sigma_B = c sigma_A(s), by least squares.

    At an end one of the two equations is 0 = 0; least squares reads the other.
    """
    alpha, sigma = a.alpha(s), a.sigma(s)
    return (alpha * b.alpha(t) + sigma * b.sigma(t)) / (alpha**2 + sigma**2)


def _match(a: Schedule, b: Schedule, t: Array) -> tuple[Array, Array, Array, Array]:
    """s, ds/dt, c and dc/dt of `change_path`.

    ds/dt = det_B / (c^2 det_A) follows from the ratios' derivatives. It is finite where that of the
    inverse ratio is infinity over infinity, so jax is told to use it too.
    """

    def time(t):
        return _time(a, b, t)

    def speed(t):
        s = with_slope(time, speed, t)
        c = _scale(a, b, t, s)
        # Beyond the ratios that A takes, s rests at an end.
        taken = jnp.abs(a.alpha(s) * b.sigma(t) - a.sigma(s) * b.alpha(t)) < 1e-5
        rate = det_of(b, "velocity", t) / (c**2 * det_of(a, "velocity", s))
        return jnp.where(taken, rate, 0.0)

    s, d_s = with_slope(time, speed, t), speed(t)
    c, alpha, sigma = _scale(a, b, t, s), a.alpha(s), a.sigma(s)
    residual_alpha = b.d_alpha(t) - c * a.d_alpha(s) * d_s
    residual_sigma = b.d_sigma(t) - c * a.d_sigma(s) * d_s
    d_c = (alpha * residual_alpha + sigma * residual_sigma) / (alpha**2 + sigma**2)
    return s, d_s, c, d_c
