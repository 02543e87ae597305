"""Solvers of tokens: from source tokens and a network's guesses to samples.

A step from t to s draws x1 from the guess at every place, and then x_s from the path given x1 and
x_t. As the guess is that at t, tokens that turn in one step are drawn independently of each other:
the error falls as the steps grow, with order one.

    x0 = path.source.sample(key, jnp.arange(batch), shape)
    keys = jax.random.split(key, batch)
    samples = solve_sde(network, x0, keys, labels, Unmask(path, 64)).x1

==============  ==================================================================================
`TauLeap`       rates frozen over a step, on any path (Euler's method for jumps)
`Unmask`        the exact step of a mixture path given the guess; for masks, MD4's
`Purity`        for masks: the same number of tokens at every step, the surest first
==============  ==================================================================================
"""

import abc
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer, Key

from fmjax.checks import check_between, check_methods, check_positive
from fmjax.conventions import Array, Labels, Times
from fmjax.discrete.base import TokenPath, check_token_path, times_for
from fmjax.discrete.corrector import Corrector
from fmjax.discrete.guess import Guess, guess_of
from fmjax.discrete.mixture import MixturePath
from fmjax.discrete.tokens import NEVER, OfTokens, Tokens, TokenTimes, as_tokens, draw, uniform
from fmjax.errors import InputError
from fmjax.paths import Path
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

Denoiser = Callable[[Array, Array, Labels], Any]
"""A network with its parameters bound: ``denoiser(x, t, labels) -> logits``, or `GuidedLogits`."""


@dataclass(frozen=True)
class TokenSolver(abc.ABC):
    """A `fmjax.samplers.base.Solver` of tokens: one evaluation a step, one key per example.

    Args:
        path: the path that the network was trained on; None until `on_path` gives it.
        steps: how many; None for 64, or as the times of the grid say.
        grid: where they are: a name of `fmjax.samplers.GRIDS`, a grid, or the times themselves;
            None is the uniform one.
        temperature: the logarithms of the guess are divided by it; below 1 makes likely tokens
            likelier. 1 samples the model.
        top_p: of each guess only the likeliest tokens are drawn, as many as have this probability
            together; 1 keeps all.
        corrector: draws tokens anew on the way; None does not.

    Raises:
        InputError: the path is none of tokens, the number of steps does not fit the grid, or a
            number lies outside of its range.
    """

    name: ClassVar[str]
    path: TokenPath | None
    steps: int | None = None
    grid: str | Grid | Times | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    corrector: Corrector | None = None

    def __post_init__(self):
        if self.path is not None:
            self._check_path()
        steps, grid = fixed_grid(self.steps, self.grid, default=64)
        check_positive("the temperature", self.temperature)
        check_between("top_p", self.top_p, 0, 1, "(]")
        if self.corrector is not None:
            such_as = "Corrector(redraws=1.0)"
            check_methods("the corrector", self.corrector, "apply", such_as=such_as)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "grid", grid)

    def solve(
        self,
        velocity: Denoiser,
        x0: Integer[Array, "batch ..."],
        labels: Labels = None,
        *,
        keys: Key[Array, " batch"] | None = None,
        t0: float = 0.0,
        t1: float = 1.0,
        save_at: Times | None = None,
    ) -> Solution:
        """Carries tokens from t0 to t1; see `fmjax.samplers.base.Solver`.

        Args:
            velocity: the network with its parameters bound, ``network(x, t, labels)``: logits of x1
                (batch, ..., vocabulary), or `GuidedLogits`.
            x0: tokens at t0 (batch, ...), integers, as ``path.source`` draws them.
            labels: as the network takes them.
            keys: one random key per example (batch,).
            t0: where to start, in [0, 1).
            t1: where to end, after t0; at 1 every token is a data token.
            save_at: times at which to keep the tokens; each becomes a node of the grid.

        Returns:
            Tokens at t1, int32; -1 in an example whose logits were NaN, with ``success`` False.

        Raises:
            InputError: the tokens are none, or not integers; there are no keys; t1 is not after t0,
                or one of them leaves [0, 1]; or the logits have another shape.
        """
        check_methods("the network", velocity, such_as="lambda x, t, labels: ...")
        x0 = as_tokens("x0", x0, self.known_path.states)
        batch = leading_size(x0)
        each = check_keys(keys, batch)
        check_forward(t0, t1)
        if t0 < 0 or t1 > 1:
            raise InputError(f"tokens move from t = 0 to t = 1; got t0={t0} and t1={t1}.")
        labels, times = shared_labels(labels, batch), self.nodes(t0, t1)
        if save_at is not None:
            times, save_at = with_nodes(times, checked_times(save_at, t0, t1))

        def step(x: Array, t: Array, s: Array, k: Array) -> Array:
            return self.move(velocity(x, t, labels), x, t, s, _fold(each, k))

        return take_steps(step, x0, times, nfe=len(times) - 1, save_at=save_at)

    def move(
        self, output: Any, x: Tokens, t: TokenTimes, s: TokenTimes, keys: Key[Array, " batch"]
    ) -> Tokens:
        """One step.

        Args:
            output: what the network gave at (x, t).
            x: states at t (batch, ...).
            t: times (batch,).
            s: times (batch,), after t.
            keys: one per example (batch,), of this step alone.

        Returns:
            States at s, int32; -1 in an example whose logits are NaN, or that had one.
        """
        guess = guess_of(self.known_path, output, x, t)
        guessing, jumping, correcting = (_fold(keys, jnp.int32(i)) for i in range(3))
        sharpened = sharpen(guess.log_p, self.temperature, self.top_p)
        x1 = draw(guessing, sharpened)
        at, until = times_for(t, x), times_for(s, x)
        moved = jnp.where(until >= 1, x1, self._step(guess, x, x1, at, until, jumping))
        if self.corrector is not None:
            u = uniform(correcting, x, guess.log_p.dtype)
            moved = self.corrector.apply(self.known_path, moved, x1, t, s, u)
        places = tuple(range(1, x.ndim))
        known = jnp.all(jnp.isfinite(guess.log_p), axis=(*places, x.ndim))
        known = known & jnp.all(x >= 0, axis=places)
        return jnp.where(times_for(known, x), moved, -1)

    @abc.abstractmethod
    def _step(self, guess: Guess, x: Array, x1: Array, t: Array, s: Array, keys: Array) -> Array:
        """The states at s, below 1, given x1 drawn from the guess."""

    @property
    def known_path(self) -> TokenPath:
        """The path.

        Raises:
            InputError: there is none yet.
        """
        return check_token_path("the path of the solver", self.path)

    def _check_path(self) -> None:
        """Raises InputError if it is no solver of its path."""
        check_token_path("the path", self.path)

    def describe(self) -> dict[str, Any]:
        """What decides the samples, for JSON."""
        described = {
            "solver": self.name,
            "steps": self.steps,
            "grid": repr(self.grid),
            "temperature": float(self.temperature),
            "top_p": float(self.top_p),
        }
        if self.corrector is not None:
            described["corrector"] = repr(self.corrector)
        return described

    def nodes(self, t0: float = 0.0, t1: float = 1.0) -> Float[np.ndarray, " nodes"]:
        """The steps + 1 times between which tokens jump, float64.

        Raises:
            InputError: the grid does not reach from t0 to t1.
        """
        steps, grid = fixed_grid(self.steps, self.grid, default=64)
        return time_grid(grid, steps, t0, t1)

    def evaluation_times(
        self, t0: float = 0.0, t1: float = 1.0
    ) -> Float[np.ndarray, " evaluations"]:
        """Where the steps start, float64.

        Raises:
            InputError: as in `nodes`.
        """
        return self.nodes(t0, t1)[:-1]

    @property
    def needs_tokens(self) -> bool:
        """True: states are tokens, and the network gives logits of them."""
        return True

    def on_path(self, path: Path) -> "TokenSolver":
        """The same solver on another path of tokens.

        Raises:
            InputError: the path is none of tokens, or none of this solver.
        """
        return dataclasses.replace(self, path=check_token_path("the path", path))


@dataclass(frozen=True)
class TauLeap(TokenSolver):
    """Tau-leaping, Euler's method for jumps: the rates at t hold until s.

    A token jumps with the probability 1 - exp(-(s - t) R), R the sum of its rates given the guess;
    at s = 1 it is the guess. On any path, guided by R_c^w R_u^(1-w). Source: Gat et al.,
    arXiv:2407.15595.
    """

    name: ClassVar[str] = "tau_leap"

    def _step(self, guess: Guess, x: Array, x1: Array, t: Array, s: Array, keys: Array) -> Array:
        u = uniform(keys, x, guess.log_p.dtype)
        return self.known_path.leap(guess, x, x1, t, s, u)


@dataclass(frozen=True)
class Unmask(TokenSolver):
    """The exact step of a mixture path given the guess, for masks the ancestral step of MD4.

    A source token turns with the probability 1 - ((1 - kappa_s) / (1 - kappa_t))^Z, the exact one
    for any step. Z = 1 without guidance, and with it the sum of p_c^w p_u^(1-w).
    """

    name: ClassVar[str] = "unmask"

    def _check_path(self) -> None:
        super()._check_path()
        _as_mixture("Unmask", self.known_path)

    def _step(self, guess: Guess, x: Array, x1: Array, t: Array, s: Array, keys: Array) -> Array:
        u = uniform(keys, x, guess.log_p.dtype)
        path = _as_mixture("Unmask", self.known_path)
        return jnp.where(u < path.jump_probability(guess, t, s), x1, x)


@dataclass(frozen=True)
class Purity(TokenSolver):
    """Unmasks the tokens first of which the network is surest; for masks alone.

    As many masked tokens turn as in `Unmask`; which of them is decided by the largest probability
    of each guess, on a logarithmic scale, with Gumbel noise of the scale `randomness`. Source:
    Campbell et al., arXiv:2402.04997, appendix F.

    Args:
        randomness: 0 takes the surest tokens; the order of large numbers is random. At least 0.
    """

    name: ClassVar[str] = "purity"
    randomness: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_between("the randomness of Purity", self.randomness, 0, 1e6)

    def _check_path(self) -> None:
        super()._check_path()
        path = _as_mixture("Purity", self.known_path)
        if not path.masks:
            raise InputError(
                "Purity orders the unmasking of masks, and this path starts from "
                f"{path.source}; take Unmask or TauLeap."
            )

    def describe(self) -> dict[str, Any]:
        """What decides the samples, for JSON."""
        return super().describe() | {"randomness": float(self.randomness)}

    def _step(self, guess: Guess, x: Array, x1: Array, t: Array, s: Array, keys: Array) -> Array:
        path = _as_mixture("Purity", self.known_path)
        masked = x == path.vocabulary
        u = uniform(keys, x, guess.log_p.dtype)
        turning = masked & (u < path.jump_probability(guess, t, s))
        count = jnp.sum(turning.reshape(x.shape[0], -1), axis=1)
        sure = jnp.max(guess.log_p, axis=-1)
        if self.randomness:
            others = _fold(keys, jnp.int32(0))
            noise = jax.vmap(lambda key: jax.random.gumbel(key, x.shape[1:], sure.dtype))(others)
            sure = sure + self.randomness * noise
        sure = jnp.where(masked, sure, 2 * NEVER).reshape(x.shape[0], -1)
        rank = jnp.argsort(jnp.argsort(-sure, axis=1), axis=1)
        chosen = (rank < count[:, None]).reshape(x.shape)
        return jnp.where(chosen & masked, x1, x)


def sharpen(log_p: OfTokens, temperature: float = 1.0, top_p: float = 1.0) -> OfTokens:
    """Log-probabilities (..., count) at a temperature, the unlikeliest of them left out.

    Args:
        log_p: normalised log-probabilities (..., count).
        temperature: they are divided by it.
        top_p: the likeliest tokens are kept, as many as have this probability together.

    Returns:
        Log-weights (..., count), not normalised, `NEVER` where a token is left out.
    """
    log_w = log_p if temperature == 1 else jnp.maximum(log_p / temperature, NEVER)
    if top_p == 1:
        return log_w
    p = jax.nn.softmax(log_w)
    ordered = jnp.flip(jnp.sort(p, axis=-1), axis=-1)
    before = jnp.cumsum(ordered, axis=-1) - ordered
    least = jnp.min(jnp.where(before < top_p, ordered, 1.0), axis=-1, keepdims=True)
    return jnp.where(p >= least, log_w, NEVER)


def _as_mixture(name: str, path: TokenPath) -> MixturePath:
    """The path, a mixture or one with the methods of a mixture."""
    if not hasattr(path, "jump_probability"):
        raise InputError(
            f"{name} steps along a MixturePath, and {type(path).__name__} is none; take TauLeap."
        )
    return path  # type: ignore[return-value]


def _fold(keys: Array, number: Array) -> Array:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
