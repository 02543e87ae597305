"""Steps that stay on a manifold, as diffrax solvers.

`Projected` takes a step of any solver in the space around the manifold, and then the point of the
manifold nearest to its end. The field is evaluated at nearest points too (`field_on`), so that it
is defined wherever a stage leads. The order of the solver is kept: a flow that is tangent to the
manifold stays on it.

`GeodesicEuler` and `GeodesicHeun` go along geodesics. With h the step and k1 = v(x, t):

    Euler  exp_x(h k1),
    Heun   exp_x(h (k1 + k2) / 2),  k2 = v(exp_x(h k1), t + h) transported back to x.

Transport and the derivative of exp differ by O(h^2), so that Heun has order 2. These points are
projected as well: rounding errors of exp would add up.

This module imports diffrax, so it is imported late.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
import numpy as np
from jaxtyping import Float, Real

from fmjax.conventions import Array
from fmjax.manifolds import Manifold

Time = Real[Array | np.ndarray | float, ""]  # as diffrax says


def field_on(manifold: Manifold, field: Callable[..., Any]) -> Callable[..., Any]:
    """A field ``(t, x, args)`` at the nearest point of the manifold, projected to be tangent."""

    def tangent(t, x, args):
        x = manifold.project(x)
        return manifold.to_tangent(x, field(t, x, args))

    return tangent


class Projected(diffrax.AbstractWrappedSolver):
    """A solver each of whose steps ends at the nearest point of the manifold."""

    solver: diffrax.AbstractSolver  # type: ignore[misc]  # diffrax's AbstractVar is a field
    manifold: Manifold

    @property
    def term_structure(self) -> Any:
        """That of the solver."""
        return self.solver.term_structure

    @property
    def interpolation_cls(self) -> Callable:  # type: ignore[override]  # of the object, not the class
        """That of the solver, between the ends before they are projected."""
        return self.solver.interpolation_cls

    @property
    def tableau(self) -> diffrax.ButcherTableau | None:
        """That of the solver, if it has one."""
        return getattr(self.solver, "tableau", None)

    @property
    def scan_kind(self) -> Any:
        """That of the solver, which diffrax sets for derivatives in forward mode."""
        return self.solver.scan_kind  # type: ignore[attr-defined]  # a field of some alone

    def order(self, terms: Any) -> int | None:
        """That of the solver."""
        return self.solver.order(terms)

    def init(self, terms, t0, t1, y0, args):
        """The state of the solver."""
        return self.solver.init(terms, t0, t1, y0, args)

    def func(self, terms: Any, t0: Time, y0: Any, args: Any) -> Any:
        """The velocity."""
        return self.solver.func(terms, t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from t0 to t1."""
        y1, *rest = self.solver.step(terms, t0, t1, y0, args, solver_state, made_jump)
        return self.manifold.project(y1), *rest


class GeodesicInterpolation(diffrax.AbstractLocalInterpolation):
    """exp_{y0}(s first + s^2 bend), with s from 0 to 1 over the step."""

    t0: Float[Array, ""]  # type: ignore[misc]  # diffrax's AbstractVar is a field
    t1: Float[Array, ""]  # type: ignore[misc]  # as above
    y0: Any
    first: Any
    bend: Any
    manifold: Manifold

    def evaluate(
        self,
        t0: Time,
        t1: Time | None = None,
        left: bool = True,
    ) -> Any:
        """The point at t0; diffrax asks for no differences, which a manifold has not."""
        s = (t0 - self.t0) / (self.t1 - self.t0)
        u = jax.tree.map(lambda a, b: s * a + s**2 * b, self.first, self.bend)
        return self.manifold.exp(self.y0, u)


class GeodesicEuler(diffrax.AbstractSolver):
    """exp_x(h v(x, t)), of order 1."""

    manifold: Manifold

    term_structure: ClassVar = diffrax.AbstractTerm

    @property
    def interpolation_cls(self) -> Callable:  # type: ignore[override]  # of the object, not the class
        """Points of the geodesic."""
        return functools.partial(GeodesicInterpolation, manifold=self.manifold)

    def order(self, terms: Any) -> int:
        """The global order."""
        return 1

    def init(self, terms, t0, t1, y0, args):
        """No state."""
        return

    def func(self, terms: Any, t0: Time, y0: Any, args: Any) -> Any:
        """The velocity."""
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from t0 to t1."""
        first = terms.vf_prod(t0, y0, args, terms.contr(t0, t1))
        y1 = self.manifold.project(self.manifold.exp(y0, first))
        info = {"y0": y0, "first": first, "bend": jax.tree.map(lambda u: 0 * u, first)}
        return y1, None, info, None, diffrax.RESULTS.successful


class GeodesicHeun(diffrax.AbstractAdaptiveSolver):
    """exp_x(h (k1 + k2) / 2), of order 2, with h (k2 - k1) / 2 to estimate its error."""

    manifold: Manifold

    term_structure: ClassVar = diffrax.AbstractTerm
    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.Heun.tableau
    interpolation_cls = GeodesicEuler.interpolation_cls

    def order(self, terms: Any) -> int:
        """The global order."""
        return 2

    def init(self, terms, t0, t1, y0, args):
        """No state."""
        return

    def func(self, terms: Any, t0: Time, y0: Any, args: Any) -> Any:
        """The velocity."""
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from t0 to t1."""
        m, h = self.manifold, terms.contr(t0, t1)
        first = terms.vf_prod(t0, y0, args, h)
        there = m.project(m.exp(y0, first))
        second = m.transport(there, y0, terms.vf_prod(t1, there, args, h))
        bend = jax.tree.map(lambda a, b: (b - a) / 2, first, second)
        y1 = m.project(m.exp(y0, jax.tree.map(lambda a, b: a + b, first, bend)))
        info = {"y0": y0, "first": first, "bend": bend}
        return y1, bend, info, None, diffrax.RESULTS.successful
