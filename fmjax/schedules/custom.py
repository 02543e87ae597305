"""A schedule from any pair of functions, checked when it is made."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_methods
from fmjax.conventions import Array, TimeFunction
from fmjax.errors import InputError
from fmjax.schedules.base import END, clamp, with_slope


@dataclass(frozen=True)
class Custom:
    """A schedule from any two functions of time; the derivatives come from autodiff.

    At an end where a first or second derivative is not finite, as that of sqrt(1 - t^2) at t = 1,
    the derivatives are read `END` inside instead; the values stay those of the functions.

    Args:
        alpha_fn: alpha_t of t, elementwise, any shape; made of jax operations.
        sigma_fn: sigma_t of t, likewise.
        tolerance: how far alpha_0 and sigma_1 may lie from 0, and alpha_1 and sigma_0 from 1. The
            default admits `VP` and Lipman's sigma_min up to 0.01.

    Raises:
        InputError: a function is not elementwise, not finite or negative, has another end than a
            path must have, or alpha_t / sigma_t does not increase strictly (checked at 257 times).
    """

    alpha_fn: TimeFunction
    sigma_fn: TimeFunction
    tolerance: float = 1e-2
    _alpha_ends: tuple[float, float] = field(init=False, repr=False, compare=False)
    _sigma_ends: tuple[float, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        with jax.ensure_compile_time_eval():
            t = jnp.linspace(0.0, 1.0, 257)
            alpha = _checked_values("alpha", self.alpha_fn, t)
            sigma = _checked_values("sigma", self.sigma_fn, t)
            _check_ends(alpha, sigma, self.tolerance)
            _check_snr(alpha, sigma)
            object.__setattr__(self, "_alpha_ends", _smooth_interval("alpha", self.alpha_fn, t))
            object.__setattr__(self, "_sigma_ends", _smooth_interval("sigma", self.sigma_fn, t))

    def alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The first function."""
        return _value(self.alpha_fn, self.d_alpha, self._alpha_ends, t)

    def sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The second function."""
        return _value(self.sigma_fn, self.d_sigma, self._sigma_ends, t)

    def d_alpha(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The derivative of the first function."""
        return _slope(self.alpha_fn, clamp(t, *self._alpha_ends))

    def d_sigma(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """The derivative of the second function."""
        return _slope(self.sigma_fn, clamp(t, *self._sigma_ends))


def _slope(f: Callable[[Array], Array], t: Array) -> Array:
    return jax.jvp(f, (t,), (jnp.ones_like(t),))[1]


def _value(f, slope, ends, t: Array) -> Array:
    # A function that autodiff can handle everywhere is left to it.
    return f(t) if ends == (0.0, 1.0) else with_slope(f, slope, t)


def _smooth_interval(name: str, f: Callable[[Array], Array], t: Array) -> tuple[float, float]:
    """Where the derivatives of f are read: [0, 1], or `END` inside where one is not finite."""
    first = np.asarray(_slope(f, t))
    second = np.asarray(_slope(lambda t: _slope(f, t), t))
    if not np.all(np.isfinite(first[1:-1])):
        bad = float(t[1:-1][~np.isfinite(first[1:-1])][0])
        raise InputError(
            f"the derivative of {name} must be finite inside (0, 1); at {bad:g} it is not."
        )
    smooth = np.isfinite(first) & np.isfinite(second)
    return 0.0 if smooth[0] else END, 1.0 if smooth[-1] else 1.0 - END


def _checked_values(name: str, f: Callable[[Array], Array], t: Array) -> np.ndarray:
    check_methods(f"{name}_fn", f, such_as="lambda t: ...")
    returned = f(t)
    check_returned(f"{name}_fn", returned, "t", t)
    values = np.asarray(returned, np.float64)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{name} of a custom schedule must be finite and not negative on [0, 1]; "
            f"{name}({float(t[at]):g}) = {values[at]:g}."
        )
    return values


def _check_ends(alpha: np.ndarray, sigma: np.ndarray, tolerance: float) -> None:
    wanted = {"alpha(0)": (alpha[0], 0), "alpha(1)": (alpha[-1], 1)}
    wanted |= {"sigma(0)": (sigma[0], 1), "sigma(1)": (sigma[-1], 0)}
    wrong = [
        f"{name} = {got:g} instead of {want}"
        for name, (got, want) in wanted.items()
        if abs(got - want) > tolerance
    ]
    if wrong:
        raise InputError(
            "a schedule goes from the source (t = 0) to the data (t = 1): alpha from 0 to 1, sigma "
            f"from 1 to 0, within tolerance={tolerance:g}. Got {', '.join(wrong)}."
        )


def _check_snr(alpha: np.ndarray, sigma: np.ndarray) -> None:
    # As a product across neighbours, alpha / sigma is compared without dividing by sigma_1 = 0.
    steps = alpha[1:] * sigma[:-1] - alpha[:-1] * sigma[1:]
    if not np.all(steps > 0):
        at = int(np.argmin(steps > 0)) / len(steps)
        raise InputError(
            "alpha / sigma of a custom schedule must increase strictly with t (the signal-to-noise "
            f"ratio, from source to data); from t = {at:g} on it does not."
        )
