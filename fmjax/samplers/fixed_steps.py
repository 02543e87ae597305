"""Fixed steps of your own: what a solver needs beside the formula of one step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Real

from fmjax.array_checks import check_returned
from fmjax.conventions import Array, Times, at_least_float32
from fmjax.samplers.solution import Solution, checked_times, finished, is_finite, leading_size

Step = Callable[[Any, Float[Array, " batch"], Float[Array, " batch"], Int[Array, ""]], Any]
"""``step(x, t, t_next, k) -> x_next``, with both times (batch,); k, int32 (), counts the steps."""


def take_steps(
    step: Step,
    x0: Any,
    times: Sequence[float] | Real[np.ndarray, " nodes"],
    *,
    nfe: int,
    save_at: Times | None = None,
) -> Solution:
    """Takes one step from each time to the next, under `jax.lax.scan`.

    Args:
        step: one step; noise is to be drawn from ``jax.random.fold_in(key, k)`` of each example.
        x0: the state at the first time, floats (batch, ...), or a pytree of such arrays; half
            precision is carried in float32. Integers are tokens, and stay integers.
        times: increasing or decreasing, (steps + 1,), known when the program is compiled.
        nfe: how often the steps evaluate the velocity, all together.
        save_at: times on the way at which to keep the state; between two steps it is interpolated
            linearly, and of tokens it is the one before.

    Returns:
        The state at the last time; NaN, or the token -1, with ``success`` False, where it is not
        finite, or a token is -1.

    Raises:
        InputError: x0 has no batch axis, or save_at leaves the way or turns back on it.
    """
    batch, x0 = leading_size(x0), jax.tree.map(_carried, x0)
    dtype = _time_dtype(x0)
    times = np.asarray(times, np.float64)
    nodes = jnp.asarray(times, dtype)

    def one(carry, ends):
        x, whole = carry
        start, end, k = ends
        stepped = step(x, jnp.full(batch, start), jnp.full(batch, end), k)
        check_returned("the step", stepped, "x", x)
        x = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), stepped, x)
        whole = whole & is_finite(x)
        return (x, whole), (whole, None if save_at is None else x)

    ends = nodes[:-1], nodes[1:], jnp.arange(len(times) - 1, dtype=jnp.int32)
    (x1, whole), (each_whole, states) = jax.lax.scan(one, (x0, jnp.ones(batch, bool)), ends)
    trajectory = None
    if save_at is not None:
        saved = checked_times(save_at, float(times[0]), float(times[-1]))
        trajectory = jax.tree.map(lambda *xs: _at(saved, times, *xs), x0, states)
    calls, taken, rejected = (jnp.full(batch, n, jnp.int32) for n in (nfe, len(times) - 1, 0))
    t_end = nodes[jnp.sum(each_whole, axis=0)]
    return finished(Solution(x1, calls, whole, taken, rejected, t_end, trajectory))


def _carried(leaf: Any) -> Array:
    return jnp.asarray(leaf) if _is_integer(leaf) else at_least_float32(leaf, "x0")


def _is_integer(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.integer)


def _time_dtype(x0: Any) -> Any:
    floats = [leaf.dtype for leaf in jax.tree.leaves(x0) if not _is_integer(leaf)]
    return floats[0] if floats else jnp.result_type(float)


def _at(saved: np.ndarray, times: np.ndarray, x0: Array, states: Array) -> Array:
    """The states at the times saved, from the one at each of the times."""
    states = jnp.concatenate([jnp.asarray(x0)[None], states])
    sign = np.sign(times[-1] - times[0])
    place = np.interp(sign * saved, sign * times, np.arange(len(times)))
    before = np.minimum(place.astype(int), len(times) - 2)
    if _is_integer(states):
        return states[np.minimum(place.astype(int), len(times) - 1)]
    share = jnp.asarray(place - before, states.dtype).reshape(-1, *[1] * (states.ndim - 1))
    # Where the share is 0 or 1 the state is one of the steps, whatever the other one is.
    between = (1 - share) * states[before] + share * states[before + 1]
    return jnp.where(share == 0, states[before], jnp.where(share == 1, states[before + 1], between))
