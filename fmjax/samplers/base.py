"""What every solver is: an object that solves, describes itself, and says what it will evaluate."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Key

from fmjax.conventions import Array, Labels, Times, Velocity
from fmjax.errors import InputError
from fmjax.paths import Path
from fmjax.samplers.solution import Solution


@runtime_checkable
class Solver(Protocol):
    """How samples are made from a velocity; hashable, so that it can be static under jit.

    `solver_spec` and `sde_spec` make those of this package. One of your own is a frozen dataclass
    with these five methods; `fmjax.samplers.fixed_steps.take_steps` does most of its work.
    """

    def solve(
        self,
        velocity: Velocity,
        x0: Any,
        labels: Labels = None,
        *,
        keys: Key[Array, " batch"] | None = None,
        t0: float = 0.0,
        t1: float = 1.0,
        save_at: Times | None = None,
    ) -> Solution:
        """Carries x0 from t0 to t1.

        Args:
            velocity: ``velocity(x, t, labels)``, t (batch,).
            x0: the state at t0 (batch, ...), or a pytree of such arrays.
            labels: as the caller gave them; `fmjax.conditions.share` repeats lone ones.
            keys: one random key per example (batch,), for solvers with noise; others ignore them.
            t0: where to start.
            t1: where to end.
            save_at: times from t0 to t1 at which to keep the state.

        Returns:
            The state at t1, with what it cost.
        """

    def describe(self) -> dict[str, Any]:
        """All that decides the samples, by name; it goes into JSON."""

    def nodes(self, t0: float = 0.0, t1: float = 1.0) -> Float64[np.ndarray, " nodes"] | None:
        """The times of fixed steps, both ends included, float64; None where steps are adaptive."""

    def evaluation_times(
        self, t0: float = 0.0, t1: float = 1.0
    ) -> Float64[np.ndarray, " times"] | None:
        """When the velocity is evaluated, as many times as ``nfe``, float64.

        None where that is not known before the solve.
        """

    def on_path(self, path: Path) -> "Solver":
        """The solver for a flow that was trained on this path.

        Raises:
            InputError: the solver needs what this path does not have.
        """


def check_solver(spec: Any) -> None:
    """Checks that it has the methods of a `Solver`.

    Raises:
        InputError: it lacks one.
    """
    if isinstance(spec, Solver):
        return
    names = ("solve", "describe", "nodes", "evaluation_times", "on_path")
    missing = [name for name in names if not hasattr(spec, name)]
    raise InputError(
        f"the spec must be a solver, such as solver_spec('heun', 25); got {spec!r}, which has no "
        f"{', '.join(missing)}."
    )
