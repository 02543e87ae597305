"""Diffusion coefficients g(t): how much noise an SDE of the flow adds, and where."""

import math
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_between, check_name
from fmjax.conventions import Array, TimeFunction
from fmjax.errors import InputError
from fmjax.paths import Path

Coefficient = Literal["constant", "sigma", "sigma_squared", "zero_ends"]
DIFFUSIONS: tuple[Coefficient, ...] = get_args(Coefficient)
"""The names that `diffusion_coefficient` knows."""

Diffusion = Coefficient | TimeFunction
"""A name of `DIFFUSIONS`, or g itself, a function of t (any shape) that is not negative."""


def diffusion_coefficient(diffusion: Diffusion, scale: float, path: Path) -> TimeFunction:
    """The function g(t), with g^2 = scale w(t).

    =================  ==============  =============================================================
    ``constant``       w = 1           the drift grows like 1 / sigma towards data without a density
    ``sigma``          w = 2 sigma     the drift is u - scale E[x0 | x]: bounded up to t = 1
    ``sigma_squared``  w = 2 sigma^2   dies out sooner
    ``zero_ends``      w = sin^2 pi t  none at both ends, most in the middle
    a function g       w = g^2
    =================  ==============  =============================================================

    The marginals of the flow do not depend on the choice. Source of the idea and of ``constant``,
    ``sigma`` and ``zero_ends``, up to factors: Ma et al., arXiv:2401.08740.

    Args:
        diffusion: a name of `DIFFUSIONS`, or g.
        scale: not negative; 0 leaves the ODE.
        path: of the flow; its schedule is the sigma above.

    Returns:
        g, a function of t.

    Raises:
        InputError: the name is unknown, the scale is negative or not finite, or the path has no
            schedule and so no sigma.
    """
    check_between("the scale of the diffusion", scale, 0, math.inf, "[)")
    if callable(diffusion):
        return lambda t: math.sqrt(scale) * _checked(diffusion(t), t)
    check_name("diffusion", diffusion, DIFFUSIONS)
    if diffusion == "constant":
        return lambda t: jnp.full_like(t, math.sqrt(scale))
    if diffusion == "zero_ends":
        return lambda t: math.sqrt(scale) * jnp.sin(math.pi * t)
    schedule = getattr(path, "schedule", None)
    if schedule is None:
        raise InputError(
            f"{type(path).__name__} has no sigma_t, so that diffusion={diffusion!r} says nothing; "
            "take 'constant', 'zero_ends' or a function g(t)."
        )
    power = 0.5 if diffusion == "sigma" else 1.0
    return lambda t: math.sqrt(2.0 * scale) * schedule.sigma(t) ** power


def _checked(g: Float[Array, "*t"], t: Float[Array, "*t"]) -> Float[Array, "*t"]:
    check_returned("the diffusion", g, "t", t)
    return g
