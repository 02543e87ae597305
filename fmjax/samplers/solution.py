"""What every solve gives back, ODE or SDE, and what every solve asks of its input."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Key, Real

from fmjax.array_checks import check_floats, check_leading_size, shape_of
from fmjax.checks import check_at_least, check_finite_number, is_number
from fmjax.conditions import share
from fmjax.conventions import Array, Times
from fmjax.errors import InputError


class SolveError(FloatingPointError):
    """A solve did not reach its end; the message says how far it came.

    Example:
        >>> solution = solve(lambda x, t, labels: x / 0, jnp.ones((1, 1)))
        >>> check_solution(solution)
        Traceback (most recent call last):
        fmjax.samplers.solution.SolveError: 1 of 1 ...
    """


class Solution(NamedTuple):
    """What a solve gives back.

    Attributes:
        x1: the state at t1, shaped as x0.
        nfe: evaluations of the velocity made for each example, int32 (batch,).
        success: False where the adaptive solver gave up, or the state is not finite, bool (batch,);
            x1 is then NaN, or the token -1.
        accepted: steps that were taken, int32 (batch,).
        rejected: adaptive steps that were tried and taken back, int32 (batch,).
        t_end: how far the solve came with a finite state: t1, or where an adaptive solver gave up,
            or where the fixed step began that met a velocity that is not finite; (batch,).
        trajectory: the states at `save_at`, with a leading axis of times; None if not asked.

    Example:
        >>> solution = solve(lambda x, t, labels: x, jnp.ones((1, 1)), spec=solver_spec("euler", 2))
        >>> solution.x1, solution.nfe
        (Array([[2.25]], dtype=float32), Array([2], dtype=int32))
    """

    x1: Any
    nfe: Int[Array, " batch"]
    success: Bool[Array, " batch"]
    accepted: Int[Array, " batch"]
    rejected: Int[Array, " batch"]
    t_end: Float[Array, " batch"]
    trajectory: Any = None


def check_solution(solution: Solution, t1: float = 1.0, first: int = 0) -> Solution:
    """The solution, if every example has one; outside of compiled programs.

    Args:
        solution: of `solve` or of an SDE.
        t1: where it was to end.
        first: the number of its first example, where it is a part of a larger batch.

    Raises:
        InputError: it is no solution, or a number is none.
        SolveError: an adaptive solve gave up, or a velocity was not finite; it says how many
            examples failed, and how far the first of them came.

    Example:
        >>> solution = solve(lambda x, t, labels: x, jnp.ones((1, 1)), spec=solver_spec("euler", 2))
        >>> check_solution(solution).x1
        Array([[2.25]], dtype=float32)
    """
    if not isinstance(solution, Solution):
        raise InputError(
            f"the solution must be what solve or solve_sde gave; got {type(solution).__name__}."
        )
    check_finite_number("t1", t1)
    check_at_least("first", first, 0)
    success = np.asarray(solution.success)
    if success.all():
        return solution
    failed = np.flatnonzero(~success)
    t_end, accepted, rejected = (
        np.asarray(field)[failed[0]]
        for field in (solution.t_end, solution.accepted, solution.rejected)
    )
    raise SolveError(
        f"{len(failed)} of {len(success)} examples did not reach t = {t1:g}: number "
        f"{first + failed[0]}, the first of them, stopped at t = {t_end:.6g} after {accepted} "
        f"steps taken and {rejected} rejected. There the velocity is not finite, or the tolerance "
        "asks for steps that are too small or too many: look at velocity(x, t) there, or take "
        "larger rtol and atol, or fixed steps."
    )


def batch_size_of(x0: Any) -> int:
    """The size of the batch of a state.

    Raises:
        InputError: its arrays have no common leading axis, or are not of floats.
    """
    batch = leading_size(x0)
    for leaf in jax.tree.leaves(x0):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            raise InputError(
                f"x0 must be of floats; got {leaf.dtype}. Tokens are sampled by a solver of "
                "fmjax.discrete, such as Unmask(path); numbers are x0.astype(jnp.float32)."
            )
        check_floats("x0", leaf)
    return batch


def leading_size(x0: Any) -> int:
    """The size of the batch of a state of any dtype.

    Raises:
        InputError: its arrays have no common leading axis, or no example.
    """
    shapes = [shape_of("x0", leaf) for leaf in jax.tree.leaves(x0)]
    if not shapes or any(shape[:1] != shapes[0][:1] or not shape for shape in shapes):
        raise InputError(f"x0 must have a leading batch axis, (batch, ...); got shapes {shapes}.")
    if shapes[0][0] == 0:
        raise InputError("x0 must have at least one example; got none.")
    return shapes[0][0]


def check_ends(t0: float, t1: float) -> None:
    """Checks that a solve goes from one finite time to another.

    Raises:
        InputError: one of them is no finite number, or they are equal.
    """
    if not all(is_number(t) and math.isfinite(t) for t in (t0, t1)) or t0 == t1:
        raise InputError(f"t0 and t1 must be two different finite times; got {t0!r} and {t1!r}.")


def check_noisy_solve(x0: Any, keys: Key[Array, " batch"] | None, t0: float, t1: float) -> int:
    """Checks all that a solve with noise asks of its input.

    Args:
        x0: the state at t0, one array (batch, ...).
        keys: one random key per example (batch,).
        t0: where to start.
        t1: where to end, after t0.

    Returns:
        The size of the batch.

    Raises:
        InputError: it is something else.
    """
    batch = batch_size_of(x0)
    if not hasattr(x0, "shape"):
        raise InputError(
            "a solver with noise takes one array (batch, ...) as its state; got "
            f"{type(x0).__name__}: concatenate its arrays into one, or take a solver of the ODE, "
            "from solver_spec."
        )
    check_keys(keys, batch)
    check_forward(t0, t1)
    return batch


def check_keys(keys: Key[Array, " batch"] | None, batch: int) -> Key[Array, " batch"]:
    """Checks the keys of a solve with noise.

    Returns:
        The keys.

    Raises:
        InputError: there are none, or not one random key per example.
    """
    if keys is None:
        raise InputError(
            "a solver with noise takes one random key per example: write solve_sde(velocity, x0, "
            "jax.random.split(key, batch), labels, spec), or take a solver of the ODE, from "
            "solver_spec."
        )
    dtype = getattr(keys, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed or keys.shape != (batch,):
        came = type(keys).__name__ if dtype is None else f"shape {keys.shape} of {dtype}"
        raise InputError(
            f"keys must be one random key per example, ({batch},); got {came}. "
            f"Write jax.random.split(jax.random.key(seed), {batch})."
        )
    return keys


def check_forward(t0: float, t1: float) -> None:
    """Checks that a solve with noise goes forward in time.

    Raises:
        InputError: t1 does not come after t0, or one of them is no finite number.
    """
    check_ends(t0, t1)
    if t1 < t0:
        raise InputError(
            f"a solver with noise runs from t0 up to a later t1; got t0={t0} and t1={t1}. "
            "Without noise it runs backwards: fmjax.solve."
        )


def check_moves_numbers(path: Any) -> None:
    """Checks that a solver of differential equations can follow a path.

    Raises:
        InputError: the path is one of tokens, which jump.
    """
    if getattr(path, "jumps", False):
        raise InputError(
            f"{type(path).__name__} moves tokens by jumps, which no differential equation does; "
            "take a solver of fmjax.discrete, such as Unmask(path)."
        )


def shared_labels(labels: Any, batch: int) -> Any:
    """The labels of a solve, lone ones repeated.

    Raises:
        InputError: an array has neither the leading size of the batch nor 1.
    """
    labels = share(labels, batch)
    if not isinstance(labels, tuple):  # which a guided velocity takes, and checks itself
        check_leading_size(labels, batch)
    return labels


def checked_times(save_at: Times, t0: float, t1: float) -> Float64[np.ndarray, " times"]:
    """The times at which to keep the state, float64.

    Raises:
        InputError: there is none, or they leave the way from t0 to t1 or turn back on it.
    """
    try:
        times = np.asarray(save_at, np.float64)
    except (TypeError, ValueError):
        times = np.zeros(0)  # refused below
    low, high = min(t0, t1), max(t0, t1)
    inside = times.ndim == 1 and len(times) and np.all((times >= low) & (times <= high))
    if not inside or not np.all(np.diff(times) * (t1 - t0) > 0):
        raise InputError(
            f"save_at must be times in order from t0={t0:g} to t1={t1:g}; got {save_at!r:.80}."
        )
    return times


def finished(solution: Solution) -> Solution:
    """The solution with NaN, or the token -1, in every example that is not one."""
    success = solution.success & is_finite(solution.x1)

    def blank(leaf):
        none = -1 if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.nan
        return jnp.where(jnp.expand_dims(success, tuple(range(1, leaf.ndim))), leaf, none)

    return solution._replace(x1=jax.tree.map(blank, solution.x1), success=success)


def is_finite(x: Any) -> Bool[Array, " batch"]:
    """Whether the state of each example is finite, and no token -1, bool (batch,)."""

    def whole(leaf: Real[Array, "batch ..."]) -> Bool[Array, " batch"]:
        rows = jnp.reshape(leaf, (leaf.shape[0], -1))
        good = rows >= 0 if jnp.issubdtype(rows.dtype, jnp.integer) else jnp.isfinite(rows)
        return jnp.all(good, axis=1)

    return functools.reduce(jnp.logical_and, [whole(leaf) for leaf in jax.tree.leaves(x)])
