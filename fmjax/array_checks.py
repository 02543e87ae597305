"""Checks of arrays: their shapes, class ids, finite values, and batches as a whole.

Shapes are checked always, values only where they are at hand: a traced program has none, and to
look at them there would stall the device.
"""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fmjax.checks import check_methods
from fmjax.conventions import Array, Span, Velocity, at_least_float32, dtype_of
from fmjax.errors import InputError


def is_concrete(x: Any) -> bool:
    """Whether the values of x are at hand: not traced, and not on another process's devices."""
    return not isinstance(x, jax.core.Tracer) and getattr(x, "is_fully_addressable", True)


def check_finite(name: str, x: Any) -> None:
    """Checks that every array of a pytree is finite, outside of a traced program.

    Raises:
        InputError: one is not; the first bad example is named.
    """
    for leaf in jax.tree.leaves(x):
        if not is_concrete(leaf) or not leaf.size:
            continue
        xp = np if isinstance(leaf, np.ndarray) else jnp  # data threads stay off the device
        with jax.ensure_compile_time_eval():
            rows = xp.any(~xp.isfinite(xp.reshape(leaf, (leaf.shape[0], -1))), axis=1)
            count, first = int(rows.sum()), int(xp.argmax(rows))
        if count:
            raise InputError(
                f"{name} must be finite; got NaN or infinity in {count} of "
                f"{leaf.shape[0]} examples, the first of them {first}."
            )


def shape_of(what: str, x: Any) -> tuple[int, ...]:
    """The shape of an array, or of a number.

    Args:
        what: the array, as the message names it.
        x: an array, traced or not, or a ``jax.ShapeDtypeStruct``.

    Raises:
        InputError: it is something else, such as a text.
    """
    kind = getattr(getattr(x, "dtype", None), "kind", "")
    if not (hasattr(x, "shape") or isinstance(x, numbers.Number)) or kind in ("O", "S", "U"):
        raise InputError(f"{what} must be of arrays of numbers; got {type(x).__name__} {x!r:.60}.")
    return jnp.shape(x)


def check_shaped_as(what: str, x: Any, like: str, shape: tuple[int, ...]) -> None:
    """Checks that an array has the shape of another.

    Args:
        what: the array, as the message names it.
        x: the array, or a ``jax.ShapeDtypeStruct``.
        like: the other array, as the message names it.
        shape: the shape of the other array.

    Raises:
        InputError: it has another shape.
    """
    if shape_of(what, x) != shape:
        raise InputError(f"{what} must be shaped as {like}, {shape}; got {jnp.shape(x)}.")


def as_floats(what: str, x: Any) -> Float[Array, "..."]:
    """An array of floats in float32 or wider: half precision is widened, and nothing else is.

    Args:
        what: the array, as the message names it.
        x: an array, traced or not.

    Raises:
        InputError: as in `check_floats`.
    """
    check_floats(what, x)
    return at_least_float32(x)


def check_floats(what: str, x: Any) -> None:
    """Checks that an array is of floats.

    Args:
        what: the array, as the message names it.
        x: an array, traced or not.

    Raises:
        InputError: it is of integers, of complex numbers, or of no numbers at all.
    """
    dtype = dtype_of(x)
    if not isinstance(dtype, np.dtype) or not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"{what} must be of floats; got {dtype}. Write {what}.astype(jnp.float32); images of "
            "uint8 become floats by fmjax.data.pixels.to_unit."
        )


def check_returned(function: str, value: Any, like: str, target: Any) -> None:
    """Checks what a function of the user's own returned: numbers, built and shaped as something.

    A result of another shape would often broadcast, and be wrong without a word.

    Args:
        function: the function, as the message names it.
        value: what it returned, traced or not.
        like: what the result must be shaped as, as the message names it.
        target: that, an array or a pytree of arrays. Floats of any precision are right where it has
            floats, and integers where it has integers.

    Raises:
        InputError: it is built otherwise, of another shape, or of other numbers.
    """
    if jax.tree.structure(value) != jax.tree.structure(target):
        raise InputError(
            f"{function} must return what is built as {like}, {jax.tree.structure(target)}; got "
            f"{jax.tree.structure(value)}."
        )
    for found, wanted in zip(jax.tree.leaves(value), jax.tree.leaves(target), strict=True):
        kind = _kind(wanted)
        if jnp.shape(wanted) != getattr(found, "shape", ()) or _kind(found) != kind:
            raise InputError(
                f"{function} must return {kind} shaped as {like}, {jnp.shape(wanted)}; "
                f"got {_described(found)}."
            )


def shaped_as_x(function: str, velocity: Velocity) -> Velocity:
    """A velocity whose every result is checked: inside of vmap and of derivatives, too.

    Args:
        function: the velocity, as the message names it.
        velocity: ``velocity(x, t, labels)``.

    Returns:
        The same, which raises InputError where it gives anything but floats shaped as x.

    Raises:
        InputError: it is no function.
    """
    check_methods(function, velocity, such_as="lambda x, t, labels: ...")

    def checked(x: Any, t: Any, labels: Any) -> Any:
        u = velocity(x, t, labels)
        check_returned(function, u, "x", x)
        return u

    return checked


def check_per_example(function: str, value: Any, batch: int) -> None:
    """Checks that a function of the user's own returned one float per example, (batch,).

    Args:
        function: the function, as the message names it.
        value: what it returned, traced or not.
        batch: the number of examples.

    Raises:
        InputError: it has another shape, or is not of floats.
    """
    if getattr(value, "shape", ()) != (batch,) or _kind(value) != "floats":
        raise InputError(
            f"{function} must return one float per example, ({batch},); got {_described(value)}. "
            "Sum, or take the mean, over the other axes."
        )


def _kind(x: Any) -> str:
    """The kind of numbers in an array; precision does not matter."""
    dtype = dtype_of(x)
    if isinstance(dtype, str):
        return dtype
    kinds = {
        "floats": jnp.floating,
        "integers": jnp.integer,
        "complex numbers": jnp.complexfloating,
    }
    return next((name for name, kind in kinds.items() if jnp.issubdtype(dtype, kind)), str(dtype))


def _described(x: Any) -> str:
    if not hasattr(x, "dtype"):
        return f"{type(x).__name__} {x!r:.60}"
    return f"{x.dtype} of shape {x.shape}"


def check_class_ids(
    what: str, ids: Any, *, count: int | None = None, num_classes: int | None = None
) -> None:
    """Checks class ids, of which there must be at least one.

    Args:
        what: the ids, as the message names them.
        ids: an array or a list of integers (n,), whose values are at hand.
        count: how many ids there must be; None for any number.
        num_classes: the number of classes; None where it is not known.

    Raises:
        InputError: they have another shape or are no integers, or one is negative or too large.
    """
    ids = np.asarray(ids)
    whole = ids.ndim == 1 and ids.dtype.kind in "iu"
    if not whole or not len(ids) or len(ids) != (count or len(ids)):
        raise InputError(
            f"{what} must be integer class ids of shape ({count or 'n'},); "
            f"got {ids.dtype} of shape {ids.shape}."
        )
    wrong = ids[(ids < 0) | (num_classes is not None and ids >= num_classes)]
    if len(wrong):
        most = "on" if num_classes is None else f"to {num_classes - 1}"
        raise InputError(f"{what} must be class ids from 0 {most}; got {wrong[0]}.")


def check_points(x: Any, t: Any, shape: tuple[int, ...]) -> None:
    """Checks where a flow of known shape is asked: one time for each example.

    Args:
        x: the points (batch, ...).
        t: the times (batch,).
        shape: the shape of one example of the flow.

    Raises:
        InputError: x holds examples of another shape, or t is not ``(batch,)``.
    """
    if x.shape[1:] != shape or jnp.shape(t) != x.shape[:1]:
        raise InputError(
            f"this flow takes x (batch, {', '.join(map(str, shape))}) and t (batch,); "
            f"got {x.shape} and {jnp.shape(t)}."
        )


def check_leading_size(labels: Any, batch: int, what: str = "labels") -> None:
    """Checks that the labels are those of a batch.

    Args:
        labels: a pytree of arrays with a leading batch axis, or None.
        batch: the number of examples.
        what: the arrays, as the message names them.

    Raises:
        InputError: an array has another leading size.
    """
    for leaf in jax.tree.leaves(labels):
        if shape_of(what, leaf)[:1] != (batch,):
            raise InputError(
                f"{what} must have the leading size of the batch, {batch}; "
                f"got an array of shape {jnp.shape(leaf)}."
            )


def check_pairs(x0: Any, x1: Any, labels: Any = None) -> None:
    """Checks a batch of pairs before anything is compiled.

    Args:
        x0: source points (batch, ...), or a pytree of such arrays.
        x1: data points, built as x0.
        labels: arrays with a leading batch axis, or None.

    Raises:
        InputError: x0 and x1 differ in structure or shape or have no batch axis, a label array has
            another leading size than the batch, or x0 or x1 is not finite.
    """
    batch = check_alike(x0, x1)
    check_leading_size(labels, batch)
    for name, x in (("x0", x0), ("x1", x1)):
        check_finite(name, x)


def check_alike(x0: Any, x1: Any) -> int:
    """Checks that x0 and x1 are batches of one structure and of one shape.

    Args:
        x0: as in `check_pairs`.
        x1: as in `check_pairs`.

    Returns:
        The size of the batch.

    Raises:
        InputError: they differ, or have no batch axis or no example.
    """
    if jax.tree.structure(x0) != jax.tree.structure(x1):
        raise InputError(
            f"x0 and x1 must be built alike; got x0 {jax.tree.structure(x0)} and x1 "
            f"{jax.tree.structure(x1)}."
        )
    shapes = [shape_of("x1", leaf) for leaf in jax.tree.leaves(x1)]
    if not shapes:
        raise InputError(f"x0 and x1 must be arrays (batch, ...); got {x1!r:.60}.")
    for source, shape in zip(jax.tree.leaves(x0), shapes, strict=True):
        if shape_of("x0", source) != shape or not shape:
            raise InputError(
                "x0 and x1 must have one shape, (batch, ...); "
                f"got x0 {jnp.shape(source)} and x1 {shape}."
            )
    if len({shape[:1] for shape in shapes}) != 1:
        raise InputError(f"the parts of x1 must have one leading size, the batch; got {shapes}.")
    if shapes[0][0] == 0:
        raise InputError("x0 and x1 must have at least one pair; got none.")
    return shapes[0][0]


def check_prefix(t: Any, tree: Any) -> None:
    """Checks that a tree of times is one time for all, or one for each part of another tree.

    Args:
        t: an array, or a pytree of arrays.
        tree: what the times are of.

    Raises:
        InputError: t is no prefix of the tree.
    """
    try:
        jax.tree.broadcast(t, tree)
    except ValueError as error:
        raise InputError(
            "t must be one array for all of x, or a pytree that is a prefix of x, "
            f"{jax.tree.structure(tree)}; got {jax.tree.structure(t)}."
        ) from error


def check_training_batch(x0: Any, x1: Any, t: Any, labels: Any = None) -> None:
    """Checks one training batch before anything is compiled.

    Args:
        x0: as in `check_pairs`.
        x1: as in `check_pairs`.
        t: times (batch,); or (batch, n, ...), one for each element of leading axes of x1; or a
            pytree of such times that is a prefix of x1; or a `fmjax.conventions.Span` of two.
        labels: as in `check_pairs`.

    Raises:
        InputError: as in `check_pairs`; a time has another shape, or lies outside [0, 1].
    """
    check_pairs(x0, x1, labels)
    for times in t if isinstance(t, Span) else [t]:
        check_prefix(times, x1)
        spread = jax.tree.leaves(jax.tree.broadcast(times, x1))
        for one, part in zip(spread, jax.tree.leaves(x1), strict=True):
            _check_time_shape(one, jnp.shape(part))
        for one in jax.tree.leaves(times):
            _check_in_unit_interval(one)


def times_of(t: Any, x: Any) -> Float[Array, "batch ..."]:
    """Times as floats in float32 or wider, held to the points that they belong to.

    Args:
        t: (batch,); or (batch, n, ...), one for each element of leading axes of x.
        x: the points (batch, ...).

    Raises:
        InputError: they are not of floats, or of another shape.
    """
    t = as_floats("t", t)
    _check_time_shape(t, jnp.shape(x))
    return t


def _check_time_shape(t: Any, shape: tuple[int, ...]) -> None:
    found = shape_of("t", t)
    if not found or found != shape[: len(found)]:
        raise InputError(
            f"t must have shape (batch,) = {shape[:1]}, one time per example, or the leading axes "
            f"of x, {shape}, one per element; got {found}. "
            "For one time for all write jnp.full((batch,), t)."
        )


def _check_in_unit_interval(t: Any) -> None:
    as_floats("t", t)
    if not is_concrete(t):
        return
    with jax.ensure_compile_time_eval():  # a constant of a traced program has values, too
        low, high = float(jnp.min(t)), float(jnp.max(t))
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"t must lie in [0, 1], 0 at the source and 1 at the data; got values from "
            f"{low:g} to {high:g}."
        )
