"""Chains of jumps: sampling with a flow map, in as many evaluations as there are jumps.

    X_{s,t}(x) = x + (t - s) u(x, s, t)

On a manifold X_{s,t}(x) = exp_x((t - s) u(x, s, t)), with u projected to the tangent space at x.

With renoise = gamma above 0 each step from s to t is stochastic (CTM, arXiv:2310.02279; gamma = 1
is the sampling of consistency models, arXiv:2303.01469). It jumps further, to the time q at which
the ratio of noise to signal is smaller by a factor, and adds the noise that is then missing:

    sigma_q / alpha_q = sqrt(1 - gamma^2) sigma_t / alpha_t
    x_t = c X_{s,q}(x_s) + sqrt(sigma_t^2 - c^2 sigma_q^2) z,   c = alpha_t / alpha_q

where z is standard normal. As X_{s,q}(x_s) is distributed as alpha_q x1 + sigma_q x0, x_t is
distributed as alpha_t x1 + sigma_t x0 if x0 is standard normal and independent of x1. gamma = 1
jumps to the data, q = 1, and noises them to t. No noise is added where sigma_t = 0, at t = 1.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

from fmjax.array_checks import check_returned
from fmjax.checks import check_between, check_methods
from fmjax.conventions import (
    Array,
    Batched,
    Labels,
    Span,
    Times,
    Velocity,
    at_least_float32,
    expand,
)
from fmjax.errors import InputError
from fmjax.manifolds import Manifold
from fmjax.paths import Path, manifold_of, schedule_of
from fmjax.samplers.fixed_steps import take_steps
from fmjax.samplers.solution import (
    Solution,
    batch_size_of,
    check_ends,
    check_noisy_solve,
    checked_times,
    shared_labels,
)
from fmjax.samplers.time_grids import (
    Grid,
    UniformGrid,
    check_grid_on_manifold,
    fixed_grid,
    time_at_ratio,
    time_grid,
)
from fmjax.schedules import Linear, Schedule
from fmjax.schedules.base import check_schedule


@dataclass(frozen=True)
class Jumps:
    """A `fmjax.samplers.base.Solver` that jumps from each time of a grid to the next.

        solve(velocity, x0, labels, Jumps(2))            # velocity(x, Span(s, t), labels)
        solve_sde(velocity, x0, keys, labels, Jumps(4, renoise=1.0))

    Args:
        steps: how many jumps, each one evaluation; None for one, or as the times of the grid say.
        grid: where they start and end: a name of `fmjax.samplers.time_grids.GRIDS`, a grid, or the
            times themselves; None is the uniform one.
        renoise: gamma in [0, 1]: how much of the noise is drawn anew after each jump, for a flow
            that was trained with a standard normal x0 independent of x1. 0 draws none, and runs
            backwards, too.
        schedule: of the path, for ``renoise`` and for grids in its signal-to-noise ratio.
        manifold: where the flow is; None in flat space.

    Raises:
        InputError: the number of jumps does not fit, the grid is none, or renoise lies outside
            [0, 1]; or on a manifold there is renoise, or the grid is in the signal-to-noise ratio.
    """

    steps: int | None = None
    grid: str | Grid | Times | None = field(default_factory=UniformGrid)
    renoise: float = 0.0
    schedule: Schedule = field(default_factory=Linear)
    manifold: Manifold | None = None

    def __post_init__(self):
        steps, grid = fixed_grid(self.steps, self.grid, default=1)
        check_between("renoise", self.renoise, 0, 1)
        check_schedule("the schedule", self.schedule)
        if self.manifold is not None:
            check_methods("the manifold", self.manifold, "exp", "log", such_as="Sphere(2)")
            check_grid_on_manifold(grid)
            if self.renoise:
                raise InputError(
                    f"renoise={self.renoise:g} adds the noise of an affine path, which a flow on "
                    f"{self.manifold} has not; write renoise=0."
                )
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "grid", grid)

    def solve(
        self,
        velocity: Velocity,
        x0: Any,
        labels: Labels = None,
        *,
        keys: Shaped[Array, "batch ..."] | None = None,
        t0: float = 0.0,
        t1: float = 1.0,
        save_at: Times | None = None,
    ) -> Solution:
        """Carries x0 from t0 to t1 in jumps; see `fmjax.samplers.base.Solver`.

        Args:
            velocity: the average velocity, ``velocity(x, Span(s, t), labels)``, s and t (batch,).
            x0: the state at t0, floats (batch, ...); without renoise also a pytree of such arrays.
            labels: as the velocity takes them.
            keys: one random key per example (batch,), for renoise; not used without.
            t0: where to start.
            t1: where to end; with renoise after t0.
            save_at: times at which to keep the state. To one between two times of the grid there is
                a jump of its own, which is counted and changes no other state.

        Raises:
            InputError: something does not fit, as in `fmjax.samplers.ode.solve`, or, with renoise,
                in `fmjax.samplers.sde.solve_sde`.
        """
        check_ends(t0, t1)
        batch = check_noisy_solve(x0, keys, t0, t1) if self.renoise else batch_size_of(x0)
        labels = shared_labels(labels, batch)
        x0, times = jax.tree.map(at_least_float32, x0), self.nodes(t0, t1)
        if self.manifold is not None:
            self.manifold.check("x0", x0)

        def jump(x: Any, s: Float[Array, " batch"], t: Float[Array, " batch"]) -> Any:
            u = velocity(x, Span(s, t), labels)
            check_returned("the velocity", u, "x", x)
            return self.land(x, t - s, u)

        step = self._noisy(jump, times, keys) if self.renoise else lambda x, s, t, k: jump(x, s, t)
        if save_at is None:
            return take_steps(step, x0, times, nfe=len(times) - 1)
        saved = checked_times(save_at, t0, t1)
        extra = len(np.setdiff1d(saved, times))
        solution = take_steps(step, x0, times, nfe=len(times) - 1 + extra, save_at=times)
        return solution._replace(trajectory=_at(jump, saved, times, solution.trajectory))

    def land(self, x: Any, duration: Float[Array, " batch"], u: Any) -> Any:
        """Where a jump of this duration (batch,) with the average velocity u leads from x."""
        if self.manifold is None:
            return jax.tree.map(lambda x, u: x + expand(duration, x) * u, x, u)
        u = jax.tree.map(lambda x, u: jnp.asarray(u, x.dtype), x, u)
        way = jax.tree.map(lambda u: expand(duration, u) * u, self.manifold.to_tangent(x, u))
        return self.manifold.project(self.manifold.exp(x, way))

    def _noisy(self, jump, times: Float[np.ndarray, " times"], keys: Any) -> Callable:
        """A step that jumps further than to t, and adds the noise that x_t then lacks."""
        schedule = self.schedule
        further = jnp.asarray(self._landings(times[1:]))

        def step(
            x: Batched, s: Float[Array, " batch"], t: Float[Array, " batch"], k: Int[Array, ""]
        ) -> Batched:
            q = jnp.full_like(t, further.astype(t.dtype)[k])
            scale = schedule.alpha(t) / schedule.alpha(q)
            missing = jnp.square(schedule.sigma(t)) - jnp.square(scale * schedule.sigma(q))
            z = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(
                jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, k)
            )
            noise = expand(jnp.sqrt(jnp.maximum(missing, 0.0)), x) * z
            return expand(scale, x) * jump(x, s, q) + noise

        return step

    def _landings(self, times: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """Where the jumps before the noise end, for each time after it, float64."""
        with jax.ensure_compile_time_eval():
            t = jnp.asarray(times)
            ratio = np.asarray(self.schedule.sigma(t) / self.schedule.alpha(t), np.float64)
        # Where rounding, or an end of the schedule, would have it turn back, it ends at t itself.
        return np.maximum(times, time_at_ratio(self.schedule, np.sqrt(1 - self.renoise**2) * ratio))

    def describe(self) -> dict[str, Any]:
        """What decides the samples, for JSON."""
        described: dict[str, Any] = {
            "solver": "jumps",
            "steps": self.steps,
            "grid": repr(self.grid),
        }
        if self.renoise:
            described["renoise"] = float(self.renoise)
        if self.manifold is not None:
            described["manifold"] = repr(self.manifold)
        return described

    def nodes(self, t0: float = 0.0, t1: float = 1.0) -> Float64[np.ndarray, " {self.steps+1}"]:
        """The steps + 1 times from and to which it goes, float64.

        Raises:
            InputError: the grid does not reach from t0 to t1.
        """
        steps, grid = fixed_grid(self.steps, self.grid, default=1)
        return time_grid(grid, steps, t0, t1, self.schedule)

    def evaluation_times(self, t0: float = 0.0, t1: float = 1.0) -> Float64[np.ndarray, " steps"]:
        """Where the jumps start, float64.

        Raises:
            InputError: as in `nodes`.
        """
        return self.nodes(t0, t1)[:-1]

    @property
    def needs_span(self) -> bool:
        """True: it asks a network of two times for average velocities."""
        return True

    @property
    def needs_normal_source(self) -> bool:
        """Whether it takes x0 to be standard normal and independent of x1."""
        return self.renoise > 0

    def on_path(self, path: Path) -> "Jumps":
        """The solver with the schedule of the path, or its manifold, if it has one.

        Raises:
            InputError: the path has no schedule, and noise is to be drawn anew; or the solver has
                another manifold than the path.
        """
        schedule, manifold = schedule_of(path), manifold_of(path)
        if self.manifold is not None and repr(self.manifold) != repr(manifold):
            raise InputError(
                f"the jumps are on {self.manifold}, and the path is {path}; leave the manifold of "
                "Jumps out, which takes that of the path."
            )
        if schedule is not None:
            return Jumps(self.steps, self.grid, self.renoise, schedule)
        if self.renoise:
            raise InputError(
                f"renoise={self.renoise:g} adds the noise of an affine path, and "
                f"{type(path).__name__} is none; write renoise=0."
            )
        return self if manifold is None else dataclasses.replace(self, manifold=manifold)


def _at(
    jump, saved: Float[np.ndarray, " saved"], times: Float[np.ndarray, " times"], states: Any
) -> Any:
    """The states at the times saved: those of the grid, elsewhere a jump from the last of them."""
    sign = np.sign(times[-1] - times[0])
    before = np.searchsorted(sign * times, sign * saved, side="right") - 1

    def one(time: float, k: np.integer) -> Any:
        x = jax.tree.map(lambda leaf: leaf[k], states)
        if time == times[k]:
            return x
        leaf = jax.tree.leaves(x)[0]
        s, t = (jnp.full(leaf.shape[:1], t, leaf.dtype) for t in (times[k], time))
        return jump(x, s, t)

    kept = [one(time, k) for time, k in zip(saved, before, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)
