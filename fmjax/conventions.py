"""The one convention, stated once.

====================  ==============================================================================
time                  t = 0 is the source x0 (noise), t = 1 is the data x1; t has shape (batch,)
span                  two times, ``Span(s, t)``, in the place of t, where a network knows both
path                  x_t = alpha_t x1 + sigma_t x0
velocity              u_t = d_alpha_t x1 + d_sigma_t x0
network               any pure function ``apply_fn(params, x, t, labels) -> velocity``, shaped as x,
                      or an `Output` that has the velocity among its parts
labels                class ids (batch,), a pytree of per-example conditions, or None
loss                  ``loss_fn(params, x0, x1, t, labels) -> scalar``: no key, no hidden state
guidance              u = (1 - w) u_null + w u_cond: 0 unconditional, 1 conditional, above 1 guided
====================  ==============================================================================

SD3 and FLUX count time the other way round (t = 1 is noise); what is taken from them is converted
where it enters, and its docstring says so.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num, PRNGKeyArray, Real, Shaped

from fmjax.checks import check_methods
from fmjax.errors import InputError

Array = jax.Array
"""An array, in signatures such as ``Float[Array, "batch d"]``; as in jax, numpy's serve as well."""

Params = Any
Labels = Any

AnyArray = TypeVar("AnyArray", jax.Array, np.ndarray)
"""Arrays of jax, or arrays of numpy: what comes in goes out."""

Batched = Float[Array, " batch *shape"]
"""One array of each example: points x, or velocities at them."""

TimeFunction = Callable[[Float[Array, "*t"]], Float[Array, "*t"]]
"""A function of time: times of any shape go in, and a value for each comes out."""

Times = Sequence[float] | Real[np.ndarray, " times"] | Real[jax.Array, " times"]
"""Several times, as one writes them: ``[0.0, 0.5, 1.0]``, or an array of them."""

Places = Sequence[int] | Int[np.ndarray, " places"]
"""Positions of several examples."""

Prediction = Literal["velocity", "x1", "x0", "score", "v"]
"""What a network predicts, by name; see `fmjax.predictions`."""

ApplyFn = Callable[[Params, Any, Any, Labels], Any]
"""A network: ``apply_fn(params, x, t, labels) -> velocity``, or an `Output`.

x is an array or a pytree of arrays, t an array (batch,), a `Span`, or a pytree of times.
"""

Velocity = Callable[[Any, Any, Labels], Any]
"""A network with its parameters bound: ``velocity(x, t, labels) -> velocity``, shaped as x."""


def expand(t: Shaped[Array, "..."], x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Appends axes of size one to t (batch,) until ``t * x`` is a product per example."""
    return jnp.reshape(t, t.shape + (1,) * (x.ndim - t.ndim))


def per_example_sum(x: Num[Array, "batch ..."]) -> Num[Array, " batch"]:
    """The sum over all axes but the first: (batch, ...) -> (batch,)."""
    return jnp.sum(x, axis=tuple(range(1, jnp.ndim(x))))


def dtype_of(x: Any) -> Any:
    """The dtype of an array or a number; the name of its type where it is neither."""
    try:
        return type(x).__name__ if x is None else jnp.result_type(x)
    except (TypeError, ValueError):  # the latter of a dictionary
        return type(x).__name__


def at_least_float32(
    x: Real[ArrayLike, "*shape"], what: str = "an array"
) -> Float[Array, "*shape"]:
    """Casts half-precision and integer arrays to float32; float32 and float64 stay as they are.

    Half of 1001 equally spaced times coincide in bfloat16, so the path is never computed in it.

    Args:
        x: an array or a number.
        what: as the message names it.

    Raises:
        InputError: x is complex, or no number at all.
    """
    dtype = dtype_of(x)
    if isinstance(dtype, str) or jnp.issubdtype(dtype, jnp.complexfloating):
        raise InputError(f"{what} must be of real numbers; got {dtype}.")
    if not jnp.issubdtype(dtype, jnp.floating):  # strict promotion mixes no integers with floats
        dtype = jnp.float32
    return jnp.asarray(x, jnp.promote_types(dtype, jnp.float32))


def check_key(key: Any, what: str = "key") -> None:
    """Checks that something is one random key, ``jax.random.key(seed)`` or of the older kind.

    Args:
        key: what came.
        what: as the message names it.

    Raises:
        InputError: it is none, such as a seed, or it is several.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    older = dtype is not None and dtype == jnp.uint32 and shape == (2,)
    if not (typed or older):
        came = f"{type(key).__name__} {key!r:.60}" if dtype is None else f"{dtype} of shape {shape}"
        raise InputError(f"{what} must be one key, jax.random.key(seed); got {came}.")


def example_keys(key: PRNGKeyArray, index: Int[Array, " batch"]) -> Shaped[Array, "batch ..."]:
    """One key per example: ``fold_in(key, index)`` for each place (batch,) in the global batch.

    Raises:
        InputError: the key is none, or the places are not integers (batch,).
    """
    check_key(key)
    check_places(index)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def check_places(index: Any) -> None:
    """Checks places in the global batch.

    Raises:
        InputError: they are not integers (batch,).
    """
    dtype = getattr(index, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.integer) or jnp.ndim(index) != 1:
        came = f"{type(index).__name__}" if dtype is None else f"{dtype} of shape {index.shape}"
        raise InputError(f"index must be integers (batch,), places in the batch; got {came}.")


class Span(NamedTuple):
    """Two times, from s to t, each (batch,), for a network that knows both.

    u(x, Span(s, t)) is the average velocity between them: x + (t - s) u is where the flow carries x
    from s to t, and u(x, Span(t, t)) is the velocity at t.

    Example:
        >>> s, t = Span(jnp.zeros(2), jnp.ones(2))
        >>> t - s
        Array([1., 1.], dtype=float32)
    """

    s: Float[Array, " batch"]
    t: Float[Array, " batch"]


def time_of(t: Real[Array, "batch ..."] | Span) -> Real[Array, "batch ..."]:
    """The time at which x is: t itself, the first of a `Span`."""
    return t.s if isinstance(t, Span) else t


def diagonal(apply_fn: ApplyFn) -> ApplyFn:
    """The velocity of a network of two times: u(x, Span(t, t)).

    A `Span` goes through as it is, so that the result serves solvers, guidance and likelihoods,
    which give it a time t, and jumps, which give it a span.

    Args:
        apply_fn: ``apply_fn(params, x, Span(s, t), labels)``.

    Returns:
        ``velocity_fn(params, x, t, labels)``, t (batch,) or a `Span` of two such.

    Raises:
        InputError: the network is no function.

    Example:
        >>> average = lambda params, x, span, labels: x + (span.t - span.s)[:, None]
        >>> diagonal(average)(None, jnp.ones((1, 1)), jnp.array([0.5]))
        Array([[1.]], dtype=float32)
    """
    check_methods("apply_fn", apply_fn, such_as="lambda params, x, span, labels: ...")

    def velocity_fn(
        params: Params, x: Any, t: Real[Array, "batch ..."] | Span, labels: Labels = None
    ) -> Any:
        return apply_fn(params, x, t if isinstance(t, Span) else Span(t, t), labels)

    return velocity_fn


@jax.tree_util.register_pytree_node_class
class Output:
    """What a network gives that has more to say than one array: its parts, by name.

    Args:
        **parts: arrays, or pytrees of them, e.g. ``Output(velocity=u, divergence=d)``. The path or
            the loss says which it takes: ``"velocity"``, or the name of another prediction.

    Example:
        >>> Output(velocity=1.0, divergence=0.0)["velocity"]
        1.0
    """

    def __init__(self, **parts: Any):
        self.parts = parts

    def __getitem__(self, name: str) -> Any:
        return take_part(self, name)

    def __repr__(self) -> str:
        return f"Output({', '.join(self.parts)})"

    def tree_flatten(self) -> tuple[tuple, tuple]:
        """The parts, and their names."""
        return tuple(self.parts.values()), tuple(self.parts)

    @classmethod
    def tree_unflatten(cls, names: tuple, parts: tuple) -> "Output":
        """The inverse of `tree_flatten`."""
        return cls(**dict(zip(names, parts, strict=True)))


def take_part(output: Any, name: str) -> Any:
    """The part of that name of an `Output`; anything else is the part itself.

    Args:
        output: what a network gave.
        name: which part is wanted.

    Raises:
        InputError: the output has no part of that name.
    """
    if not isinstance(output, Output):
        return output
    if not isinstance(name, str) or name not in output.parts:
        raise InputError(
            f"the network gives an Output of {', '.join(output.parts)}, and {name!r} is wanted; "
            f"write Output({name}=...)."
        )
    return output.parts[name]
