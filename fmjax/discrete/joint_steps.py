"""A solver of joint states: numbers, tokens and points of manifolds, each by its own step.

The network sees all parts and gives, built as the state is, a velocity for numbers and for points
of a manifold, and logits for tokens. It is evaluated once a step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key, Shaped

from fmjax.array_checks import check_returned
from fmjax.checks import check_methods
from fmjax.conventions import Array, Labels, Times, at_least_float32, expand
from fmjax.discrete.base import check_token_path
from fmjax.discrete.solvers import TokenSolver
from fmjax.discrete.tokens import as_tokens
from fmjax.errors import InputError
from fmjax.manifolds import Manifold
from fmjax.names import named_leaves
from fmjax.paths import Joint, Path
from fmjax.samplers.fixed_steps import take_steps
from fmjax.samplers.sde_integration import with_nodes
from fmjax.samplers.solution import (
    Solution,
    check_forward,
    check_keys,
    checked_times,
    leading_size,
    shared_labels,
)
from fmjax.samplers.time_grids import Grid, fixed_grid, time_grid


class Mover(Protocol):
    """How one part of a state moves; a `TokenSolver` is one for tokens."""

    def move(
        self,
        output: Any,
        x: Shaped[Array, " *shape"],
        t: Float[Array, " batch"],
        s: Float[Array, " batch"],
        keys: Key[Array, " batch"] | None,
    ) -> Shaped[Array, " *shape"]:
        """The part at s, from what the network gave for it at (x, t).

        Args:
            output: the velocity of the part, or its logits.
            x: the part at t (batch, ...).
            t: times (batch,).
            s: times (batch,).
            keys: one per example (batch,), of this step and this part alone.
        """


@dataclass(frozen=True)
class EulerStep:
    """x + (s - t) u, or on a manifold exp_x((s - t) u).

    Args:
        manifold: where the points are; None in flat space.

    Raises:
        InputError: it is no manifold.
    """

    manifold: Manifold | None = None

    def __post_init__(self):
        if self.manifold is not None:
            such_as = "manifolds.Sphere(2)"
            check_methods("the manifold", self.manifold, "exp", "to_tangent", such_as=such_as)

    def move(
        self,
        output: Any,
        x: Shaped[Array, " *shape"],
        t: Float[Array, " batch"],
        s: Float[Array, " batch"],
        keys: Key[Array, " batch"] | None,
    ) -> Shaped[Array, " *shape"]:
        """See `Mover.move`."""
        check_returned("the network", output, "x", x)
        u = at_least_float32(output)
        if self.manifold is None:
            return x + expand(s - t, x) * u
        u = expand(s - t, x) * self.manifold.to_tangent(x, u)
        return self.manifold.project(self.manifold.exp(x, u))


@dataclass(frozen=True, eq=False)
class JointSteps:
    """A `fmjax.samplers.base.Solver` of a pytree, each part by its own step.

        path = Joint({"place": AffinePath(), "kind": MixturePath(5)})
        solver = JointSteps({"place": EulerStep(), "kind": Unmask(path.paths["kind"])}, 64)
        solve_sde(network, x0, keys, labels, solver)

    Args:
        movers: built as the state: `EulerStep`, and for tokens a solver of tokens, whose own steps
            and grid do not count.
        steps: how many; None for 64, or as the times of the grid say.
        grid: as in `TokenSolver`.

    Raises:
        InputError: something is no mover, or the number of steps does not fit the grid.
    """

    movers: Any
    steps: int | None = None
    grid: str | Grid | Times | None = None

    def __post_init__(self):
        if not jax.tree.leaves(self.movers):
            raise InputError(
                f"the movers of a joint state must have at least one; got {self.movers!r}."
            )
        for part, mover in named_leaves(self.movers, "one").items():
            check_methods(f"{part} of the movers", mover, "move", such_as="EulerStep()")
        steps, grid = fixed_grid(self.steps, self.grid, default=64)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "grid", grid)

    def solve(
        self,
        velocity: Callable[[Any, Float[Array, " batch"], Labels], Any],
        x0: Any,
        labels: Labels = None,
        *,
        keys: Key[Array, " batch"] | None = None,
        t0: float = 0.0,
        t1: float = 1.0,
        save_at: Times | None = None,
    ) -> Solution:
        """Carries a state from t0 up to t1; see `fmjax.samplers.base.Solver`.

        Args:
            velocity: the network with its parameters bound, ``network(x, t, labels)``, built as x.
            x0: the state at t0, built as the movers: floats, and integers for tokens.
            labels: as the network takes them.
            keys: one random key per example (batch,).
            t0: where to start, in [0, 1).
            t1: where to end, after t0.
            save_at: times at which to keep the state; each becomes a node of the grid.

        Raises:
            InputError: the state is built otherwise than the movers, or something does not fit, as
                in `TokenSolver.solve`.
        """
        check_methods("the network", velocity, such_as="lambda x, t, labels: ...")
        tree = jax.tree.structure(self.movers)
        x0 = tree.unflatten(self._parts("x0", x0))
        batch = leading_size(x0)
        each = check_keys(keys, batch)
        check_forward(t0, t1)
        labels, times = shared_labels(labels, batch), self.nodes(t0, t1)
        if save_at is not None:
            times, save_at = with_nodes(times, checked_times(save_at, t0, t1))
        movers = jax.tree.leaves(self.movers)

        def step(x: Any, t: Array, s: Array, k: Array) -> Any:
            outputs = self._split("what the network gives", velocity(x, t, labels))
            parts = zip(movers, outputs, jax.tree.leaves(x), strict=True)
            moved = [
                mover.move(output, part, t, s, _keys(each, k, i))
                for i, (mover, output, part) in enumerate(parts)
            ]
            return tree.unflatten(moved)

        return take_steps(step, x0, times, nfe=len(times) - 1, save_at=save_at)

    def describe(self) -> dict[str, Any]:
        """What decides the samples, for JSON."""
        movers = {
            part: mover.describe() if hasattr(mover, "describe") else repr(mover)
            for part, mover in named_leaves(self.movers).items()
        }
        return {"solver": "joint", "steps": self.steps, "grid": repr(self.grid), "movers": movers}

    def nodes(self, t0: float = 0.0, t1: float = 1.0) -> Float[np.ndarray, " nodes"]:
        """The steps + 1 times of the steps, float64."""
        steps, grid = fixed_grid(self.steps, self.grid, default=64)
        return time_grid(grid, steps, t0, t1)

    def evaluation_times(
        self, t0: float = 0.0, t1: float = 1.0
    ) -> Float[np.ndarray, " evaluations"]:
        """Where the steps start, float64."""
        return self.nodes(t0, t1)[:-1]

    def on_path(self, path: Path) -> "JointSteps":
        """The solver for this joint path, whose parts the movers have to fit.

        Raises:
            InputError: the path is not joint, or its parts are built otherwise.
        """
        if not isinstance(path, Joint):
            raise InputError(
                f"a joint solver follows a Joint path; got {type(path).__name__}, whose solver is "
                "its own."
            )
        for mover, part in zip(
            jax.tree.leaves(self.movers), self._split("the paths", path.paths), strict=True
        ):
            if isinstance(mover, TokenSolver):
                check_token_path("the path of a token solver", part)
        return self

    def _parts(self, what: str, x: Any) -> list:
        """The parts of a state, those of tokens checked to be tokens."""
        return [
            as_tokens(what, part, mover.known_path.states)
            if isinstance(mover, TokenSolver)
            else part
            for mover, part in zip(jax.tree.leaves(self.movers), self._split(what, x), strict=True)
        ]

    def _split(self, what: str, x: Any) -> list:
        tree = jax.tree.structure(self.movers)
        try:
            return tree.flatten_up_to(x)
        except ValueError as error:
            raise InputError(
                f"{what} must be built as the movers are, {tree}; got {jax.tree.structure(x)}."
            ) from error


def _keys(keys: Array, step: Array, part: int) -> Array:
    """The keys of one part in one step."""

    def one(key):
        return jax.random.fold_in(jax.random.fold_in(key, step), jnp.int32(part))

    return jax.vmap(one)(keys)
